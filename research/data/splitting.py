"""Splits for sets without official ones: by a list, or by a hash, with equal shares of each class."""

import collections
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from research.data.readers.rows import SPLITS, Rows, parts_by_hash, select
from research.errors import UserError, choose

Source = Callable[[str], Rows]


def by_hash(read: Callable[[], Rows], fractions: Mapping[str, float], fields: Sequence[str] = ()) -> Source:
    """A source that reads on first access and splits by a hash of `fields` of each row; () for all fields."""

    @functools.cache
    def parts() -> dict[str, Rows]:
        return parts_by_hash(read(), fractions, fields)

    return lambda split: choose(split, parts(), 'split')


def by_assignment(read: Callable[[], tuple[Rows, Sequence[str]]]) -> Source:
    """A source from a function that returns rows and the split of each ('' for none); called once."""

    @functools.cache
    def parts() -> dict[str, Rows]:
        rows, assigned = read()
        return {
            split: select(rows, [number for number, name in enumerate(assigned) if name == split]) for split in SPLITS
        }

    return lambda split: choose(split, parts(), 'split')


def by_class(read: Callable[[], Rows], fractions: Mapping[str, float], seed: int, examples: int = 0) -> Source:
    """A source that reads on first access and splits by `stratified_parts`.

    Args:
      read: () -> rows {'sequence', 'label', ...}.
      fractions: of the splits other than 'train'.
      seed: of the split.
      examples: number of training rows to use, evenly spaced; 0 for all.
    """

    @functools.cache
    def parts() -> dict[str, Rows]:
        rows = stratified_parts(read(), fractions, seed)
        count = len(rows['train'])
        if not 0 <= examples <= count:
            raise UserError(f'config.data.examples must be 0 (all) to {count:,}, got {examples}')
        spread = np.arange(examples) * count // max(examples, 1)
        return rows | ({'train': select(rows['train'], spread)} if examples else {})

    return lambda split: choose(split, parts(), 'split')


def stratified_parts(rows: Rows, fractions: Mapping[str, float], seed: int = 0) -> dict[str, Rows]:
    """Splits rows with the same share of each class, keeping copies of a sequence in one split.

    Within a class, sequences are sorted by a hash of the seed and the sequence. The first go to the first split of
    `fractions`, and so on; the rest go to 'train'. The split does not depend on the order of the rows. A sequence with
    several labels counts for the first one alphabetically.
    """
    groups: dict[str, list[int]] = collections.defaultdict(list)
    labels: dict[str, str] = {}
    for number, row in enumerate(rows):
        groups[row['sequence']].append(number)
        labels[row['sequence']] = min(labels.get(row['sequence'], row['label']), row['label'])  # pyright: ignore[reportArgumentType]
    chosen: dict[str, list[int]] = {split: [] for split in (*fractions, 'train')}
    for label in sorted(set(labels.values())):
        order = sorted(
            (sequence for sequence in groups if labels[sequence] == label),
            key=lambda sequence: hashlib.sha256(f'{seed} {sequence}'.encode()).digest(),
        )
        start = 0
        for split, fraction in fractions.items():
            stop = start + round(fraction * len(order))
            chosen[split] += [number for sequence in order[start:stop] for number in groups[sequence]]
            start = stop
        chosen['train'] += [number for sequence in order[start:] for number in groups[sequence]]
    return {split: select(rows, np.sort(np.array(numbers, np.int64))) for split, numbers in chosen.items()}
