"""A table as numbers and categories: statistics of the training rows alone, missing values, answers."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from etils import epath
from sklearn.linear_model import LogisticRegression

from research import api
from research.core.task import Context
from research.data.dataset import open_dataset
from research.errors import UserError
from research.tasks import table_classification

HEADER = 'age,city,code,note,label\n'


@pytest.fixture
def built(tmp_path):
    """A small table of one's own with a missing number, a missing category and numbers that are names."""
    lines = ['20,Rome,7,x,yes', ' 40 , Oslo,8,y,no', '?,Rome,7,z,yes', '60,,9,w,no.', '40,Oslo,7,v,yes']
    (tmp_path / 'train.csv').write_text(HEADER + '\n'.join(lines))
    (tmp_path / 'other.csv').write_text(HEADER + '1000,Bern,7,x,yes\nNaN,Rome,1,x,no\n')
    config = make_config(tmp_path, {})
    folder = epath.Path(tmp_path / 'prepared')
    api.prepare(config, folder)
    return config, folder, api.build(config, folder)


def make_config(folder, overrides):
    given = {
        'data.name': '', 'data.reader': 'csv', 'data.columns': '', 'data.train': str(folder / 'train.csv'),
        'data.validation': str(folder / 'other.csv'), 'data.test': str(folder / 'other.csv'),
        'task.categorical': 'code', 'task.ignore': 'note', 'task.strip': '.', 'model.widths': '(4,)',
    }  # fmt: skip
    return api.read('configs/adult.py:tiny', {**given, **overrides})


def test_statistics_are_those_of_the_training_rows(built):
    facts = json.loads((built[1] / 'columns.json').read_text())
    assert facts['classes'] == ['no', 'yes'] and facts['counts'] == [2, 3]  # 'no.' is 'no'
    ages = [20, 40, 60, 40]
    np.testing.assert_allclose(facts['numbers']['age'], [np.mean(ages), np.std(ages)])
    assert facts['flagged'] == ['age']
    assert facts['categories'] == {'city': ['Oslo', 'Rome'], 'code': ['7', '8', '9']}


def test_rows_become_numbers_flags_and_categories(built):
    task = built[2]
    std = np.std([20, 40, 60, 40])
    example = task.encode({'age': '60', 'city': 'Rome', 'code': 7, 'label': 'yes'})
    np.testing.assert_allclose(example['numbers'], [20 / std, 0], rtol=1e-6)
    assert example['categories'].tolist() == [3, 2] and example['label'] == 1
    missing = task.encode({})
    assert (
        missing['numbers'].tolist() == [0, 1]
        and missing['categories'].tolist() == [0, 0]
        and 'label' not in missing
    )
    new = task.encode({'age': 1e9, 'city': 'Paris', 'code': '7.0'})
    assert new['numbers'][0] == 10 and new['categories'].tolist() == [1, 1]


def test_rows_of_a_split_are_encoded_once_and_can_still_be_read(built):
    source = built[2].source('validation')
    assert source is built[2].source('validation') and len(source) == 2
    row = source[0]
    assert (
        dict(row) == {'age': '1000', 'city': 'Bern', 'code': '7', 'note': 'x', 'label': 'yes'}
        and len(row) == 5
    )
    encoded, again = built[2].encode(row), built[2].encode(dict(row))
    assert encoded.keys() == again.keys()
    for name, value in encoded.items():
        np.testing.assert_array_equal(value, again[name])
        assert value.dtype == again[name].dtype


@pytest.mark.parametrize(('change', 'message'), [
    ({'age': 'old'}, "column 'age': 'old' is not a number"),
    ({'age': [1]}, "column 'age'"),
    ({'label': 'maybe'}, "class 'maybe' is not among the 2"),
])  # fmt: skip
def test_values_that_cannot_be_are_named(built, change, message):
    with pytest.raises(UserError, match=message):
        built[2].encode({'age': 1, 'city': 'Rome', 'code': 7, **change})


