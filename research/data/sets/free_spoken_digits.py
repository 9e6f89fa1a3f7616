"""Free Spoken Digits: 3,000 recordings of the digits 0 to 9 at 8 kHz: six speakers, 50 takes of each digit.

Source: Z. Jackson and others, "Free Spoken Digit Dataset", github.com/Jakobovski/free-spoken-digit-dataset. Licence:
CC BY-SA 4.0. Splits: takes 0 to 4 are the official test split; takes 5 to 9 are the validation split.
"""

import re

from research.data.dataset import DataSet
from research.data.fetch import folder_of, located
from research.data.readers.archives import find
from research.data.readers.folders import SOUNDS, read_folder, read_sound
from research.data.readers.rows import Rows
from research.data.source import File, Source, archive_url
from research.data.splitting import by_assignment
from research.errors import UserError, choose

SOURCE = Source(
    'free_spoken_digits',
    'CC BY-SA 4.0',
    'https://github.com/Jakobovski/free-spoken-digit-dataset',
    (
        File(
            'fsdd_recordings.tar',
            archive_url('Jakobovski/free-spoken-digit-dataset', '26eb9aaf76e81b692f806f9140c2d2777410d7a1'),
            '9cbd40a399fee10d4611dc8ffe6de219695fd804a62dfb43373f183715b43877',
            23_429_120,
            members=r'recordings/[^/]+\.wav$',
            transfer=15_600_000,
        ),
    ),
)
SPEAKERS = ('george', 'jackson', 'lucas', 'nicolas', 'theo', 'yweweler')
TEST_TAKES, VALIDATION_TAKES = range(0, 5), range(5, 10)  # of 50


def open(folder: str = '', speaker: str = '') -> DataSet:
    """Opens the set; a row is {'audio': float32 [samples], 'rate', 'label'}.

    Args:
      folder: of fsdd_recordings.tar.
      speaker: all takes of this speaker are the test split; takes 5 to 9 of the others are the validation split.

    Raises:
      UserError: for an unknown speaker.
    """
    if speaker:
        choose(speaker, dict.fromkeys(SPEAKERS), 'config.data.speaker')

    def split_of(name: str) -> str:
        name_of_speaker, take = take_of(name)
        if name_of_speaker == speaker or (not speaker and take in TEST_TAKES):
            return 'test'
        return 'validation' if take in VALIDATION_TAKES else 'train'

    def read() -> tuple[Rows, list[str]]:
        entries = find(located(folder_of(SOURCE, folder), 'fsdd_recordings.tar'), 'config.data.folder')
        rows = read_folder(entries, SOUNDS, read_sound, r'([0-9])_[a-z]+_\d+\.')
        return rows, [split_of(rows.where(number)) for number in range(len(rows))]

    about = f'Free Spoken Digits, test: {f"speaker {speaker}" if speaker else "takes 0 to 4"}'
    names = tuple(map(str, range(10)))
    return DataSet(by_assignment(read), about, fields=('audio', 'rate', 'label'), class_names=names)


def take_of(name: str) -> tuple[str, int]:
    """The speaker and take number of a file such as '7_theo_12.wav'."""
    match = re.search(r'(?:^|/)\d_([a-z]+)_(\d+)\.\w+$', name)
    if not match:
        raise UserError(f'{name}: expected a file named digit_speaker_take.wav')
    return match[1], int(match[2])
