"""Which files are read: by content, once each, from folders named for splits; and what is left out is reported."""

import io
import os
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest
import soundfile
from PIL import Image
from reader_files import WHOLE, make_archive, png, wav

from research.data.dataset import open_dataset
from research.data.readers.archives import find, find_all, read_bytes
from research.data.readers.folders import read_sound
from research.data.readers.rows import Broken
from research.errors import UserError


def put(folder: pathlib.Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


def encoded(form: str, value: int = 50) -> bytes:
    buffer = io.BytesIO()
    Image.new('L', (4, 3), value).save(buffer, form)
    return buffer.getvalue()


def texts(notes) -> str:
    return '\n'.join(f'{note.level}: {note.text}' for note in notes)


@pytest.mark.parametrize('how', ['folder', 'tar', 'zip'])
def test_pictures_are_known_by_their_content_and_others_are_counted(tmp_path, how):
    files = {
        'cat/1.jfif': encoded('JPEG'), 'cat/2.jpe': encoded('JPEG'), 'cat/3': encoded('PNG'),
        'cat/4.img': encoded('TIFF'),
        'dog/5.PGM': encoded('PPM'), 'dog/6.tmp': encoded('BMP'),
        'dog/7.webp': encoded('WEBP'), 'dog/8.x': encoded('GIF'),
        'dog/notes.txt': b'BM is not a picture', 'dog/9.heic': b'\0\0\0\x18ftypheic', 'dog/Thumbs.db': b'x',
        'dog/.10.png': png(1),
    }  # fmt: skip
    path = put(tmp_path, files) if how == 'folder' else make_archive(tmp_path, how, files)
    rows = open_dataset({'reader': 'image_folder', 'train': path, **WHOLE}, ('image', 'label')).source('train')
    assert [row['label'] for row in rows] == ['cat'] * 4 + ['dog'] * 4
    assert all(abs(int(row['image'].ravel()[0]) - 50) < 3 for row in rows)
    said = texts(rows.notes)
    assert 'warning: 2 files in a format that is not read left out: ' in said and 'dog/9.heic' in said
    assert 'note: 2 hidden or system files left out' in said and 'dog/Thumbs.db' in said


def test_sounds_are_known_by_their_content(tmp_path):
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(100), 8000, format='FLAC')
    path = put(tmp_path, {'a/1': wav(np.zeros(50)), 'b/2.sound': sound.getvalue(), 'b/3.png': png(1)})
    rows = open_dataset({'reader': 'audio_folder', 'train': path, **WHOLE}, ('audio', 'label')).source('train')
    assert [len(row['audio']) for row in rows] == [50, 100] and '1 files in a format' in texts(rows.notes)


@pytest.mark.parametrize('wrapper', ['', 'photos/', 'a/b/'])
@pytest.mark.parametrize('names', [('train', 'test'), ('Training', 'val', 'testing')])
@pytest.mark.parametrize('how', ['folder', 'tar'])
def test_folders_named_for_splits_are_splits(tmp_path, how, names, wrapper):
    files = {
        f'{wrapper}{split}/{label}/{number}.png': png(number)
        for split in names for label in ('cat', 'dog') for number in range(12)
    }  # fmt: skip
    path = put(tmp_path, files) if how == 'folder' else make_archive(tmp_path, how, files)
    data = open_dataset({'reader': 'image_folder', 'train': path}, ('image', 'label'))
    assert data.classes == ('cat', 'dog')
    counts = [len(data.source(split)) for split in ('train', 'validation', 'test')]
    assert counts[2] == 24
    assert counts[:2] == [24, 24] if len(names) == 3 else sum(counts[:2]) == 24
    assert 'named after splits are read as those splits' in texts(data.source('test').notes)
    assert all(f'/{names[-1]}/' in data.source('test').where(number) for number in range(24))


def test_classes_that_only_sound_like_splits_stay_classes(tmp_path):
    files = {f'{label}/{number}.png': png(number) for label in ('train', 'plane') for number in range(3)}
    data = open_dataset({'reader': 'image_folder', 'train': put(tmp_path, files), **WHOLE}, ('image', 'label'))
    assert data.classes == ('plane', 'train')


