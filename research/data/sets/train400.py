"""Train400: 400 grey photographs of 180x180 pixels, the customary training set of denoising, with its test sets.

Source: K. Zhang et al., "Beyond a Gaussian Denoiser", 2017 (arXiv:1608.03981), cut from the Berkeley segmentation set
(Martin et al. 2001). Licence: research and non-commercial use. Splits: 20 pictures, by a hash of the file name, are the
validation split; the test split is Set12 (12 grey pictures of 256 or 512 pixels), classic5 (5 of 512, customary for
JPEG artefacts), or Set5 or Set14 of `set5_set14`.
"""

import functools
import hashlib
from typing import Literal

import numpy as np

from research.data.dataset import DataSet
from research.data.fetch import folder_of, located, present
from research.data.readers.rows import Rows, select
from research.data.sets import set5_set14
from research.data.source import File, Source, archive_url
from research.errors import UserError, choose

SOURCE = Source(
    'train400_gray',
    'research and non-commercial use',
    'https://github.com/cszn/DnCNN',
    (
        File(
            'denoising.tar',
            archive_url('cszn/DnCNN', 'e93b27812d3ff523a3a79d19e5e50d233d7a8d0a'),
            'd40197f2fbdbc594dfc982cc22503428731acc905c5e20e11ea0a053057462a6',
            11_079_680,
            members=r'Train400/[^/]+\.png$|(?<=8d0a/)testsets/(Set12/[^/]+\.png|classic5/[^/]+\.bmp)$',
            transfer=150_400_000,
        ),
    ),
    about='the archive also contains models, which are not kept; Set12 and classic5 are for testing only',
    prepared=('train400.tar', 'set12.tar', 'classic5.tar'),
)
MEMBERS = {'train': 'Train400/*.png', 'set12': 'testsets/Set12/*.png', 'classic5': 'testsets/classic5/*.bmp'}
PREPARED = {
    'train': 'train400.tar/Train400/*.png', 'set12': 'set12.tar/Set12/*.png', 'classic5': 'classic5.tar/classic5/*.bmp',
}  # fmt: skip
VALIDATION = 20  # pictures


def open(folder: str = '', test: Literal['set12', 'classic5', 'set5', 'set14'] = 'set12') -> DataSet:
    """Opens the set; a row is {'image': uint8 [height, width, 1]}, of Set5 and Set14 [height, width, 1 or 3].

    Args:
      folder: of denoising.tar, or of train400.tar, set12.tar and classic5.tar.
      test: the test split.

    Raises:
      UserError: for an unknown test split.
    """
    choose(test, {**MEMBERS, **set5_set14.NAMES}, 'config.data.test')
    if test == 'train':
        raise UserError("config.data.test='train': a test split is 'set12', 'classic5', 'set5' or 'set14'")

    def read(name: str) -> Rows:
        root = folder_of(SOURCE, folder)
        if present(root, 'denoising.tar'):
            return set5_set14.pictures(f'{located(root, "denoising.tar")}/{MEMBERS[name]}')
        archive, _, inside = PREPARED[name].partition('/')
        return set5_set14.pictures(f'{located(root, archive)}/{inside}')

    @functools.cache
    def parts() -> dict[str, Rows]:
        rows = read('train')
        names = [rows.where(number).rpartition('/')[2] for number in range(len(rows))]
        order = sorted(range(len(names)), key=lambda number: hashlib.sha256(names[number].encode()).digest())
        chosen = {'validation': order[:VALIDATION], 'train': order[VALIDATION:]}
        return {split: select(rows, np.sort(numbers)) for split, numbers in chosen.items()}

    @functools.cache
    def source(split: str) -> Rows:
        if split != 'test':
            return choose(split, parts(), 'split')
        return set5_set14.open(test=test).source('test') if test in ('set5', 'set14') else read(test)

    return DataSet(source, f'grey photographs; test: {test}', fields=('image',))
