"""Every reader reads its format, plain and packed."""

import io
import pickle

import numpy as np
import pytest
import soundfile
from reader_files import ROWS, WHOLE, idx_bytes, make_archive, pack, parquet_bytes, png, table_bytes, wav

from research.data.dataset import open_dataset
from research.data.readers.rows import class_names
from research.data.readers.settings import DataSettings
from research.data.readers.sources import with_classes
from research.errors import UserError, unpack


@pytest.mark.parametrize('how', ['plain', 'gz', 'tar', 'tar.gz', 'tar.xz', 'zip'])
@pytest.mark.parametrize('reader', ['jsonl', 'csv', 'tsv', 'parquet'])
def test_tables(tmp_path, reader, how):
    path = pack(tmp_path, how, f'train.{reader}', table_bytes(reader))
    data = open_dataset({'reader': reader, 'train': path, **WHOLE}, ('text', 'label'))
    rows = data.source('train')
    wanted = [{**row, 'text': row['text'].replace('\n', ' ')} for row in ROWS] if reader == 'tsv' else ROWS
    assert [rows[number] for number in range(len(rows))] == list(rows) == wanted
    assert data.classes == ('a', 'b') and rows[-1] == wanted[-1]
    assert rows.where(0).startswith(path) and rows.where(0).endswith(('line 1', 'line 2', 'row 1'))
    with pytest.raises(IndexError):
        rows[3]
    again = pickle.loads(pickle.dumps(rows))  # worker processes read the same rows
    assert list(again) == wanted


@pytest.mark.parametrize('how', ['plain', 'gz', 'tar', 'tar.gz', 'zip'])
def test_lines_and_parallel_files(tmp_path, how):
    german, english = (tmp_path / name for name in ('de', 'en'))
    german.mkdir()
    english.mkdir()
    de = pack(german, how, 'a.de', b'eins\r\n\r\ndrei')
    en = pack(english, how, 'a.en', b'\xef\xbb\xbfone\ntwo\nthree\n')
    assert list(open_dataset({'reader': 'lines', 'train': (de, en), **WHOLE}).source('train')) == [
        {'text': text} for text in ('eins', '', 'drei', 'one', 'two', 'three')
    ]
    pairs = open_dataset({'reader': 'lines', 'train': f'source={de},target={en}', **WHOLE}).source('train')
    assert pairs[2] == {'source': 'drei', 'target': 'three'} and len(pairs) == 3


def test_parallel_files_of_different_length(tmp_path):
    (tmp_path / 'a.de').write_text('eins\nzwei\n')
    (tmp_path / 'a.en').write_text('one\n')
    data = open_dataset({'reader': 'lines', 'train': f'source={tmp_path}/a.de,target={tmp_path}/a.en', **WHOLE})
    with pytest.raises(UserError, match='a.de has 2 and .*a.en has 1'):
        data.source('train')
    with pytest.raises(UserError, match='name the field of each path'):
        open_dataset({'reader': 'lines', 'train': f'source={tmp_path}/a.de,{tmp_path}/a.en'}).source('train')


@pytest.mark.parametrize('how', ['plain', 'gz', 'tar', 'zip'])
def test_idx(tmp_path, how):
    pictures, labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([7, 10], np.uint8)
    (tmp_path / 'x').mkdir()
    image = pack(tmp_path, how, 'train-images-idx3-ubyte', idx_bytes(pictures, 8))
    label = pack(tmp_path / 'x', how, 'train-labels-idx1-ubyte', idx_bytes(labels, 8))
    rows = open_dataset({'reader': 'idx', 'train': f'image={image},label={label}', **WHOLE}).source('train')
    np.testing.assert_array_equal(rows[1]['image'], pictures[1][..., None])
    assert rows[1]['label'] == 10 and rows[0]['image'].dtype == np.uint8
    assert class_names(rows) == ('7', '10')  # by value, not '10' before '7'


def test_idx_finds_its_labels_and_names_what_is_broken(tmp_path):
    whole = idx_bytes(np.zeros((3, 2, 2), np.float32), 0x0D)
    (tmp_path / 'a-images-idx3-ubyte').write_bytes(whole)
    (tmp_path / 'a-labels-idx1-ubyte').write_bytes(idx_bytes(np.zeros(2, np.uint8), 8))
    data = {'reader': 'idx', 'train': str(tmp_path / 'a-images-idx3-ubyte'), **WHOLE}
    with pytest.raises(UserError, match='a-images-idx3-ubyte has 3 and .*a-labels-idx1-ubyte has 2'):
        open_dataset(data).source('train')
    (tmp_path / 'b-images-idx3-ubyte').write_bytes(whole)
    with pytest.raises(UserError, match="train: 2 IDX files for '.*' .*a-images-idx3-ubyte, .* name it"):
        open_dataset({**data, 'train': str(tmp_path / '*-images-idx3-ubyte')}).source('train')
    (tmp_path / 'a-images-idx3-ubyte').write_bytes(whole[:-5])
    with pytest.raises(UserError, match=r'a-images-idx3-ubyte: broken IDX file: 59 bytes, .* requires 64'):
        open_dataset(data).source('train')
    (tmp_path / 'a-images-idx3-ubyte').write_bytes(b'PNG!')
    with pytest.raises(UserError, match='not an IDX file'):
        open_dataset(data).source('train')


FOLDER = {
    'cat/1.png': png(10),
    'cat/deep/2.png': png(20),
    'dog/3.PNG': png((1, 2, 3), 'RGB'),
    'dog/Thumbs.db': b'x',
}