def test_a_stray_file_in_the_one_top_folder_makes_no_class(tmp_path):
    files = {f'photos/{label}/{number}.png': png(number) for label in ('cat', 'dog') for number in range(10)}
    path = make_archive(tmp_path, 'tar.gz', files | {'photos/preview.png': png(1)})
    settings = {'reader': 'image_folder', 'train': path, 'on_error': 'skip', **WHOLE}
    rows = open_dataset(settings, ('image', 'label')).source('train')
    assert {row['label'] for row in rows} == {'cat', 'dog'} and len(rows) == 20
    assert 'photos/preview.png: no label' in rows.skipped[0]


def test_links_do_not_multiply_files(tmp_path):
    files = {f'photos/{label}/{number}.png': png(number) for label in ('cat', 'dog') for number in range(5)}
    put(tmp_path, files | {'other.png': png(9)})
    photos = tmp_path / 'photos'
    (photos / 'cat' / 'up').symlink_to(photos)  # round in a circle
    (photos / 'dog' / 'out').symlink_to(tmp_path)  # to the folder that holds all
    (photos / 'zoo').symlink_to(photos / 'cat')  # a folder that is read already
    (photos / 'dog' / 'self').symlink_to(photos / 'dog' / 'self')
    (photos / 'dog' / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    outside = tmp_path / 'more'
    put(outside, {'x.png': png(7)})
    (photos / 'fox').symlink_to(outside)  # a class that lies elsewhere is read
    os.mkfifo(photos / 'dog' / 'pipe.png')
    rows = open_dataset({'reader': 'image_folder', 'train': str(photos), **WHOLE}, ('image', 'label')).source('train')
    labels = [row['label'] for row in rows]
    assert sorted(labels) == ['cat'] * 5 + ['dog'] * 5 + ['fox']
    said = texts(rows.notes)
    assert '5 links that lead nowhere' in said and '1 pipes, sockets or devices left out: dog/pipe.png' in said


@pytest.mark.skipif(os.geteuid() != 0 and not hasattr(os, 'mkfifo'), reason='no named pipes here')
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe.jsonl')
    with pytest.raises(UserError, match='pipe.jsonl is not a regular file'):
        open_dataset({'reader': 'jsonl', 'train': str(tmp_path / 'pipe.jsonl'), **WHOLE}).source('train')


def test_links_in_a_tar_stand_for_what_they_lead_to(tmp_path):
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w') as archive:
        info = tarfile.TarInfo('cat/1.png')
        info.size = len(png(3))
        archive.addfile(info, io.BytesIO(png(3)))
        for name, kind, target in (
            ('dog/hard.png', tarfile.LNKTYPE, 'cat/1.png'), ('dog/soft.png', tarfile.SYMTYPE, '../cat/1.png'),
            ('dog/chain.png', tarfile.SYMTYPE, 'soft.png'), ('dog/gone.png', tarfile.SYMTYPE, '/etc/passwd'),
            ('dog/round.png', tarfile.SYMTYPE, 'round.png'), ('dog/pipe', tarfile.FIFOTYPE, ''),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    rows = open_dataset({'reader': 'image_folder', 'train': str(path), **WHOLE}, ('image', 'label')).source('train')
    names = [rows.where(number).rpartition('/')[2] for number in range(4)]
    assert names == ['1.png', 'chain.png', 'hard.png', 'soft.png']
    assert all(row['image'].ravel()[0] == 3 for row in rows)
    assert '2 links that lead nowhere' in texts(rows.notes) and '1 pipes' in texts(rows.notes)


def test_sparse_members_of_a_tar_are_filled_up(tmp_path):
    """Written as GNU tar --sparse writes format 1.0: a map of pieces before them, the rest is zeros."""
    data = b'\0' * 2000 + b'{"text": "one"}\n' + b'\0' * 3000 + b'end'
    pieces = [(2000, 16), (5016, 3)]
    described = '\n'.join(map(str, [len(pieces), *(number for piece in pieces for number in piece)])) + '\n'
    stored = described.encode().ljust(512, b'\0') + b''.join(data[start : start + size] for start, size in pieces)
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo('GNUSparseFile.1/a.bin')
        info.size = len(stored)
        info.pax_headers = {
            'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': 'a.bin',
            'GNU.sparse.realsize': str(len(data)),
        }  # fmt: skip
        archive.addfile(info, io.BytesIO(stored))
        info = tarfile.TarInfo('b.bin')
        info.size = 5
        archive.addfile(info, io.BytesIO(b'plain'))
    assert [read_bytes(entry) for entry in find(str(path), 'train')] == [data, b'plain']


def test_encrypted_and_odd_zips(tmp_path):
    path = tmp_path / 'a.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.txt', 'secret')
    raw = bytearray(path.read_bytes())
    for mark, offset in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):
        raw[raw.index(mark) + offset] |= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match='a.zip: a.txt is encrypted; unpack the zip'):
        find(str(path), 'config.data.train')
    raw = bytearray(make_zip(tmp_path / 'b.zip'))
    for mark, offset in ((b'PK\x03\x04', 8), (b'PK\x01\x02', 10)):
        raw[raw.index(mark) + offset] = 99  # a compression that nobody knows
    (tmp_path / 'b.zip').write_bytes(raw)
    with pytest.raises(Broken, match='b.zip/a.txt: cannot be read'):
        list(open_dataset({'reader': 'text_folder', 'train': str(tmp_path / 'b.zip'), **WHOLE}).source('train'))


