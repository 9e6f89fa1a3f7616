"""What is said of data before a run: cuts, what was left out, and rows that a task cannot encode."""

import collections

import numpy as np
import pytest
from etils import epath

from research import api
from research.data.cache import encode_split
from research.data.check.survey import Finding, paced
from research.data.check.task import check_data, merged
from research.data.check.text import MAX_LINE_CHARACTERS, report_text
from research.data.dataset import open_dataset
from research.data.labels import collect
from research.data.notes import cut_notes, data_notes, loss_notes
from research.data.readers.rows import Broken
from research.errors import UserError


def test_the_share_of_rows_and_of_tokens_that_are_cut():
    assert loss_notes([10, 20, 30, 40], 25, 'tokens') == [
        '50.0% of the training rows are longer than the 25 tokens that the model reads (config.task.length) and lose '
        '20.0% of all tokens; the longest has 40'
    ]
    assert not loss_notes([10, 25], 25, 'tokens') and not loss_notes([], 25, 'tokens')
    looked_at = collections.Counter()
    rows = range(50_000)

    def count(row):
        looked_at[row] += 1
        return 10 if row < 25_000 else 30

    assert '50.0% of the training rows' in cut_notes(rows, count, 20, 'tokens')[0]
    assert len(looked_at) == 2000 and min(looked_at) == 0 and max(looked_at) > 49_900


def written(tmp_path, lines):
    (tmp_path / 'a.csv').write_text('text,label\n' + ''.join(f'{text},{label}\n' for text, label in lines))
    return {
        'reader': 'csv', 'train': str(tmp_path / 'a.csv'), 'on_error': 'skip', 'validation_fraction': 0.0,
        'test_fraction': 0.0,
    }  # fmt: skip


def encode(row):
    if row['text'] == 'bad':
        raise UserError('this text is bad')
    return {'size': np.int32(len(row['text']))}


def test_rows_that_a_task_cannot_encode_are_skipped_and_counted(tmp_path):
    settings = written(tmp_path, [('good', 'a'), ('bad', 'b'), ('well', ''), ('fine', 'c')])
    source = open_dataset(settings, ('text', 'label')).source
    found = encode_split(source, encode, 'train')
    assert found.fields['size'].tolist() == [4, 4] and [row['text'] for row in found.rows] == ['good', 'fine']
    assert found.refused == (f'{tmp_path}/a.csv, line 3: this text is bad',)
    notes = data_notes(found)
    assert len(notes) == 1 and notes[0].startswith('2 broken records are left out, the first: ')
    with pytest.raises(UserError, match=r'(?s)more than 0 broken records.*no label'):
        encode_split(open_dataset({**settings, 'error_limit': 0}, ('text', 'label')).source, encode, 'train')
    stop = written(tmp_path, [('good', 'a'), ('bad', 'b')]) | {'on_error': 'stop'}
    with pytest.raises(UserError, match='a.csv, line 3: this text is bad'):
        encode_split(open_dataset(stop, ('text', 'label')).source, encode, 'train')
    (tmp_path / 'a.csv').write_text('text,label\nbad,a\n')
    with pytest.raises(UserError, match='no row that can be encoded: .*this text is bad'):
        encode_split(source_of(settings), encode, 'train')


def source_of(settings):
    return open_dataset(settings, ('text', 'label')).source


def test_labels_that_are_no_numbers_are_skipped_too(tmp_path):
    settings = written(tmp_path, [('a', '1.5'), ('b', '1_000'), ('c', 'inf'), ('d', '2.5')])
    facts = collect(source_of(settings)('train'), 'number', ',', '')
    assert (facts.mean, facts.size) == (2.0, 2)
    with pytest.raises(UserError, match="a.csv, line 3: the label '1_000' is not a finite number"):
        collect(source_of({**settings, 'on_error': 'stop'})('train'), 'number', ',', '')
    with pytest.raises(Broken):
        list(source_of({**settings, 'on_error': 'stop', 'missing': ('inf',)})('train'))


def test_the_same_finding_of_several_splits_is_one():
    findings = [
        Finding('error', 'train', 'the task cannot be prepared: no file'), Finding('error', 'train', 'no file'),
        Finding('error', 'validation', 'no file'), Finding('error', 'test', 'no file'),
        Finding('warning', 'test', 'odd'),
    ]  # fmt: skip
    assert merged(findings) == [
        Finding('error', 'train, validation, test', 'the task cannot be prepared: no file'),
        Finding('warning', 'test', 'odd'),
    ]


def test_lines_of_a_report_are_bounded_and_notes_are_no_warnings():
    text = report_text('x', [], [Finding('note', 'train', 'a' * 4000), Finding('warning', 'test', 'b ' * 3000)])
    assert max(map(len, text.split('\n'))) <= MAX_LINE_CHARACTERS and text.endswith('verdict: fit, with 1 warning')
    assert report_text('x', [], [Finding('note', 'train', 'a')]).endswith('verdict: fit, nothing found')


def test_progress_is_said_from_time_to_time():
    said = []
    assert list(paced(range(3), 'train: reading', said.append, seconds=-1)) == [0, 1, 2]
    assert said[1] == 'train: reading: 1 of 3 rows'


def test_check_data_tells_of_cuts_labels_links_and_work(tmp_path):
    lines = ''.join(f'{"word " * (20 if n % 4 else 100)}{n},{["Good", "good ", "bad"][n % 3]}\n' for n in range(90))
    (tmp_path / 'a.csv').write_text('text,label\n' + lines + ',\n')
    overrides = {
        'data.name': '', 'data.reader': 'csv', 'data.train': str(tmp_path / 'a.csv'), 'task.length': '40',
    }  # fmt: skip
    config = api.read('configs/sst2.py:tiny', overrides)
    said = []
    _, findings = check_data(config, api.prepare, api.build, say=said.append)
    texts = '\n'.join(f'{each.level} {each.split}: {each.text}' for each in findings)
    assert 'are longer than the 40 tokens that the model reads' in texts
    assert "warning train: the classes 'Good' and 'good' differ only in case, spaces or number format" in texts
    assert '1 rows without any value are left out' in texts
    assert said[0] == 'preparing the task' and 'train: opening the files' in said
    folder = epath.Path(tmp_path / 'prepared')
    api.prepare(config, folder)
    assert 'longer than the 40 tokens' in next(iter(api.build(config, folder).notes()))
