"""One way to open every data set: each built-in one, a user's files, and modules outside the package."""

import gzip
import json
import pathlib
import sys
import textwrap
import types

import pytest
from etils import epath

from research import api
from research.core.config import stored_values, to_json
from research.data import dataset
from research.data.dataset import DataSet, default_settings, numbered, open_dataset, set_module, set_names
from research.data.fetch import folder_of
from research.data.readers.settings import DataSettings
from research.errors import UserError, nearest

ROOT = pathlib.Path(__file__).parents[2]
KNOWN = {
    'adult', 'arabidopsis', 'breast_cancer', 'chinese', 'digits', 'esc10', 'fashion_mnist', 'free_spoken_digits',
    'iris', 'motifs', 'multi30k', 'promoters', 'python_source', 'splice', 'sst2', 'synthetic', 'tiny_shakespeare',
    'tones', 'trec', 'wine',
}  # fmt: skip
SMALL = {'python_source': {'megabytes': 0.05}, 'synthetic': {'kilobytes': 1}, 'tones': {'examples': 24}}


def test_sets_are_found_by_folder():
    assert KNOWN <= set(set_names())


@pytest.mark.parametrize('name', set_names())
def test_every_set_opens_with_its_defaults_or_says_which_files_are_missing(name, tmp_path, monkeypatch):
    monkeypatch.setenv('TESSERA_DATA', str(tmp_path / 'nowhere'))
    module = set_module(name)
    assert 'Source:' in module.__doc__ and 'Licence:' in module.__doc__ and 'Splits:' in module.__doc__
    data = open_dataset({'name': name, **default_settings(name), **SMALL.get(name, {})})
    assert data.about and data.fields and set(data.splits) <= {'train', 'validation', 'test'}
    if hasattr(module, 'SOURCE'):
        with pytest.raises(UserError, match=f'{module.SOURCE.name} is not on this machine(?s:.*)set TESSERA_DATA'):
            data.source(data.splits[0])
        with pytest.raises(UserError, match='config.data.folder=.*there is no such folder'):
            open_dataset({'name': name, 'folder': str(tmp_path / 'gone')}).source(data.splits[0])
        return
    for split in data.splits:
        rows = data.source(split)
        assert len(rows) and set(data.fields) <= set(rows[0]) and rows.where(0)
    if 'label' in data.fields:
        assert rows[0]['label'] in data.classes and len(data.classes) > 1
    if 'image' in data.fields:
        assert data.source(data.splits[0])[0]['image'].shape == data.shape


@pytest.mark.data
@pytest.mark.parametrize('name', [name for name in set_names() if hasattr(set_module(name), 'SOURCE')])
def test_every_public_set_has_the_fields_and_classes_it_promises(name, data, monkeypatch):
    monkeypatch.setenv('TESSERA_DATA', str(data))
    opened = open_dataset({'name': name})
    for split in opened.splits:
        rows = opened.source(split)
        assert len(rows) and set(opened.fields) <= set(rows[len(rows) - 1])
    if 'label' in opened.fields:
        test = opened.source('test')
        assert {test[number]['label'] for number in range(min(len(test), 50))} <= set(opened.classes)


@pytest.mark.parametrize('name', set_names())
def test_unknown_settings_and_splits_are_refused_with_the_nearest(name):
    with pytest.raises(UserError, match=r'config.data.foldre: there is no such setting; (did you mean|choose one of)'):
        open_dataset({'name': name, 'foldre': 'x'})
    with pytest.raises(UserError, match="has no 'tain' split; (did you mean 'train'|choose one of: test$)"):
        open_dataset({'name': name}).source('tain')


