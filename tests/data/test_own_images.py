"""A user's pictures: shape, classes as stored, and the messages where they cannot be."""

import json

import numpy as np
import pytest
from etils import epath
from PIL import Image
from reader_files import idx_bytes

from research import api
from research.data.dataset import numbered, open_dataset
from research.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for number in range(40):
        path = tmp_path / 'photos' / 'ab'[number % 2] / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 255, (7, 9), np.uint8)
        Image.fromarray(values).save(path)
    return tmp_path / 'photos'


def settings(folder, **more):
    return {
        'reader': 'image_folder',
        'train': str(folder),
        'validation_fraction': 0.3,
        'test_fraction': 0.2,
        **more,
    }


def image_set(settings, classes=()):
    return numbered(open_dataset(settings, ('image', 'label')), classes)


def test_shape_of_the_first_picture_or_as_given(folder):
    data = image_set(settings(folder))
    assert data.shape == (7, 9, 1) and data.classes == ('a', 'b')
    assert sum(len(data.source(split)) for split in data.splits) == 40
    assert {row['label'] for row in data.source('train')} == {0, 1}
    assert image_set(settings(folder, shape=('16', '16', '3'))).shape == (16, 16, 3)  # as a flag gives it
    with pytest.raises(UserError, match='write height,width,channels'):
        image_set(settings(folder, shape=(16, 16)))
    Image.new('L', (300, 20)).save(folder / 'a' / '0.png')
    Image.new('L', (300, 20)).save(folder / 'a' / '2.png')
    with pytest.raises(
        UserError, match='20x300 pixels: set the size of the model input, such as --config.data.shape=64,64,1'
    ):
        [image_set(settings(folder, test_fraction=f)).shape for f in (0.0, 0.2, 0.5)]


def test_pictures_may_be_lists_of_numbers_in_a_table(tmp_path):
    picture, file = [[0, 10, 20], [30, 40, 50]], tmp_path / 'rows.jsonl'
    file.write_text(''.join(json.dumps({'image': picture, 'label': label}) + '\n' for label in 'abab'))
    data = image_set({'reader': 'jsonl', 'train': str(file), 'validation_fraction': 0.0, 'test_fraction': 0.0})
    assert data.shape == (2, 3, 1) and np.asarray(data.source('train')[0]['image']).tolist() == picture
    file.write_text(json.dumps({'image': [[1], [1, 2]], 'label': 'a'}) + '\n')
    with pytest.raises(UserError, match="rows.jsonl, line 1: the lists of 'image' differ in length"):
        list(image_set({'reader': 'jsonl', 'train': str(file), 'test_fraction': 0.0}).source('train'))


def test_stored_classes_are_taken_and_nothing_is_read():
    data = image_set({'reader': 'image_folder', 'train': 'gone'}, ('x', 'y'))
    assert data.classes == ('x', 'y')


def test_a_reader_replaces_the_named_set_and_its_settings(folder):
    data = image_set({**settings(folder), 'name': 'python_source', 'megabytes': 1.0, 'folder': ''})
    assert data.classes == ('a', 'b') and data.about.startswith('image_folder')
    with pytest.raises(UserError, match="config.data.columns='a': config.data.reader='image_folder' does not use it"):
        image_set({**settings(folder), 'name': 'digits', 'columns': 'a'})
    with pytest.raises(UserError, match='config.data.shape is the shape of images'):
        open_dataset(settings(folder, shape=(8, 8, 1)), ('text',))
    assert len(image_set(settings(folder, examples=5)).source('train')) == 5
    with pytest.raises(UserError, match='examples must be 0'):
        image_set(settings(folder, examples=50)).source('train')


def test_a_built_in_set_refuses_what_it_cannot_honour():
    with pytest.raises(UserError, match="config.data.train='photos': the data set 'digits' has no such setting"):
        image_set({'name': 'digits', 'reader': '', 'train': 'photos'})
    with pytest.raises(UserError, match='config.data.test_fraction=0.5: '):
        image_set({'name': 'digits', 'reader': '', 'test_fraction': 0.5})
    with pytest.raises(UserError, match="name a data set, such as 'digits', or read your own"):
        image_set({'name': '', 'reader': ''})
    unused = {'reader': '', 'train': '', 'shape': (), 'test_fraction': 0.1}
    assert image_set({'name': 'digits', **unused}).shape == (8, 8, 1)


def test_a_run_on_a_users_pictures_prepares_encodes_and_answers_without_them(folder, tmp_path):
    config = api.read(
        'configs/own_images.py:tiny',
        {'data.name': '', 'data.reader': 'image_folder', 'data.train': str(folder), 'data.shape': '8,8,1'},
    )
    prepared = epath.Path(tmp_path / 'prepared')
    api.prepare(config, prepared)
    task = api.build(config, prepared)
    row = task.source('train')[0]
    assert task.encode(row)['image'].shape == (8, 8, 1) and task.encode(row)['label'] == row['label']
    folder.rename(tmp_path / 'moved')
    task = api.build(config, prepared)
    assert task.encode({'image': np.zeros((5, 5), np.uint8)})['image'].shape == (8, 8, 1)
    with pytest.raises(UserError, match='there is no such file'):
        task.source('train')


def test_a_config_of_a_built_in_set_trains_on_a_users_pictures_by_flags(folder, tmp_path):
    flags = {'data.reader': 'image_folder', 'data.train': str(folder), 'data.shape': '8,8,1'}
    config = api.read('configs/digits_gan.py:tiny', flags)
    api.prepare(config, epath.Path(tmp_path / 'prepared'))
    task = api.build(config, epath.Path(tmp_path / 'prepared'))
    labels = [row['label'] for row in task.source('train')]
    assert set(labels) == {0, 1} and labels != sorted(labels)  # files are sorted by class, rows are shuffled
    assert task.encode(task.source('train')[0])['image'].shape == (8, 8, 1)


def test_idx_files_are_pictures_with_classes(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / 'x-images-idx3-ubyte').write_bytes(idx_bytes(rng.integers(0, 255, (30, 4, 5)), 8))
    (tmp_path / 'x-labels-idx1-ubyte').write_bytes(idx_bytes(np.arange(30) % 3, 8))
    data = image_set({'reader': 'idx', 'train': str(tmp_path / 'x-images-idx3-ubyte'), 'shape': ()})
    assert data.shape == (4, 5, 1) and data.classes == ('0', '1', '2')


def test_one_class_is_refused(folder, tmp_path):
    config = api.read(
        'configs/own_images.py', {'data.train': str(folder / 'a' / '*.png'), 'data.label_pattern': '.'}
    )
    config = api.read('configs/own_images.py', {'data.train': str(folder), 'data.label_pattern': '(png)'})
    with pytest.raises(UserError, match=r'single class \(png\)'):
        api.prepare(config, epath.Path(tmp_path / 'prepared'))
