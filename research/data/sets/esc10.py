"""ESC-10, folds 1 to 3: 240 clips of 5 s of ten kinds of environmental sounds at 16 kHz.

Source: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015. Licence: CC BY 3.0;
see its README for each clip. Splits: one fold is the test split, and no recording is in two folds; whole recordings of
the other folds form the validation split.
Oddities: this is the 2015 edition, whose files differ from those of ESC-50. It is resampled from 44.1 to 16 kHz here,
and the 20 clips slightly shorter or longer than 5 s are padded or cut.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from research.data.dataset import DataSet
from research.data.fetch import folder_of, located, present
from research.data.readers.archives import find
from research.data.readers.folders import SOUNDS, read_folder, read_sound
from research.data.readers.rows import Row, Rows, select
from research.data.source import File, Source, archive_url
from research.data.splitting import by_assignment
from research.errors import OpenFraction, UserError

RESAMPLED = 'esc10_16k.tar.xz'  # WAV files already processed by `read_clip`
SOURCE = Source(
    'esc10_folds123',
    'CC BY 3.0; each clip as README.txt lists it',
    'https://github.com/karolpiczak/ESC-10',
    (
        File(
            'esc10.tar',
            archive_url('karolpiczak/ESC-10', '553c8f1743b9dba6b282e1323c3ca8fa76923448'),
            'fe8bb3b8a6768e42bf51106d014c6e5d7351858dc1b634b9c24aed442729b1f2',
            41_809_920,
            members=r'\d\d\d - [^/]+/[^/]+\.ogg$',
            transfer=41_300_000,
        ),
    ),
    prepared=(RESAMPLED,),
)
CLASSES = {
    '001': 'Dog bark', '002': 'Rain', '003': 'Sea waves', '004': 'Baby cry', '005': 'Clock tick',
    '006': 'Person sneeze', '007': 'Helicopter', '008': 'Chainsaw', '009': 'Rooster', '010': 'Fire crackling',
}  # fmt: skip
FOLDS = (1, 2, 3)
RATE, SAMPLES = 16_000, 80_000


def open(folder: str = '', fold: Literal[1, 2, 3] = 1, validation_share: OpenFraction = 0.125) -> DataSet:
    """Opens the set; a row is {'audio': float32 [80,000], 'rate', 'label'}.

    Args:
      folder: of esc10.tar.
      fold: the test fold: 1, 2 or 3.
      validation_share: share of the clips of each class of the other folds.
    """
    def read() -> tuple[Rows, list[str]]:
        root = folder_of(SOURCE, folder)
        original = present(root, 'esc10.tar')
        path = located(root, 'esc10.tar') if original else f'{root}/{RESAMPLED}'
        rows = read_folder(find(path, 'config.data.folder'), SOUNDS, read_clip if original else read_sound)
        clips = [clip_of(rows.where(number)) for number in range(len(rows))]
        kept = [number for number, (clip, _) in enumerate(clips) if fold_of(clip) in FOLDS]
        clips = [clips[number] for number in kept]
        held_out = chosen_recordings({clip: label for clip, label in clips if fold_of(clip) != fold}, validation_share)
        assigned = [
            'test' if fold_of(clip) == fold else 'validation' if recording_of(clip) in held_out else 'train'
            for clip, _ in clips
        ]
        return relabelled(select(rows, kept), [label for _, label in clips]), assigned

    return DataSet(by_assignment(read), f'ESC-10, test: fold {fold} of 3', fields=('audio', 'rate', 'label'))


def read_clip(data: bytes, name: str) -> Row:
    """Decodes a clip to 5 s of 16-bit samples at 16 kHz: float32 multiples of 1 / 32,768 in [-1, 1]."""
    import scipy.signal

    sound = read_sound(data, name)
    audio = scipy.signal.resample_poly(sound['audio'].astype(np.float64), RATE, sound['rate'])[:SAMPLES]
    audio = np.clip(np.round(audio * 32767), -32768, 32767) / 32768
    return {'audio': np.pad(audio, (0, SAMPLES - len(audio))).astype(np.float32), 'rate': RATE}


def clip_of(path: str) -> tuple[str, str]:
    """The name and class of the clip at a path: '001/1-100032-A' and 'Dog bark' of '001 - Dog bark/1-100032-A.ogg'."""
    match = re.search(r'(\d{3})[^/]*/(\d-[^/]+)\.\w+$', path)
    if not match or match[1] not in CLASSES:
        raise UserError(f'{path}: expected a file such as 001 - Dog bark/1-100032-A.ogg')
    return f'{match[1]}/{match[2]}', CLASSES[match[1]]


def fold_of(clip: str) -> int:
    return int(clip.rpartition('/')[2][0])


def chosen_recordings(names: Mapping[str, str], share: float) -> set[str]:
    """Chooses whole recordings, in hashed order, with at most a share of the clips of each class.

    Args:
      names: {clip: its class}; the second field of a clip's name, '1-100032-A', is its recording.
      share: of the clips of a class, rounded; a recording that exceeds it is skipped.
    """
    chosen: set[str] = set()
    for label in sorted(set(names.values())):
        clips: dict[str, int] = {}
        for clip, clip_label in names.items():
            if clip_label == label:
                clips[recording_of(clip)] = clips.get(recording_of(clip), 0) + 1
        left = round(share * sum(clips.values()))
        for recording in sorted(clips, key=lambda name: hashlib.sha256(name.encode()).digest()):
            if clips[recording] <= left:
                chosen.add(recording)
                left -= clips[recording]
    return chosen


def recording_of(clip: str) -> str:
    """The recording that a clip was cut from: '100032' for '001/1-100032-A.wav'."""
    return clip.rpartition('/')[2].split('-')[1]


def relabelled(rows: Rows, labels: Sequence[str]) -> Rows:
    return dataclasses.replace(
        rows, get=lambda number: {**rows.get(number), 'label': labels[number]}, label=lambda number: labels[number]
    )
