"""AN4 (the CMU census database): 1,078 utterances of spelled words, numbers and commands, as 13 MFCCs per frame.

Source: A. Acero, "Acoustical and environmental robustness in automatic speech recognition", Carnegie Mellon University;
features by the authors of the repository below, at 100 frames per second. Licence: that of CMU AN4, free for any use.
Splits: the official test split, 130 utterances of 10 speakers; of the other 74 speakers 8, chosen by a hash of their
names, are the validation split.
Oddities: features, not sounds; no mean is subtracted. 26 of the 130 test transcripts also occur in training.
"""

import hashlib
import io
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from research.data.dataset import DataSet
from research.data.fetch import folder_of, located, present
from research.data.readers.archives import Entry, find, read_bytes
from research.data.readers.rows import Rows
from research.data.source import File, Source, archive_url
from research.data.splitting import by_assignment
from research.errors import UserError

STORED = ('an4_mfcc13_f16.npy.xz', 'an4_index.jsonl')  # all features as float16, and where each utterance is
SOURCE = Source(
    'speech_an4_features',
    'that of CMU AN4: free for any use',
    'https://github.com/cphazen/Machine-Learning-Project-ASR',
    (
        File(
            'an4.tar',
            archive_url('cphazen/Machine-Learning-Project-ASR', '5e478f0ee6c5b060edf702acdd563948cad5545f'),
            '895836c11b96bf128ce3a653ee1f145802cabc9a8b3d381ddd6f371f0f8a7114',
            16_107_520,
            members=r'an4/(feat|etc)/.+$|an4/(LICENSE|README)$',
            transfer=18_000_000,
        ),
    ),
    about='MFCC features: big-endian float32 after a count; no audio',
    prepared=STORED,
)
COEFFICIENTS = 13
HELD_OUT = 8  # of the training speakers


def open(folder: str = '') -> DataSet:
    """Opens the set; a row is {'features': float32 [frames, 13], 'text', 'speaker'}.

    Args:
      folder: of an4.tar.
    """

    def read() -> tuple[Rows, list[str]]:
        root = folder_of(SOURCE, folder)
        names, texts, features = read_archive(root) if present(root, 'an4.tar') else read_stored(root)
        speakers = [name.split('/')[1] for name in names]
        rows = [
            {'features': values, 'text': text, 'speaker': speaker}
            for values, text, speaker in zip(features, texts, speakers, strict=True)
        ]
        train = {speaker for name, speaker in zip(names, speakers, strict=True) if not is_test(name)}
        held_out = sorted(train, key=lambda speaker: hashlib.sha256(speaker.encode()).digest())[:HELD_OUT]
        assigned = [
            'test' if is_test(name) else 'validation' if speaker in held_out else 'train'
            for name, speaker in zip(names, speakers, strict=True)
        ]
        return Rows(len(rows), rows.__getitem__, names.__getitem__), assigned

    return DataSet(by_assignment(read), 'AN4, features, official test split', fields=('features', 'text', 'speaker'))


def is_test(name: str) -> bool:
    return name.startswith('an4test')


def read_stored(root: str) -> tuple[list[str], list[str], Sequence[np.ndarray]]:
    """The names, transcripts and features of all utterances, from the prepared files."""
    file, index = (located(root, path) for path in STORED)
    values = whole_array(read_bytes(find(file, 'config.data.folder')[0]), file)
    rows = [json.loads(line) for line in read_bytes(find(index, 'config.data.folder')[0]).decode().splitlines()]
    if sum(row['frames'] for row in rows) != len(values):
        raise UserError(f'{file} has {len(values):,} frames, {index} another number: fetch both again')
    features = [values[row['offset'] : row['offset'] + row['frames']] for row in rows]
    return [row['id'] for row in rows], [row['text'] for row in rows], features


def whole_array(data: bytes, file: str) -> np.ndarray:
    """The stored array as float32; raises UserError if it is damaged."""
    try:
        return np.load(io.BytesIO(data)).astype(np.float32)
    except ValueError as error:
        raise UserError(f'{file} is damaged ({error}): fetch it again') from None


def read_archive(root: str) -> tuple[list[str], list[str], Sequence[np.ndarray]]:
    """The same from the files of the repository; features are rounded to float16, as in the prepared files."""
    entries = {
        entry.name.rpartition('an4/')[2].removeprefix('feat/'): entry
        for entry in find(located(root, 'an4.tar'), 'config.data.folder')
    }
    names, texts, features = [], [], []
    for part in ('train', 'test'):
        for line in lines(entries, f'etc/an4_{part}.fileids'):
            names.append(line)
            features.append(read_mfc(entries[f'{line}.mfc']))
        texts += [transcript(line) for line in lines(entries, f'etc/an4_{part}.transcription')]
    return names, texts, features


def lines(entries: dict[str, Entry], name: str) -> list[str]:
    """The lines of a file of the archive."""
    return [line.strip() for line in read_bytes(entries[name]).decode().splitlines() if line.strip()]


def transcript(line: str) -> str:
    """The words of 'YES (an251-fash-b)', without the marks of start and end."""
    return ' '.join(word for word in re.sub(r'\([^()]*\)$', '', line).split() if word not in ('<s>', '</s>'))


def read_mfc(entry: Entry) -> np.ndarray:
    """The features of one Sphinx file: a count, then big-endian float32."""
    data: Any = read_bytes(entry)
    count = int.from_bytes(data[:4], 'big')
    if len(data) != 4 + 4 * count or count % COEFFICIENTS:
        raise UserError(f'{entry.name}: {len(data):,} bytes are not a count and frames of {COEFFICIENTS} coefficients')
    values = np.frombuffer(data, '>f4', offset=4).reshape(-1, COEFFICIENTS)
    return values.astype(np.float16).astype(np.float32)
