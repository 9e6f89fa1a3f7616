"""Scikit-learn's bundled handwritten digits: 1797 scans of 8x8 pixels, always available, with a fixed split.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998 (its test
part). Licence: CC BY 4.0. Splits: 70% train, 15% validation, 15% test of each class, by a hash of the pixels.
Oddities: intensities 0 to 16 become float32 in [0, 1]: light strokes on a dark background.
"""

import functools
import hashlib
import importlib.util
import pathlib

import numpy as np

from research.data.dataset import DataSet
from research.data.readers.rows import Rows, in_memory
from research.errors import choose

FRACTIONS = {'train': 0.70, 'validation': 0.15, 'test': 0.15}


def split_rows(pixels: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Row numbers of each split, with the same share of every class; they never change.

    Within a class, rows are sorted by the SHA-256 of their pixels, so the split does not depend on a random generator,
    a library version or a config's seed.
    """
    parts = {split: [] for split in FRACTIONS}
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rows = sorted(rows, key=lambda row: hashlib.sha256(pixels[row].tobytes()).hexdigest())
        test, validation = (round(FRACTIONS[split] * len(rows)) for split in ('test', 'validation'))
        for split, chosen in zip(
            ('test', 'validation', 'train'), np.split(rows, [test, test + validation]), strict=True
        ):
            parts[split].append(chosen)
    return {split: np.sort(np.concatenate(chosen)) for split, chosen in parts.items()}


def open() -> DataSet:
    """Opens the set; a row is {'image': float32 [8, 8, 1] in [0, 1], 'label': '0' to '9'}."""

    @functools.cache
    def read() -> tuple[np.ndarray, np.ndarray]:
        folder = pathlib.Path(importlib.util.find_spec('sklearn').origin).parent  # importing it takes a second  # pyright: ignore[reportOptionalMemberAccess, reportArgumentType]
        table = np.loadtxt(folder / 'datasets' / 'data' / 'digits.csv.gz', delimiter=',', dtype=np.uint8)
        return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)

    @functools.cache
    def source(split: str) -> Rows:
        pixels, labels = read()
        rows = choose(split, split_rows(pixels, labels), 'split')
        scaled = pixels[..., None].astype(np.float32) / 16
        return in_memory([{'image': scaled[row], 'label': str(labels[row])} for row in rows], f'digits, {split}')

    names = tuple(map(str, range(10)))
    return DataSet(source, 'light strokes on a dark ground', tuple(FRACTIONS), ('image', 'label'), names, (8, 8, 1))
