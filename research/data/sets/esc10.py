"""ESC-10, folds 1 to 3: 240 clips of 5 s of ten kinds of environmental sounds, 16,000 samples a second.

Source: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015. Licence: CC BY 3.0;
each clip as its README lists it. Splits: one fold is the test, and no recording is in two folds; of the other folds,
whole recordings are cut off for validation.
Oddities: the clips were resampled from 44,100 samples a second and cut or padded to exactly 5 s.
"""

import csv
import dataclasses
import hashlib
import io
import re
from collections.abc import Mapping, Sequence

from research.data.dataset import DataSet
from research.data.fetch import folder_of
from research.data.readers.archives import find, read_bytes
from research.data.readers.folders import SOUNDS, read_folder, read_sound
from research.data.readers.rows import Rows
from research.data.splitting import by_place
from research.errors import UserError

FOLDER = 'esc10_folds123'
FOLDS = (1, 2, 3)


def open(folder: str = '', fold: int = 1, validation_share: float = 0.125) -> DataSet:
    """Opens the set; a row is {'audio': float32 [samples], 'rate', 'label'}.

    Args:
      folder: of meta.csv and esc10_16k.tar.xz.
      fold: that is the test: 1, 2 or 3.
      validation_share: of the clips of each class of the other folds.

    Raises:
      UserError: for another fold or an impossible share.
    """
    if fold not in FOLDS or not 0 < validation_share < 1:
        raise UserError(
            f'config.data: fold must be 1, 2 or 3 and validation_share between 0 and 1, got {fold} and '
            f'{validation_share:g}'
        )

    def read() -> tuple[Rows, list[str]]:
        place = folder_of(FOLDER, folder)
        meta = read_bytes(find(f'{place}/meta.csv', 'config.data.folder')[0]).decode('utf-8')
        table = {row['file']: row for row in csv.DictReader(io.StringIO(meta))}
        rows = read_folder(find(f'{place}/esc10_16k.tar.xz', 'config.data.folder'), SOUNDS, read_sound)
        clips = [re.search(r'[^/]+/[^/]+$', rows.where(number))[0] for number in range(len(rows))]
        unknown = [clip for clip in clips if clip not in table]
        if unknown:
            raise UserError(f'{place}/meta.csv does not name {unknown[0]}')
        learnt = {name: row['class'] for name, row in table.items() if int(row['fold']) != fold}
        held_out = chosen_recordings(learnt, validation_share)
        places = [
            'test' if clip not in learnt else 'validation' if recording_of(clip) in held_out else 'train'
            for clip in clips
        ]
        return relabelled(rows, [table[clip]['class'] for clip in clips]), places

    return DataSet(by_place(read), f'ESC-10, test: fold {fold} of 3', fields=('audio', 'rate', 'label'))


def chosen_recordings(names: Mapping[str, str], share: float) -> set[str]:
    """Returns recordings whose clips make up a share of each class at most: whole recordings, in hashed order.

    Args:
      names: {clip: its class}; the second of the fields of a clip's name, '1-100032-A', is its recording.
      share: of the clips of a class, rounded; a recording that would be more is passed over.
    """
    chosen: set[str] = set()
    for label in sorted(set(names.values())):
        clips: dict[str, int] = {}
        for clip, its in names.items():
            if its == label:
                clips[recording_of(clip)] = clips.get(recording_of(clip), 0) + 1
        left = round(share * sum(clips.values()))
        for recording in sorted(clips, key=lambda each: hashlib.sha256(each.encode()).digest()):
            if clips[recording] <= left:
                chosen.add(recording)
                left -= clips[recording]
    return chosen


def recording_of(clip: str) -> str:
    """Returns the recording that a clip was cut from: '100032' of '001/1-100032-A.wav'."""
    return clip.rpartition('/')[2].split('-')[1]


def relabelled(rows: Rows, labels: Sequence[str]) -> Rows:
    """Returns rows with other labels."""
    return dataclasses.replace(
        rows, get=lambda number: {**rows.get(number), 'label': labels[number]}, label=lambda number: labels[number]
    )