def make_zip(path: pathlib.Path) -> bytes:
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.txt', 'text')
    return path.read_bytes()


def test_folders_in_a_zip_may_be_written_with_backslashes(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        for label in ('cat', 'dog'):
            info = zipfile.ZipInfo('x')
            info.filename = f'photos\\{label}\\1.png'
            archive.writestr(info, png(1))
    rows = open_dataset({'reader': 'image_folder', 'train': str(tmp_path / 'a.zip'), **WHOLE}).source('train')
    assert [row['label'] for row in rows] == ['cat', 'dog']


def flac(claimed: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(8000), 8000, format='FLAC')
    data = bytearray(buffer.getvalue())
    field = int.from_bytes(data[18:26], 'big')  # the last 36 bits are the number of samples
    data[18:26] = (field >> 36 << 36 | claimed).to_bytes(8, 'big')
    return bytes(data)


def test_a_head_does_not_decide_how_much_memory_a_sound_takes():
    assert len(read_sound(flac(8000), 'a')['audio']) == 8000
    for claimed in (10**10, 2**30, 9000):
        with pytest.raises(Broken, match='a: .*(cut short|cannot be read as sound)'):
            read_sound(flac(claimed), 'a')


def test_a_class_folder_whose_name_is_not_utf8_is_a_broken_record(tmp_path):
    put(tmp_path, {'cat/1.png': png(1), 'dog/2.png': png(2)})
    folder = os.fsencode(tmp_path) + b'/caf\xe9'
    os.mkdir(folder)
    with open(folder + b'/3.png', 'wb') as file:
        file.write(png(3))
    settings = {'reader': 'image_folder', 'train': str(tmp_path), **WHOLE}
    with pytest.raises(Broken, match=r"the name 'caf.xe9' is not UTF-8: rename it"):
        list(open_dataset(settings, ('image', 'label')).source('train'))
    rows = open_dataset({**settings, 'on_error': 'skip'}, ('image', 'label')).source('train')
    assert [row['label'] for row in rows] == ['cat', 'dog']
    rows.skipped[0].encode()  # can be printed anywhere


def test_class_folders_are_one_class_however_their_letters_are_composed(tmp_path):
    path = put(tmp_path, {'caf\u00e9/1.png': png(1), 'cafe\u0301/2.png': png(2), 'tee/3.png': png(3)})
    data = open_dataset({'reader': 'image_folder', 'train': path, **WHOLE}, ('image', 'label'))
    assert data.classes == ('café', 'tee')


def test_a_path_with_a_null_character(tmp_path):
    with pytest.raises(UserError, match='null character'):
        find_all('a\0b', 'config.data.train')
    (tmp_path / 'a.jsonl').write_text('{"image": "x\\u0000.png", "label": "a"}\n')
    with pytest.raises(Broken, match="a.jsonl, line 1: the path in 'image' contains a null character"):
        list(open_dataset({'reader': 'jsonl', 'train': str(tmp_path / 'a.jsonl'), **WHOLE}, ('image',)).source('train'))
