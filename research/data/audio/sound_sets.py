"""The data sets of labelled sounds by name, and those that users bring."""

import csv
import functools
import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from research.data.audio.sounds import Sounds
from research.data.readers import has_reader, sources, without_reader
from research.data.readers.archives import find, read_bytes
from research.data.readers.folders import SOUNDS, read_folder, read_sound
from research.data.readers.rows import SPLITS, Rows, select
from research.data.sets.synthetic_sounds import tones
from research.data.text.labelled_texts import data_folder
from research.errors import UserError, choose, nearest, unpack

SPEAKERS = ('george', 'jackson', 'lucas', 'nicolas', 'theo', 'yweweler')
TEST_TAKES, VALIDATION_TAKES = range(0, 5), range(5, 10)  # of 50
FOLDS = (1, 2, 3)


def by_place(rows: Callable[[], tuple[Rows, Sequence[str]]]) -> Callable[[str], Rows]:
    """Returns a source from a function that gives rows and the split of each ('' for none), called once."""

    @functools.cache
    def parts() -> dict[str, Rows]:
        every, places = rows()
        return {
            split: select(every, [number for number, place in enumerate(places) if place == split])
            for split in SPLITS
        }

    return lambda split: choose(split, parts(), 'split')


def take_of(name: str) -> tuple[str, int]:
    """Returns the speaker and the number of the take of a file such as '7_theo_12.wav'."""
    match = re.search(r'(?:^|/)\d_([a-z]+)_(\d+)\.\w+$', name)
    if not match:
        raise UserError(f'{name}: expected a file named digit_speaker_take.wav')
    return match[1], int(match[2])


def free_spoken_digits(folder: str = '', speaker: str = '') -> Sounds:
    """Returns 3,000 recordings of the digits 0 to 9: six speakers, 50 takes of each, 8,000 samples a second.

    Source: Z. Jackson and others, "Free Spoken Digit Dataset" (github.com/Jakobovski/free-spoken-digit-dataset,
    CC BY-SA 4.0). Takes 0 to 4 are the test, as its README says; 5 to 9 are for validation here.

    Args:
      folder: where fsdd_recordings.tar.gz lies; '' for $TESSERA_DATA/free_spoken_digits.
      speaker: whose takes, all of them, are the test; the validation is then takes 5 to 9 of the others.

    Raises:
      UserError: for a speaker who is not there.
    """
    if speaker:
        choose(speaker, dict.fromkeys(SPEAKERS), 'config.data.speaker')
    place = f'{data_folder(folder, "free_spoken_digits")}/fsdd_recordings.tar.gz'

    def split_of(name: str) -> str:
        who, take = take_of(name)
        if who == speaker or (not speaker and take in TEST_TAKES):
            return 'test'
        return 'validation' if take in VALIDATION_TAKES else 'train'

    def rows() -> tuple[Rows, list[str]]:
        every = read_folder(find(place, 'config.data.folder'), SOUNDS, read_sound, r'([0-9])_[a-z]+_\d+\.')
        return every, [split_of(every.where(number)) for number in range(len(every))]

    about = f'test: speaker {speaker}' if speaker else 'test: takes 0 to 4'
    return Sounds(by_place(rows), f'Free Spoken Digits, {about}')


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


def esc10(folder: str = '', fold: int = 1, validation_share: float = 0.125) -> Sounds:
    """Returns 240 clips of 5 s of ten kinds of sounds, 16,000 samples a second: folds 1 to 3 of ESC-10.

    Source: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015 (CC BY 3.0;
    each clip as its README lists it). One of the folds is the test; no recording is in two folds. Of the other
    two, whole recordings are cut off for validation.

    Args:
      folder: where meta.csv and esc10_16k.tar.xz lie; '' for $TESSERA_DATA/esc10_folds123.
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
    place = data_folder(folder, 'esc10_folds123')

    def rows() -> tuple[Rows, list[str]]:
        meta = read_bytes(find(f'{place}/meta.csv', 'config.data.folder')[0]).decode('utf-8')
        table = {row['file']: row for row in csv.DictReader(io.StringIO(meta))}
        other = {name: row['class'] for name, row in table.items() if int(row['fold']) != fold}
        held_out = chosen_recordings(other, validation_share)
        every = read_folder(find(f'{place}/esc10_16k.tar.xz', 'config.data.folder'), SOUNDS, read_sound)
        found = [re.search(r'[^/]+/[^/]+$', every.where(number))[0] for number in range(len(every))]
        unknown = [name for name in found if name not in table]
        if unknown:
            raise UserError(f'{place}/meta.csv: it does not name {unknown[0]}')
        every = relabelled(every, [table[name]['class'] for name in found])
        places = ['test' if name not in other else 'validation' if recording_of(name) in held_out else 'train'
                  for name in found]  # fmt: skip
        return every, places

    return Sounds(by_place(rows), f'ESC-10, test: fold {fold} of 3')


def relabelled(rows: Rows, labels: Sequence[str]) -> Rows:
    """Returns rows with other labels."""
    return Rows(
        len(rows), lambda number: {**rows.get(number), 'label': labels[number]}, rows.where, rows.key,
        lambda number: labels[number], rows.skipped,
    )  # fmt: skip


def sound_set(settings: Mapping[str, Any]) -> Sounds:
    """Returns the set that `config.data` names, or the user's own that its reader reads.

    Raises:
      UserError: for an unknown name or setting.
    """
    if has_reader(settings):
        data = sources(settings, ('audio', 'label'))
        return Sounds(data.source, data.about)
    sets = {'free_spoken_digits': free_spoken_digits, 'esc10': esc10, 'tones': tones}
    name = settings.get('name', '')
    if name not in sets:
        raise UserError(
            f'config.data.name={name!r}: {nearest(name, sets)}; or read your own by config.data.reader, such as '
            "'audio_folder'"
        )
    options = {key: value for key, value in without_reader(settings).items() if key != 'folder'}
    given = {'folder': settings['folder']} if settings.get('folder') else {}
    return unpack(sets[name], options | given, 'data')
