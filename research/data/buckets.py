"""Bucketed batches: one compilation per bucket of shapes, in an order that is a function of (seed, step)."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from research.data.batches import Row, order


class Buckets(NamedTuple):
    """Groups examples of many shapes into a few padded shapes; `by_length` builds buckets by length.

    Attributes:
      of: (split) -> the bucket of each row, int [rows], computed without encoding any row.
      bucket: (encoded example without padding) -> its bucket.
      pad: (encoded example, bucket) -> the example in the shapes of that bucket.
      rising: whether a row also fits every later bucket. Rows that do not fill a batch then move to the next bucket;
        otherwise their batch is filled with masked rows.
    """

    of: Callable[[str], Int[np.ndarray, 'rows']]
    bucket: Callable[[Mapping[str, np.ndarray]], int]
    pad: Callable[[Mapping[str, np.ndarray], int], Mapping[str, np.ndarray]]
    rising: bool = True


def by_length(
    lengths: Callable[[str], Sequence[int]], sizes: Sequence[int], fields: Mapping[str, float], length: str = 'length'
) -> Buckets:
    """Buckets by length: each row goes to the smallest of `sizes` that holds it, and its fields are padded.

    Args:
      lengths: (split) -> the length of each row.
      sizes: ascending; the last must hold every row.
      fields: {name: value that pads its first axis}.
      length: the field of an encoded example that holds its length.
    """
    bounds = np.asarray(sizes)

    def pad(example: Mapping[str, np.ndarray], bucket: int) -> dict[str, np.ndarray]:
        padded = dict(example)
        for name, value in fields.items():
            extra = int(bounds[bucket]) - len(example[name])
            widths = [(0, extra)] + [(0, 0)] * (np.ndim(example[name]) - 1)
            padded[name] = np.pad(example[name], widths, constant_values=value)
        return padded

    return Buckets(
        of=lambda split: np.searchsorted(bounds, np.asarray(lengths(split))),
        bucket=lambda example: int(np.searchsorted(bounds, int(example[length]))),
        pad=pad,
    )


def epoch_batches(
    buckets: Int[np.ndarray, 'rows'], batch_size: int, seed: int, epoch: int, rising: bool
) -> list[tuple[int, list[int]]]:
    """(bucket, rows) of each batch of an epoch, in shuffled order; every row appears once."""
    shuffled = order(len(buckets), seed, epoch)
    batches, carried = [], []
    numbers = sorted(set(buckets.tolist()))
    for bucket in numbers:
        rows = carried + shuffled[buckets[shuffled] == bucket].tolist()
        whole = len(rows) // batch_size * batch_size
        batches += [(bucket, rows[start : start + batch_size]) for start in range(0, whole, batch_size)]
        carried = rows[whole:]
        if carried and (not rising or bucket == numbers[-1]):
            batches.append((bucket, carried))
            carried = []
    words = np.random.Philox(key=[(2 << 32) | (seed & 0xFFFFFFFF), epoch]).random_raw(len(batches))
    return [batches[number] for number in np.argsort(words, kind='stable')]


def filled(rows: Sequence[int], epoch: int | None, bucket: int, batch_size: int) -> list[Row]:
    """Rows of one batch, padded with masked copies of its first row."""
    real = [Row(index, epoch, True, bucket) for index in rows]
    return real + [Row(rows[0], None, False, bucket)] * (batch_size - len(real))


def batches_per_epoch(buckets: Int[np.ndarray, 'rows'], batch_size: int, rising: bool) -> int:
    """Number of batches per epoch; it depends only on the bucket sizes."""
    if rising:
        return -(-len(buckets) // batch_size)
    return int(sum(-(-count // batch_size) for count in np.bincount(buckets)))


def bucket_sampler(
    buckets: Int[np.ndarray, 'rows'], batch_size: int, seed: int, rising: bool
) -> Callable[[int], list[Row]]:
    """Makes the function from a step to the rows of its batch, all from one bucket."""
    count = batches_per_epoch(buckets, batch_size, rising)
    epoch_of = functools.lru_cache(maxsize=2)(lambda epoch: epoch_batches(buckets, batch_size, seed, epoch, rising))

    def rows_of(step: int) -> list[Row]:
        epoch, position = divmod(step, count)
        bucket, rows = epoch_of(epoch)[position]
        return filled(rows, epoch, bucket, batch_size)

    return rows_of


def evaluation_batches(buckets: Int[np.ndarray, 'rows'], batch_size: int) -> list[list[Row]]:
    """Batches of one pass, bucket by bucket, in row order."""
    batches = []
    for bucket in sorted(set(buckets.tolist())):
        rows = np.flatnonzero(buckets == bucket).tolist()
        parts = (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))
        batches += [filled(part, None, bucket, batch_size) for part in parts]
    return batches


class Parts(Sequence):
    """All model inputs of a split, made by `Task.split` on demand; only the number of parts per row is stored."""

    def __init__(self, rows: Sequence[Any], split: Callable[[Any], Sequence[Any]], limit: int = 0):
        count = min(limit, len(rows)) if limit else len(rows)
        self.rows, self._split = rows, functools.lru_cache(maxsize=4)(lambda row: split(rows[row]))
        self.ends = np.cumsum([len(self._split(row)) for row in range(count)])

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def origin(self, number: int) -> tuple[int, int]:
        """Maps a part to (row, position within the row)."""
        row = int(np.searchsorted(self.ends, number, side='right'))
        return row, number - (int(self.ends[row - 1]) if row else 0)

    def count(self, row: int) -> int:
        """Number of parts of a row."""
        return int(self.ends[row] - (self.ends[row - 1] if row else 0))

    def __getitem__(self, number: int) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        row, position = self.origin(number)
        return self._split(row)[position]
