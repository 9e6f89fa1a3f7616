"""The checks of data on rows and a task made up for them: planted faults are found, clean data have none."""

from types import SimpleNamespace

import numpy as np
import pytest

from research.data.check import splits as check_splits
from research.data.check import survey as check
from research.data.check import text as check_text
from research.data.readers.rows import Broken
from research.errors import UserError


def field(kind, shape=(), limit=0):
    return SimpleNamespace(kind=kind, shape=shape, limit=limit)


def texts(findings, level):
    return [finding.text for finding in findings if finding.level == level]


class Faulty(list):
    """Rows of which some cannot be read."""

    def __getitem__(self, number):
        value = super().__getitem__(number)
        if isinstance(value, Exception):
            raise value
        return value


def picture(seed, shape=(16, 16, 1)):
    return np.random.default_rng(seed).integers(0, 255, shape, np.uint8)


def test_broken_refused_and_empty():
    rows = Faulty(
        [{'text': 'fine', 'label': 0}, Broken('a.jsonl, line 2: not JSON'), {'text': ' ', 'label': 1}]
    )

    def encode(row, rng=None):
        if row['label'] == 1:
            raise UserError('label 1 is none of the 1 classes')
        return {'label': np.int32(row['label'])}

    inputs = {'text': field('text', limit=3)}
    seen = check.survey('train', rows, inputs)
    found = check.encode_all(seen, rows, encode, {}) + check.check_split(seen, inputs)
    errors, warnings = texts(found, 'error'), texts(found, 'warning')
    assert any('1 broken records' in text and 'a.jsonl, line 2: not JSON' in text for text in errors)
    assert any('1 rows cannot be encoded' in text and 'row 2: label 1 is none' in text for text in errors)
    assert any("1 text is empty in 'text' (train row 2)" in text for text in warnings)
    assert any('longer than the 3 characters' in text for text in warnings)
    assert texts(check.check_split(seen, inputs, error_limit=5), 'error') == []  # broken ones may be left out
    assert 'the split is empty' in texts(check.check_split(check.survey('test', [], {}), {}), 'error')


def test_ids_beyond_the_vocabulary_and_labels_beyond_the_classes():
    rows = [{'n': 3}, {'n': 9}, {'n': -1}]

    def encode(row, rng=None):
        return {'tokens': np.full(4, row['n'], np.int32), 'label': np.int32(row['n'])}

    seen = check.survey('train', rows, {})
    found = texts(check.encode_all(seen, rows, encode, {'tokens': 9, 'label': 9}), 'error')
    assert any(
        "ids beyond the vocabulary: 'tokens' of 2 rows is not in 0 to 8 (row 1: 9 to 9)" in text
        for text in found
    )
    assert any("labels beyond the classes: 'label' of 2 rows" in text for text in found)
    assert check.encode_all(seen, rows[:1], encode, {'tokens': 9, 'label': 9}) == []


def test_encoded_shapes_that_differ():
    rows = [{'n': 1}, {'n': 2}]
    seen = check.survey('train', rows, {})
    found = check.encode_all(seen, rows, lambda row, rng=None: {'x': np.zeros(row['n'])}, {})
    assert "field 'x' has several shapes: [1] x1, [2] x1" in texts(found, 'error')[0]


def test_pictures_of_other_sizes_and_channels():
    rows = [{'image': picture(0)}, {'image': picture(1)}, {'image': picture(2, (8, 9, 3))}]
    inputs = {'image': field('image', (16, 16, 1))}
    warnings = texts(check.check_split(check.survey('train', rows, inputs), inputs), 'warning')
    assert any('1 of 3 pictures' in text and 'do not have 1 channels' in text for text in warnings)
    assert any('2 sizes' in text and '16x16 x2, 8x9 x1' in text for text in warnings)
    inputs = {'image': field('image', (32, 32, 1))}
    warnings = texts(check.check_split(check.survey('train', rows[:2], inputs), inputs), 'warning')
    assert warnings == ["all pictures in 'image' are 16x16 and will be fitted to 32x32"]
    inputs = {'image': field('image', (0, 0, 0))}  # a task that reads pictures of any size and colour
    assert not texts(check.check_split(check.survey('train', rows, inputs), inputs), 'warning')


def test_sounds_that_are_silent_or_of_another_rate():
    rows = [
        {'audio': np.ones(80, np.float32), 'rate': 8000},
        {'audio': np.zeros(160, np.float32), 'rate': 16000},
    ]
    inputs = {'audio': field('audio')}
    seen = check.survey('train', rows, inputs)
    warnings = texts(check.check_split(seen, inputs), 'warning')
    assert any('1 sounds' in text and 'silent' in text for text in warnings)
    assert any('differ in sample rate: 8000 Hz x1, 16000 Hz x1' in text for text in warnings)
    assert any('seconds: 0.01' in line for line in check_text.fields_text(seen))