def test_constant_columns_have_no_influence_and_are_named(tmp_path):
    """14.62 in every row deviates by rounding from its mean; numbers that differ by less than float32 resolves too."""
    values = [(14.62, 0.1 + 0.2 if row % 2 else 0.3, 1_700_000_000 + 60 * row, row) for row in range(15)]
    lines = [','.join(map(repr, each)) + f',{"ab"[row % 2]}' for row, each in enumerate(values)]
    (tmp_path / 'train.csv').write_text('price,noise,time,size,label\n' + '\n'.join(lines))
    (tmp_path / 'other.csv').write_text('price,noise,time,size,label\n' + '\n'.join(lines))
    config = make_config(tmp_path, {'task.categorical': '()', 'task.ignore': '()'})
    folder = epath.Path(tmp_path / 'prepared')
    api.prepare(config, folder)
    task = api.build(config, folder)
    request = {'noise': 5, 'time': 1_700_000_420, 'size': 7}
    numbers = [task.encode({**request, 'price': price})['numbers'] for price in (14.62, 99)]
    np.testing.assert_array_equal(numbers[0], numbers[1])
    np.testing.assert_allclose(numbers[0], 0, atol=1e-6)
    assert task.encode({'time': 1_700_000_840})['numbers'][2] == pytest.approx(420 / (60 * np.std(range(15))))
    assert task.notes() == ['columns that are constant in training have no influence: price, noise']


@pytest.mark.parametrize(('overrides', 'message'), [
    ({'task.ignore': 'nose'}, "ignore: no column 'nose'; did you mean 'note'"),
    ({'task.most_categories': '0'}, 'most_categories must be above zero'),
    ({'task.ignore': 'age,city,code,note'}, "no column but 'label'"),
    ({'data.fields': 'label:kind'}, "no 'label'"),
    ({'data.fields': 'note:label'}, 'column|class|cannot'),
])  # fmt: skip
def test_settings_that_cannot_be_are_named(tmp_path, overrides, message):
    (tmp_path / 'train.csv').write_text(HEADER + '1,a,2,x,yes\n2,b,3,x,no\n')
    with pytest.raises(UserError, match=message):
        api.prepare(
            make_config(tmp_path, {'task.categorical': '()', **overrides}), epath.Path(tmp_path / 'p')
        )


def test_a_model_that_cannot_be_is_refused(built):
    for overrides in ({'model.embedding': '-1'}, {'model.dropout': '1.5'}, {'model.widths': '(0,)'}):
        with pytest.raises(UserError, match=f'config.{next(iter(overrides))}'):
            api.build(make_config(built[1].parent, overrides), built[1])


def test_a_row_that_cannot_be_encoded_is_named_by_its_line(tmp_path):
    (tmp_path / 'train.csv').write_text(HEADER + '1,a,2,x,yes\n2,b,3,x,no\n')
    (tmp_path / 'other.csv').write_text(HEADER + '1,a,2,x,yes\n2,b,3,x,perhaps\n')
    config, folder = make_config(tmp_path, {}), epath.Path(tmp_path / 'p')
    api.prepare(config, folder)
    with pytest.raises(UserError, match="other.csv, line 3: class 'perhaps' is not among the 2"):
        api.build(config, folder).source('test')