def test_reader_settings_are_dropped_at_their_defaults_and_refused_otherwise():
    leftover = {'reader': '', 'train': '', 'fields': '', 'columns': '', 'validation_fraction': 0.1, 'on_error': 'stop'}
    assert open_dataset({'name': 'digits', **leftover}).classes[0] == '0'
    stored = {'missing': list(DataSettings('csv').missing), 'shape': []}  # JSON has lists for tuples
    assert open_dataset({'name': 'digits', **leftover, **stored}).classes[0] == '0'
    wrong = {'train': 'x', 'folder': 'x', 'validation_fraction': 0.2, 'examples': 5, 'shape': (8, 8, 1)}
    for key, value in wrong.items():
        with pytest.raises(UserError, match=f"config.data.{key}=.*'digits' has no such setting .it has: none"):
            open_dataset({'name': 'digits', **leftover, key: value})


@pytest.mark.parametrize(('settings', 'fields', 'message'), [
    ({}, (), 'config.data.name is missing'),
    ({'name': 'digit'}, (), "'digit' is unknown; did you mean 'digits'"),
    ({'name': 'digits'}, ('text',), "its rows have no 'text', which this task reads .they have image, label."),
    ({'name': 'no.such_module'}, (), 'its module cannot be imported'),
    ({'name': 'json.decoder'}, (), 'has no function open'),
    ({'name': 'multi30k', 'source': 'de'}, (), "both are 'de'"),
    ({'name': 'multi30k', 'source': 'es'}, (), "expected 'en' or 'de' or 'fr'"),
    ({'name': 'sst2', 'validation_share': 1.0}, (), 'validation_share must be'),
])  # fmt: skip
def test_what_cannot_be_opened_is_explained(settings, fields, message):
    with pytest.raises(UserError, match=message):
        open_dataset(settings, fields)


@pytest.mark.parametrize('config', sorted(map(str, ROOT.glob('configs/**/[!_]*.py'))))
def test_every_config_reads_a_users_files_by_flags(config):
    data = open_dataset(api.read(config, {'data.reader': 'jsonl', 'data.train': 'mine.jsonl'}).data)
    assert data.about == 'jsonl: mine.jsonl'
    with pytest.raises(UserError, match='mine.jsonl.*there is no such file'):
        data.source('train')


def outside(rows):
    """Returns a module like one of a user, whose `open` has one setting."""
    module = types.ModuleType('my_lab_animals')

    def open(copies: int = 1) -> DataSet:
        return DataSet(lambda split: rows * copies, 'animals', splits=('train', 'test'))

    module.open = open
    return module


