"""A text as a bag of n-grams of words, and of characters inside words: vocabulary and features."""

import collections
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Int

from research.data.text.tokens import commonest
from research.errors import Count, PositiveInt, UserError

JOINT = '\x1f'  # separates the tokens of an n-gram
INSIDE = '\x1e'  # precedes character n-grams


class GramSettings(NamedTuple):
    """Which n-grams are features."""

    order: PositiveInt = 2  # n from 1 to this
    buckets: Count = 0  # number of hash buckets; 0: the most frequent n-grams of the training texts
    subwords: tuple[PositiveInt, ...] = ()  # (3, 6) adds n-grams of 3 to 6 characters inside a word
    subword_room: PositiveInt = 16  # average positions in a row for the subwords of a word; the rest is cut off
    naive_bayes: bool = False  # count each n-gram once, weighted by its log-count ratio; for a linear model

    def check(self) -> 'GramSettings':
        """Validates the settings; raises UserError for invalid values."""
        if self.subwords and (len(self.subwords) != 2 or self.subwords[0] > self.subwords[1]):
            raise UserError(
                'config.model.subwords must be empty or the fewest and the most characters, such as (3, 6), got '
                f'{self.subwords!r}'
            )
        return self

    def width(self, length: int) -> int:
        """Number of features of a row of `length` tokens."""
        return length * (self.order + (self.subword_room if self.subwords else 0))


class Grams(NamedTuple):
    """N-grams and their ids, from 1; 0 is padding."""

    settings: GramSettings
    numbers: Mapping[str, int]  # empty if hashed

    @property
    def size(self) -> int:
        """Number of features, including padding."""
        return 1 + (self.settings.buckets or len(self.numbers))


def grams_of(pieces: Sequence[str], settings: GramSettings) -> list[str]:
    """All n-grams of 1 to `order` tokens, then the subwords.

    Subwords are character n-grams of '<word>', shorter than the whole, which is itself a feature (Bojanowski et al.
    2017, arXiv:1607.04606, section 3.2).
    """
    words = [
        JOINT.join(pieces[start : start + size])
        for size in range(1, settings.order + 1)
        for start in range(len(pieces) - size + 1)
    ]
    if not settings.subwords:
        return words
    shortest, longest = settings.subwords
    framed = [f'<{piece}>' for piece in pieces]
    inside = [
        INSIDE + word[start : start + size]
        for word in framed
        for size in range(shortest, min(longest, len(word) - 1) + 1)
        for start in range(len(word) - size + 1)
    ]
    return words + inside


def prepare_grams(
    texts: Iterable[Sequence[str]], settings: GramSettings, limit: int, min_count: int, folder: epath.Path
) -> None:
    """Stores the most frequent n-grams of the tokenized training texts."""
    counter = collections.Counter(gram for pieces in texts for gram in grams_of(pieces, settings))
    kept = commonest(counter, limit, min_count)
    folder.joinpath('ngrams.json').write_text(json.dumps(kept, ensure_ascii=False), encoding='utf-8')


def read_grams(settings: GramSettings, folder: epath.Path) -> Grams:
    """Reads the n-grams that `prepare_grams` stored; hashed n-grams need no storage."""
    if settings.buckets:
        return Grams(settings, {})
    names = json.loads(folder.joinpath('ngrams.json').read_text(encoding='utf-8'))
    return Grams(settings, {name: number for number, name in enumerate(names, 1)})


def features(grams: Grams, pieces: Sequence[str], length: int, once: bool = False) -> Int[np.ndarray, 'features']:
    """Ids of the n-grams of at most `length` tokens, int32 [width], padded with 0.

    Hashing uses the CRC-32 of the UTF-8 text, so every process and machine agrees. With `once`, duplicates are removed.
    """
    settings = grams.settings
    grams_found = grams_of(pieces[:length], settings)
    grams_found = list(dict.fromkeys(grams_found)) if once else grams_found
    if settings.buckets:
        numbers = [1 + zlib.crc32(gram.encode()) % settings.buckets for gram in grams_found]
    else:
        numbers = [grams.numbers[gram] for gram in grams_found if gram in grams.numbers]
    row = np.zeros(settings.width(length), np.int32)
    numbers = numbers[: len(row)]
    row[: len(numbers)] = numbers
    return row


def log_count_ratios(
    rows: Iterable[Int[np.ndarray, 'features']], targets: np.ndarray, size: int
) -> np.ndarray:
    """Log-count ratios, float32 [size, units]: how much more frequent an n-gram is in a class than outside.

    log((p / |p|) / (q / |q|)), where p and q are one plus the number of rows inside and outside the class that have the
    n-gram (Wang and Manning 2012, equation 2); 0 for padding.

    Args:
      rows: features of each training row.
      targets: [rows, units], 1 if a row is of the class.
      size: number of features, including padding.
    """
    inside, outside = np.ones((2, size, targets.shape[1]))
    for row, target in zip(rows, targets, strict=True):
        found = np.unique(row[row > 0])
        inside[found] += target
        outside[found] += 1 - target
    inside[0] = outside[0] = 0
    inside[1:] /= inside[1:].sum(0)
    outside[1:] /= outside[1:].sum(0)
    result = np.zeros(inside.shape, np.float32)
    result[1:] = np.log(inside[1:] / outside[1:])
    return result