def split_table(folder, rows=80):
    """A table whose label depends on a number and a category, as train.csv and other.csv."""
    rng = np.random.default_rng(1)
    lines = []
    for _ in range(rows):
        age, city, noise = rng.normal(40, 9), rng.choice(['Rome', 'Oslo', 'Bern', '']), rng.normal()
        lines.append(f'{age:.2f},{city},7,x,{"yes" if age + 9 * (city == "Oslo") + 4 * noise > 42 else "no"}')
    (folder / 'train.csv').write_text(HEADER + '\n'.join(lines[: rows // 2]))
    (folder / 'other.csv').write_text(HEADER + '\n'.join(lines[rows // 2 :]))


def test_accuracy_is_beside_that_of_a_logistic_regression(tmp_path):
    split_table(tmp_path)
    config, folder = make_config(tmp_path, {'data.validation': ''}), epath.Path(tmp_path / 'p')
    api.prepare(config, folder)
    task = api.build(config, folder)
    batches = {}
    for split in ('train', 'test'):
        examples = list(map(task.encode, task.source(split)))
        batches[split] = {name: np.stack([each[name] for each in examples]) for name in examples[0]}
    batch = {**batches['test'], 'mask': np.ones(len(batches['test']['label']), np.float32)}
    padded = {name: np.concatenate([value, 0 * value[:3]]) for name, value in batch.items()}
    sums = task.metric_sums(task.init(jax.random.key(0)), padded, Context(jax.random.key(0), 0, False))
    metrics = task.metrics(jax.tree.map(np.asarray, sums))
    assert list(metrics)[:2] == ['accuracy', 'linear_accuracy']

    def features(rows):
        categories = rows['categories']
        return np.hstack([rows['numbers'], *(np.eye(9)[categories[:, column]] for column in range(2))])

    fitted = LogisticRegression().fit(features(batches['train']), batches['train']['label'])
    expected = fitted.score(features(batch), batch['label'])
    assert metrics['linear_accuracy'].value == pytest.approx(expected) and 0.6 < expected < 1
    assert metrics['linear_accuracy'].better == ''  # a reference, not judged


@pytest.mark.parametrize('case', ['private', 'large'])
def test_no_logistic_regression_of_private_or_large_tables(tmp_path, monkeypatch, case):
    split_table(tmp_path)
    config, folder = make_config(tmp_path, {}), epath.Path(tmp_path / 'p')
    if case == 'private':
        config = dataclasses.replace(config, methods=('privacy',), settings={'privacy': {}})
    else:
        monkeypatch.setattr(table_classification, 'LINEAR_ROWS', 10)
    api.prepare(config, folder)
    assert [path.name for path in folder.iterdir()] == ['columns.json']
    task = api.build(dataclasses.replace(config, methods=()), folder)
    batch = {name: value[None] for name, value in task.encode(task.source('test')[0]).items()} | {'mask': np.ones(1)}
    sums = task.metric_sums(task.init(jax.random.key(0)), batch, Context(jax.random.key(0), 0, False))
    assert 'linear_right' not in sums


@pytest.mark.parametrize('embedding', [0, 3])
def test_the_model_sees_every_column(built, embedding):
    """Another value in any one column changes the scores; the answer is for a person."""
    config, folder, _ = built
    overrides = {'model.embedding': str(embedding)}
    task = api.build(make_config(folder.parent, overrides), folder)
    variables = task.init(jax.random.key(0))
    raws = [{'age': 20, 'city': 'Rome', 'code': 7}, {'age': 30, 'city': 'Rome', 'code': 7},
            {'age': 20, 'city': 'Oslo', 'code': 7}, {'age': 20, 'city': 'Rome', 'code': 8},
            {'city': 'Rome', 'code': 7}]  # fmt: skip
    examples = [task.encode(raw) for raw in raws]
    batch = {name: np.stack([each[name] for each in examples]) for name in examples[0]}
    outputs = task.predict(variables, batch, Context(jax.random.key(0), 0, False))
    scores = np.asarray(outputs['logits'])
    assert len(np.unique(scores.round(7), axis=0)) == len(raws)
    answer = task.decode({name: np.asarray(value)[0] for name, value in outputs.items()})
    assert (
        answer['label'] in ('no', 'yes')
        and abs(sum(each['probability'] for each in answer['top']) - 1) < 1e-5
    )


@pytest.mark.parametrize(
    ('name', 'count', 'classes'), [('breast_cancer', 569, 2), ('wine', 178, 3), ('iris', 150, 3)]
)
def test_tables_that_are_always_there(name, count, classes):
    data = open_dataset({'name': name, 'reader': '', 'train': '', 'test_fraction': 0.1})
    splits = [list(data.source(split)) for split in ('train', 'validation', 'test')]
    assert sum(map(len, splits)) == count and min(map(len, splits)) > 0.1 * count
    assert len({row['label'] for row in splits[0]}) == classes
    columns = [set(map(str, (tuple(row[c] for c in row if c != 'label') for row in rows))) for rows in splits]
    assert not (columns[0] & columns[1] or columns[0] & columns[2] or columns[1] & columns[2])
    with pytest.raises(UserError, match="did you mean 'iris'"):
        open_dataset({'name': 'irris'})
    with pytest.raises(UserError, match='has no such setting'):
        open_dataset({'name': name, 'train': 'mine.csv'})


def test_copies_that_differ_in_an_ignored_column_stay_together(tmp_path):
    rows = [f'{number},{copy},a' for number in range(60) for copy in ('x', 'y')]
    (tmp_path / 'a.csv').write_text('size,id,label\n' + '\n'.join(rows))
    settings = {'reader': 'csv', 'train': str(tmp_path / 'a.csv'), 'test_fraction': 0.4}
    table = open_dataset(settings, ('label',), ('id',))
    parts = [{row['size'] for row in table.source(split)} for split in ('train', 'test')]
    assert not parts[0] & parts[1]


@pytest.mark.data
def test_adult_is_read_as_published(data, monkeypatch):
    """Counts of rows, columns and missing values are those of the UCI description."""
    monkeypatch.setenv('TESSERA_DATA', str(data))
    table = open_dataset(api.read('configs/adult.py').data, ('label',), ('weight',))
    rows = {split: table.source(split) for split in ('train', 'validation', 'test')}
    assert len(rows['train']) + len(rows['validation']) == 32561 and len(rows['test']) == 16281
    train = [row for split in ('train', 'validation') for row in rows[split]]
    assert sum('?' in row.values() for row in train) == 2399
    assert sum(row['label'] == '>50K' for row in train) == 7841
