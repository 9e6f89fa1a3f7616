"""Tables of results: written from run folders, held to their columns, and RESULTS.md is what they give."""

import json
import re

import pytest
from contract import ROOT

from research.errors import UserError
from research.report import results
from research.resolve import read_file


def times(seed):
    return {'seconds': 10 + seed, 'seconds_before': 2}


@pytest.fixture
def run(tmp_path):
    def write(seed, accuracy, command='python -m launch.train --config=configs/digits.py:mlp --config.task.shift=1'):
        folder = tmp_path / f'run_{seed}'
        folder.mkdir()
        metric = {'value': accuracy, 'baseline': 0.1, 'about': 'top 1'}
        metrics = {'test': {'step': 5, 'metrics': {'accuracy': metric}, 'signature': {}}}
        files = {
            'metrics': metrics,
            'config': {'seed': seed, 'data': {'name': 'digits'}},
            'environment': {'command': f'{command} --config.seed={seed}', 'commit': 'abc', **times(seed)},
        }
        (folder / 'prepared').mkdir()
        (folder / 'prepared' / 'splits.json').write_text(json.dumps({'sha256': '0123456789abcdef' * 4}))
        for name, value in files.items():
            (folder / f'{name}.json').write_text(json.dumps(value))
        return str(folder)

    return write


def test_runs_of_several_seeds_are_one_row(run):
    row = results.row_of([run(0, 0.9888), run(1, 0.9926)], 'test', 'accuracy')
    assert (row['config'], row['overrides']) == ('digits:mlp', '--config.task.shift=1')
    assert (row['commit'], row['data_hash']) == ('abc', '0123456789abcdef')
    assert (row['values'], row['seeds'], row['baseline'], row['time']) == ('98.88 99.26', '0 1', '10.00', '12-13 s')


def test_runs_of_several_configs_are_refused(run):
    other = run(1, 0.9, 'python -m launch.train --config=configs/adult.py')
    with pytest.raises(UserError, match='several configs'):
        results.row_of([run(0, 0.9), other], 'test', 'accuracy')


@pytest.mark.parametrize(('split', 'metric', 'words'), [('test', 'acuracy', 'accuracy'), ('tset', 'accuracy', 'test')])
def test_a_wrong_name_is_answered_with_the_nearest(run, split, metric, words):
    with pytest.raises(UserError, match=words):
        results.row_of([run(0, 0.9)], split, metric)


def test_a_metric_of_several_numbers_is_refused(run):
    with pytest.raises(UserError, match='--metric=accuracy: a table records single numbers'):
        results.row_of([run(0, [[1, 2], [3, 4]])], 'test', 'accuracy')


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(UserError, match='metrics.json'):
        results.row_of([str(tmp_path)], 'test', 'accuracy')


def test_a_table_with_other_columns_is_refused(tmp_path):
    (tmp_path / 'images.csv').write_text('config,values\ndigits,1\n')
    with pytest.raises(UserError, match='columns'):
        results.render(tmp_path)


def test_what_is_written_is_read_back(tmp_path):
    rows = [dict.fromkeys(results.COLUMNS, 'a, "b"\nc')]
    results.write_table(tmp_path / 'text.csv', rows)
    assert results.read_table(tmp_path / 'text.csv') == rows


def test_the_page_is_what_the_tables_give():
    page = (ROOT / 'RESULTS.md').read_text(encoding='utf-8')
    assert page == results.render(ROOT / 'results'), 'run: python -m launch.record'


@pytest.mark.parametrize('name', results.TITLES)
def test_rows_name_configs_numbers_and_notes_that_exist(name):
    rows = results.read_table(ROOT / 'results' / f'{name}.csv')
    notes = set(re.findall(r'^(\d+)\. ', (ROOT / 'results' / 'notes.md').read_text(encoding='utf-8'), re.M))
    assert rows
    for row in rows:
        file, _, variants = row['config'].partition(':')
        assert read_file(f'configs/{file}.py:{variants}' if variants else f'configs/{file}.py'), row['config']
        assert len(row['values'].split()) == len(row['seeds'].split())
        assert all(float(value) == float(value) for value in row['values'].split())
        assert set(row['note'].split()) <= notes
        assert not row['published'] or row['source'], 'a published value names its source'


def test_a_share_is_in_percent_once():
    assert results.number_text(0.9888, 'accuracy') == '98.88'
    assert results.number_text(45.9158, 'f1', 'percent, over words') == '45.92'
    assert results.number_text(30.39, 'psnr', 'dB') == '30.39'
