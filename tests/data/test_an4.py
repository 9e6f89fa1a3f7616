"""AN4: the repository's files and the prepared ones give the same rows."""

import io
import json
import lzma
import tarfile

import numpy as np
import pytest

from research.data.fetch import present_folder
from research.data.sets import an4
from research.errors import UserError

NAMES = ('an4_clstk/fash/an251-fash-b', 'an4_clstk/mblb/an252-mblb-b', 'an4test_clstk/fcaw/an406-fcaw-b')
TEXTS = ('YES', 'GO P I T', 'STOP')


def features_of(number):
    return np.random.default_rng(number).normal(size=(5 + number, an4.COEFFICIENTS)).astype(np.float16)


def write_archive(folder):
    files = {
        'an4/etc/an4_train.fileids': '\n'.join(NAMES[:2]) + '\n',
        'an4/etc/an4_test.fileids': NAMES[2] + '\n',
        'an4/etc/an4_train.transcription': f'<s> {TEXTS[0]} </s> (an251-fash-b)\n{TEXTS[1]} (an252-mblb-b)\n',
        'an4/etc/an4_test.transcription': f'{TEXTS[2]} (an406-fcaw-b)\n',
    }
    contents = {name: text.encode() for name, text in files.items()}
    for number, name in enumerate(NAMES):
        values = features_of(number).astype('>f4')
        contents[f'an4/feat/{name}.mfc'] = np.array([values.size], '>i4').tobytes() + values.tobytes()
    with tarfile.open(folder / 'an4.tar', 'w') as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write_prepared(folder):
    parts = [features_of(number) for number in range(3)]
    buffer = io.BytesIO()
    np.save(buffer, np.concatenate(parts))
    (folder / an4.STORED[0]).write_bytes(lzma.compress(buffer.getvalue()))
    offsets = np.cumsum([0, *map(len, parts)])
    rows = [
        {'id': name, 'offset': int(start), 'frames': len(part), 'text': text}
        for name, start, part, text in zip(NAMES, offsets, parts, TEXTS, strict=False)
    ]
    (folder / an4.STORED[1]).write_text('\n'.join(map(json.dumps, rows)))


@pytest.mark.parametrize('write', [write_archive, write_prepared])
def test_both_forms_give_the_same_rows(write, tmp_path):
    write(tmp_path)
    data = an4.open(folder=str(tmp_path))
    rows = {split: data.source(split) for split in data.splits}
    assert [len(rows[split]) for split in ('train', 'validation', 'test')] == [0, 2, 1]  # two speakers, both held out
    assert [row['text'] for row in [*rows['validation'], *rows['test']]] == list(TEXTS)
    assert rows['validation'].where(1) == NAMES[1] and rows['validation'][1]['speaker'] == 'mblb'
    for number, row in enumerate([*rows['validation'], *rows['test']]):
        np.testing.assert_array_equal(row['features'], features_of(number).astype(np.float32))


def test_damaged_files_are_named(tmp_path):
    write_prepared(tmp_path)
    index = tmp_path / an4.STORED[1]
    index.write_text(index.read_text().replace('"frames": 5', '"frames": 4'))
    with pytest.raises(UserError, match='another number'):
        an4.open(folder=str(tmp_path)).source('train')
    (tmp_path / an4.STORED[0]).write_bytes(lzma.compress(b'no array'))
    with pytest.raises(UserError, match='damaged'):
        an4.open(folder=str(tmp_path)).source('train')


@pytest.mark.data
@pytest.mark.skipif(not present_folder(an4.SOURCE), reason='AN4 is not on this machine')
def test_the_real_set_has_eight_validation_speakers_and_disjoint_splits():
    data = an4.open()
    speakers = {split: {row['speaker'] for row in data.source(split)} for split in data.splits}
    assert {split: len(names) for split, names in speakers.items()} == {'train': 66, 'validation': 8, 'test': 10}
    assert not speakers['train'] & (speakers['validation'] | speakers['test'])
    assert sum(len(data.source(split)) for split in data.splits) == 1078
    known = {row['text'] for split in ('train', 'validation') for row in data.source(split)}
    assert sum(row['text'] in known for row in data.source('test')) == 26
