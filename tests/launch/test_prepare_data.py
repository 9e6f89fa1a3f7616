"""A TFDS set of one's own is prepared and read without TensorFlow; pictures say that they need it."""

import importlib.util
import io
import sys

import numpy as np
import pytest
from etils import epath
from PIL import Image

from launch import prepare_data
from research.data.dataset import open_dataset
from research.data.readers.tfds import open_builder, read_tfds
from research.errors import UserError

BUILDER = """
import tensorflow_datasets as tfds


class SomeQuestions(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.2.0')

    def _info(self):
        features = {'text': tfds.features.Text(), 'label': tfds.features.ClassLabel(names=['who', 'where'])}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples(30), 'test': self._generate_examples(6)}

    def _generate_examples(self, count):
        for number in range(count):
            yield number, {'text': f'où {number}?', 'label': number % 2}
"""


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """The folder with the prepared set, and what was printed."""
    folder = tmp_path_factory.mktemp('tfds')
    (folder / 'some_questions.py').write_text(BUILDER)
    prepare_data.prepare('some_questions', str(folder / 'data'), str(folder / 'some_questions.py'))
    yield folder / 'data'
    sys.modules.pop('some_questions', None)


def test_a_prepared_set_is_read_at_random(prepared):
    settings = {'reader': 'tfds', 'name': 'some_questions', 'folder': str(prepared)}
    data = open_dataset(settings, ('text', 'label'))
    sizes = {split: len(data.source(split)) for split in ('train', 'validation', 'test')}
    assert sizes['test'] == 6 and sizes['train'] + sizes['validation'] == 30 and sizes['validation']
    texts = {row['text'] for split in ('train', 'validation') for row in data.source(split)}
    assert texts == {f'où {number}?' for number in range(30)}
    row = data.source('test')[3]
    assert row['label'] == ['who', 'where'][int(row['text'].split()[1][:-1]) % 2]
    assert (
        data.classes == ('where', 'who')
        and data.source('test').where(3) == 'some_questions/1.2.0, test, row 4'
    )
    rows = data.source('train')
    assert [rows.label(number) for number in range(4)] == [rows[number]['label'] for number in range(4)]
    renamed = open_dataset({**settings, 'fields': 'text:label'}).source('test')  # another column is the label now
    assert renamed.label is None and renamed[0]['label'].startswith('où')
    given = open_dataset({**settings, 'train': 'train[10:]', 'validation': 'train[:10]'})
    assert [len(given.source(split)) for split in ('train', 'validation')] == [20, 10]
    by_folder = open_dataset({'reader': 'tfds', 'name': str(prepared / 'some_questions' / '1.2.0')})
    assert len(by_folder.source('test')) == 6
    assert 'tensorflow' not in sys.modules


def test_preparing_again_says_what_is_there(prepared, capsys):
    prepare_data.prepare('some_questions', str(prepared), '')
    text = capsys.readouterr().out
    assert 'already there as array_record' in text and 'train' in text and '30 rows' in text
    assert f'--config.data.name=some_questions --config.data.folder={prepared}' in text


def test_what_is_not_there_or_not_prepared_is_said_with_the_command(prepared, tmp_path):
    with pytest.raises(UserError, match="has such a set.*did you mean 'mnist'"):
        prepare_data.prepare('mnits', str(tmp_path), '')
    with pytest.raises(UserError, match='there is no such file'):
        prepare_data.prepare('x', str(tmp_path), 'nowhere.py')
    with pytest.raises(
        UserError, match="'mnist' is not prepared yet: python -m launch.prepare_data --name=mnist --folder="
    ):
        open_builder('mnist', str(tmp_path))
    with pytest.raises(UserError, match="train='trian': Unknown split.*splits: train, test"):
        read_tfds(open_builder('some_questions', str(prepared)), 'trian', 'config.data.train')


@pytest.mark.skipif(
    importlib.util.find_spec('tensorflow') is not None, reason='TensorFlow is here, and would be used'
)
def test_pictures_need_tensorflow_and_the_program_says_so(tmp_path):
    with pytest.raises(
        UserError, match=r"mnist: image must be encoded by TensorFlow.*pip install -e '.\[prepare\]'"
    ):
        prepare_data.prepare('mnist', str(tmp_path), '')
    assert not (tmp_path / 'mnist').exists()


def test_labels_are_read_without_the_pictures(tmp_path, monkeypatch):
    """Pictures that are files already are written without TensorFlow; a label asks for none of them."""
    import tensorflow_datasets as tfds

    class Photos(tfds.core.GeneratorBasedBuilder):
        VERSION, pkg_dir_path = tfds.core.Version('1.0.0'), epath.Path(tmp_path)

        def _info(self):
            features = {'image': tfds.features.Image(), 'label': tfds.features.ClassLabel(names=['cat', 'dog'])}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {'train': self._generate_examples()}

        def _generate_examples(self):
            for number in range(4):
                file = io.BytesIO()
                Image.fromarray(np.full((2, 3, 3), number, np.uint8)).save(file, 'PNG')
                file.seek(0)
                yield number, {'image': file, 'label': number % 2}

    builder = Photos(data_dir=tmp_path, file_format='array_record')
    builder.download_and_prepare()
    rows = read_tfds(builder, 'train', 'config.data.train')
    names = [['cat', 'dog'][int(row['image'][0, 0, 0]) % 2] for row in rows]
    monkeypatch.setattr(tfds.features.Image, 'decode_example_np', None)
    assert [rows.label(number) for number in range(4)] == names
    with pytest.raises(TypeError):
        rows[0]


def test_any_set_of_the_catalogue_by_name():
    """TFDS's own stand-in: random rows with the features of the real set."""
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=5):
        rows = read_tfds(tfds.builder('mnist', file_format='array_record'), 'train', 'config.data.train')
        row = rows[4]
    assert len(rows) == 5 and row['image'].shape == (28, 28, 1) and row['image'].dtype == np.uint8
    assert row['label'] in map(str, range(10))