def test_a_set_outside_the_package_is_a_module_or_its_dotted_path(tmp_path, monkeypatch):
    rows = [{'text': 'a cat', 'label': 'cat'}, {'text': 'a dog', 'label': 'dog'}]
    data = open_dataset({'name': outside(rows), 'copies': 2}, ('text', 'label'))
    assert [row['label'] for row in data.source('train')] == ['cat', 'dog'] * 2 and data.classes == ('cat', 'dog')
    assert data.source('test').where(1) == 'my_lab_animals, test, row 2'
    assert [row['label'] for row in numbered(data).source('train')] == [0, 1, 0, 1]
    with pytest.raises(UserError, match="config.data.copeis: there is no such setting; did you mean 'copies'"):
        open_dataset({'name': outside(rows), 'copeis': 2})
    with pytest.raises(UserError, match="no 'image', which this task reads .there: text, label."):
        open_dataset({'name': outside(rows)}, ('image',)).source('train')
    with pytest.raises(UserError, match='there are no rows in its train split'):
        open_dataset({'name': outside([])}).source('train')
    (tmp_path / 'my_sets').mkdir()
    (tmp_path / 'my_sets' / 'birds.py').write_text(
        'from research.data.dataset import DataSet\n'
        "def open(count: int = 3):\n"
        "    return DataSet(lambda split: [{'text': str(n)} for n in range(count)], 'birds')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    birds = open_dataset({'name': 'my_sets.birds', 'count': 4}, ('text',))
    assert [row['text'] for row in birds.source('test')] == ['0', '1', '2', '3']
    assert default_settings('my_sets.birds') == {'count': 3}
    sys.modules.pop('my_sets.birds')


def test_the_example_of_the_documents_works_word_for_word(tmp_path, monkeypatch):
    page = (ROOT / 'docs' / 'data.md').read_text(encoding='utf-8')
    code = page[page.index('    # my_lab/parity.py') :].partition('    python -m launch')[0]
    assert code in (ROOT / 'docs' / 'zh' / 'data.md').read_text(encoding='utf-8')
    (tmp_path / 'my_lab').mkdir()
    (tmp_path / 'my_lab' / 'parity.py').write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(str(tmp_path))
    config = api.read('configs/sst2.py', {'data.name': 'my_lab.parity'})
    folder = epath.Path(tmp_path / 'prepared')
    api.prepare(config, folder)
    task = api.build(config, folder)
    assert len(task.source('train')) == 1000 and task.encode({'text': 'number 7', 'label': 'odd'})['label'] == 1
    sys.modules.pop('my_lab.parity')


def test_a_run_of_version_0_1_that_stored_fractions_beside_a_set_is_read(tmp_path):
    stored = {'data': {'name': 'splice', 'reader': '', 'test_fraction': 0.2}}
    (tmp_path / 'config.json').write_text(json.dumps(stored))
    data = stored_values(epath.Path(tmp_path / 'config.json'))['data']
    assert open_dataset(data, ('sequence', 'label')).about.startswith('UCI splice')


def test_classes_and_shapes_are_values_functions_or_those_of_the_training_rows():
    asked = []

    def source(split):
        asked.append(split)
        return dataset.in_memory([{'label': 'b'}, {'label': 'a'}], 'x')

    assert DataSet(source, 'x', class_names=('u', 'v'), image_shape=(2, 2, 1)).shape == (2, 2, 1)
    assert DataSet(source, 'x', class_names=lambda: ['u', 'v']).classes == ('u', 'v') and not asked
    derived = DataSet(source, 'x')
    assert derived.classes == derived.classes == ('a', 'b') and asked == ['train']
    assert numbered(derived, ('b', 'a')).source('test')[0]['label'] == 0
    with pytest.raises(UserError, match="class 'b' is not among the 1"):
        numbered(derived, ('a',)).source('train')[0]


def test_files_are_found_in_one_place(tmp_path, monkeypatch):
    source = set_module('sst2').SOURCE
    folder = tmp_path / 'root' / 'sst2'
    folder.mkdir(parents=True)
    monkeypatch.setenv('TESSERA_DATA', str(tmp_path / 'root'))
    with pytest.raises(UserError, match=f'put these files into {folder}:\n  train.tsv: https://'):
        open_dataset({'name': 'sst2'}).source('train')
    for name in ('train.tsv.gz', 'dev.tsv', 'test.tsv'):
        (folder / name).write_bytes(gzip.compress(b'a film\t1\n') if name.endswith('gz') else b'no film\t0\n')
    assert folder_of(source) == str(folder)
    rows = open_dataset({'name': 'sst2'})
    assert rows.source('train')[0]['text'] == 'a film' and rows.source('test')[0]['text'] == 'no film'
    monkeypatch.setenv('MINE', str(tmp_path))
    assert folder_of(source, '$MINE/root') == f'{tmp_path}/root'
    monkeypatch.delenv('TESSERA_DATA')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    with pytest.raises(UserError, match=f'put these files into {tmp_path}/cache/tessera/data/sst2'):
        folder_of(source)


def test_texts_of_any_set_are_documents_and_labels_are_names():
    chinese = open_dataset({'name': 'chinese'}, ('text',))
    assert nearest('chinse', set_names()) == "did you mean 'chinese'?" and isinstance(chinese.classes[0], str)


@pytest.mark.parametrize('config', ['digits', 'adult'])
def test_a_config_that_was_stored_and_read_again_opens_the_same_set(config):
    stored = json.loads(to_json(api.read(f'configs/{config}.py:tiny')))  # JSON makes lists of tuples
    assert open_dataset(api.read(stored).data, ('label',)).about == open_dataset(stored['data'], ('label',)).about