@pytest.mark.parametrize('how', ['plain', 'tar', 'tar.gz', 'zip'])
@pytest.mark.parametrize('wrapper', ['', 'photos/'])
def test_image_folders(tmp_path, how, wrapper):
    files = {wrapper + name: data for name, data in FOLDER.items()} | {
        '.hidden/cat/9.png': b'',
        '__MACOSX/1.png': b'',
    }
    if how == 'plain':
        for name, data in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
        path = str(tmp_path)
    else:
        path = make_archive(tmp_path, how, files)
    data = open_dataset({'reader': 'image_folder', 'train': path, **WHOLE}, ('image', 'label'))
    rows = data.source('train')
    assert [row['label'] for row in rows] == ['cat', 'cat', 'dog'] and data.classes == ('cat', 'dog')
    assert rows[0]['image'].shape == (5, 6, 1) and rows[0]['image'][0, 0, 0] == 10
    assert rows[2]['image'].shape == (5, 6, 3) and rows.where(2).endswith('dog/3.PNG')
    numbered = with_classes(rows, data.classes)
    assert [row['label'] for row in numbered] == [0, 0, 1] and numbered.label(2) == 1
    with pytest.raises(UserError, match="dog/3.PNG: class 'dog' is not among the 2 .* did you mean 'dogs'"):
        with_classes(rows, ('cat', 'dogs'))[2]
    if wrapper:
        part = open_dataset({'reader': 'image_folder', 'train': f'{path}/photos/c*/*.png', **WHOLE}).source(
            'train'
        )
        assert {row['label'] for row in part} == {'cat'}


def test_unlabelled_and_half_labelled_folders(tmp_path):
    (tmp_path / 'a.png').write_bytes(png(1))
    data = {'reader': 'image_folder', 'train': str(tmp_path), **WHOLE}
    assert 'label' not in open_dataset(data).source('train')[0]
    with pytest.raises(UserError, match="a.png: no 'label'"):
        open_dataset(data, ('image', 'label')).source('train')[0]
    (tmp_path / 'cat').mkdir()
    (tmp_path / 'cat' / 'b.png').write_bytes(b'no picture')
    rows = open_dataset(data).source('train')
    with pytest.raises(UserError, match='a.png: no label: the file is not in a folder of a class'):
        rows[0]
    with pytest.raises(UserError, match='b.png: cannot be read as a picture'):
        rows[1]
    with pytest.raises(UserError, match='none ends in .wav'):
        open_dataset({**data, 'reader': 'audio_folder'}).source('train')


@pytest.mark.parametrize('how', ['plain', 'tar.xz', 'zip'])
def test_audio_folders(tmp_path, how):
    tone = np.sin(np.arange(80) / 5).astype(np.float32) / 2
    flac = io.BytesIO()
    soundfile.write(flac, np.stack([tone, -tone], 1), 16000, format='FLAC')
    files = {'yes/0_ann_1.wav': wav(tone), 'no/7_bob_2.flac': flac.getvalue(), 'no/8_broken.wav': b'RIFF????'}
    if how == 'plain':
        for name, data in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(data)
        path = str(tmp_path)
    else:
        path = make_archive(tmp_path, how, files)
    rows = open_dataset({'reader': 'audio_folder', 'train': path, **WHOLE}).source('train')
    by_name = {rows.where(number).rpartition('/')[2]: number for number in range(3)}
    row = rows[by_name['0_ann_1.wav']]
    np.testing.assert_allclose(row['audio'], tone, atol=1e-4)
    assert (row['label'], row['rate'], row['audio'].dtype) == ('yes', 8000, np.float32)
    assert rows[by_name['7_bob_2.flac']]['audio'].shape == (80, 2)
    with pytest.raises(UserError, match='8_broken.wav: cannot be read as sound'):
        rows[by_name['8_broken.wav']]
    labelled = {'reader': 'audio_folder', 'train': path, 'label_pattern': r'(\d)_', **WHOLE}
    assert class_names(open_dataset(labelled).source('train')) == ('0', '7', '8')


def test_a_table_may_name_or_hold_pictures(tmp_path):
    (tmp_path / 'p.png').write_bytes(png(30))
    (tmp_path / 'a.csv').write_text('file,kind\np.png,x\ngone.png,y\n')
    data = {'reader': 'csv', 'train': str(tmp_path / 'a.csv'), 'fields': 'file:image,kind:label', **WHOLE}
    rows = open_dataset(data, ('image', 'label')).source('train')
    assert rows[0]['image'].shape == (5, 6, 1) and rows[0]['label'] == 'x'
    with pytest.raises(UserError, match='a.csv, line 3: .*gone.png: cannot be read'):
        rows[1]
    held = [{'image': {'bytes': png(40), 'path': None}, 'label': 3}, {'image': None, 'label': 4}]
    (tmp_path / 'a.parquet').write_bytes(parquet_bytes(held))
    rows = open_dataset({'reader': 'parquet', 'train': str(tmp_path / 'a.parquet'), **WHOLE}, ('image',)).source(
        'train'
    )
    assert rows[0]['image'][0, 0, 0] == 40
    with pytest.raises(UserError, match="a.parquet, row 2: no 'image'"):
        rows[1]


def test_settings_have_the_types_of_flags():
    options = unpack(DataSettings, {'reader': 'csv', 'train': ['a', 'b'], 'validation_fraction': 0}, 'data')
    assert options.train == ('a', 'b')