def test_copies_within_and_across_splits():
    inputs = {'text': field('text')}
    long = 'the quick brown fox jumps over the lazy dog near the bank of the river'
    train = check.survey(
        'train', [{'text': long, 'label': 0}, {'text': 'b', 'label': 0}, {'text': 'b', 'label': 1}], inputs
    )
    test = check.survey('test', [{'text': 'b'}, {'text': long + '.'}, {'text': 'c'}], inputs)
    warnings = texts(check.check_split(train, inputs), 'warning')
    assert any(
        '1 rows have the same content as an earlier row and another label' in text for text in warnings
    )
    assert any('1 of 3 rows are copies of an earlier row' in text for text in warnings)
    found = check_splits.check_between(train, test, ['text'])
    assert texts(found, 'error') == [
        '1 of 3 rows (33.3%) are exact copies of training rows: test row 0 = train row 1'
    ]
    assert "1 texts in 'text' are nearly those of training rows" in texts(found, 'warning')[0]
    assert texts(check_splits.check_between(train, test, ['number']), 'error') == []  # by chance, in a table


def test_a_request_that_is_only_a_label_does_not_make_pictures_copies():
    inputs = {'label': field('category'), 'seed': field('number')}
    rows = [{'image': picture(number), 'label': 0} for number in range(4)]
    seen = check.survey('train', rows, inputs)
    assert len(set(seen.keys)) == 4 and check.check_split(seen, inputs) == []


def test_near_pictures_across_splits():
    inputs = {'image': field('image', (16, 16, 1))}
    train = check.survey('train', [{'image': picture(n)} for n in range(20)], inputs)
    copy = np.clip(picture(4).astype(int) + 2, 0, 255).astype(np.uint8)
    test = check.survey('test', [{'image': copy}, {'image': picture(99)}], inputs)
    found = check_splits.check_between(train, test, ['image'])
    assert len(found) == 1 and 'look like those of training rows' in found[0].text
    assert 'test row 0 = train row 4' in found[0].text


def test_classes_that_differ_are_missing_or_rare():
    names = {'train': ['cat'] * 300 + ['dog'], 'test': ['cat', 'Dog']}
    found = check_splits.check_classes(names)
    assert texts(found, 'error') == [
        "class names differ from those of train: 'Dog' x1 (train has 'cat', 'dog')"
    ]
    assert check_splits.check_classes(names, resolved=['test']) == []
    surveys = [
        check.survey(split, [{'x': 1, 'label': name} for name in each], {}) for split, each in names.items()
    ]
    found = texts(check_splits.check_balance(surveys), 'warning')
    assert "1 classes of train have no row: 'dog'" in found
    assert "class 'cat' is 300 times as common as 'dog'" in found
    one = check.survey('train', [{'x': 1, 'label': 'cat'}], {})
    assert texts(check_splits.check_balance([one]), 'error') == ["all rows are of one class, 'cat'"]
    missing = check.survey('train', [{'x': 1, 'label': 'cat'}, {'x': 2}], {})
    assert any('1 of 2 rows have no label' in text for text in texts(check.check_split(missing, {}), 'error'))


def test_columns_that_say_nothing_or_something_new():
    inputs = {'color': field('category'), 'size': field('number')}
    train = check.survey('train', [{'color': 'red', 'size': 1}, {'color': 'blue', 'size': 1}], inputs)
    test = check.survey('test', [{'color': 'green', 'size': 2}], inputs)
    assert texts(check_splits.check_values(train, train), 'warning') == [
        "column 'size' has the same value in all rows"
    ]
    assert (
        "column 'color' has values that train never has: 'green' x1"
        in check_splits.check_values(train, test)[0].text
    )


def test_labels_are_shown_as_train_names_them():
    rows = {'train': ['no', 'yes'], 'test': ['no.', 'yes.']}
    surveys = []
    for split, labels in rows.items():
        seen = check.survey(split, [{'x': n, 'label': label} for n, label in enumerate(labels)], {})
        seen.encoded = [0, 1]
        surveys.append(seen)
    check_splits.name_labels(surveys, {})
    assert surveys[1].labels == ['no', 'yes']


def test_rows_are_chosen_evenly_and_the_report_ends_with_a_verdict():
    assert check.chosen_numbers(10, 4) == [0, 2, 5, 7] and check.chosen_numbers(3, 0) == [0, 1, 2]
    rows = [{'text': 'word ' * (n % 9 + 1) + str(n), 'label': n % 2} for n in range(40)]
    inputs = {'text': field('text')}
    seen = check.survey('train', rows, inputs, limit=20)
    report = check_text.report_text('data of x', [seen], check.check_split(seen, inputs))
    assert 'train 40 (20 checked)' in report and "train 'text', characters: 6 to 47" in report
    assert report.endswith('verdict: fit, nothing found')
    finding = check.Finding('error', 'test', 'bad')
    assert check_text.verdict([finding]) == 'verdict: NOT FIT, 1 error and 0 warnings'
    assert check_text.verdict([finding._replace(level='warning')] * 2) == 'verdict: fit, with 2 warnings'


@pytest.mark.parametrize('values', [[5.0], [1, 1, 1], list(range(1000)), [0.5, 0.25, 7.5]])
def test_histograms_count_everything(values):
    lines = check_text.histogram(values, 'x')
    counts = [int(line.rsplit(' ', 1)[1].replace(',', '')) for line in lines[2:]]
    assert not counts or sum(counts) == len(values)
