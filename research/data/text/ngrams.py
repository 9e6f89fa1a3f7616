"""A text as a bag of n-grams of its words, and of characters inside them: which there are, and their numbers."""

import collections
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Int

from research.data.text.tokens import commonest
from research.errors import UserError

JOINT = '\x1f'  # stands between the tokens of an n-gram
INSIDE = '\x1e'  # stands before n-grams of characters


class GramSettings(NamedTuple):
    """Which n-grams are features."""

    order: int = 2  # n from 1 to this
    buckets: int = 0  # hashed into so many; 0: the commonest of the training texts
    subwords: tuple = ()  # (3, 6): also those of 3 to 6 characters inside a word
    subword_room: int = 16  # places in a row for the subwords of a word, on average; those beyond are cut off
    naive_bayes: bool = False  # each n-gram counts once, as much as its log-count ratio says; for a linear model

    def check(self) -> 'GramSettings':
        """Returns the settings; raises a `UserError` for impossible values."""
        if self.order < 1 or self.buckets < 0 or self.subword_room < 1:
            raise UserError(
                'config.model: order and subword_room must be above zero and buckets zero or more, got '
                f'{self.order}, {self.subword_room} and {self.buckets}'
            )
        if self.subwords and (len(self.subwords) != 2 or not 1 <= self.subwords[0] <= self.subwords[1]):
            raise UserError(
                'config.model.subwords must be empty or the fewest and the most characters, such as (3, 6), got '
                f'{self.subwords!r}'
            )
        return self

    def width(self, length: int) -> int:
        """Returns the features of a row of so many tokens."""
        return length * (self.order + (self.subword_room if self.subwords else 0))


class Grams(NamedTuple):
    """N-grams and their numbers, from 1; 0 is padding."""

    settings: GramSettings
    numbers: Mapping[str, int]  # empty where they are hashed

    @property
    def size(self) -> int:
        """Features, with the padding."""
        return 1 + (self.settings.buckets or len(self.numbers))


def grams_of(pieces: Sequence[str], settings: GramSettings) -> list[str]:
    """Returns all n-grams of 1 to `order` tokens, then the subwords.

    Subwords are the n-grams of characters of a word between '<' and '>', shorter than the whole, which is a
    feature itself (Bojanowski et al. 2017, arXiv:1607.04606, section 3.2).
    """
    words = [
        JOINT.join(pieces[start : start + size])
        for size in range(1, settings.order + 1)
        for start in range(len(pieces) - size + 1)
    ]
    if not settings.subwords:
        return words
    least, most = settings.subwords
    framed = [f'<{piece}>' for piece in pieces]
    inside = [
        INSIDE + word[start : start + size]
        for word in framed
        for size in range(least, min(most, len(word) - 1) + 1)
        for start in range(len(word) - size + 1)
    ]
    return words + inside


def prepare_grams(
    texts: Iterable[Sequence[str]], settings: GramSettings, most: int, least: int, folder: epath.Path
) -> None:
    """Stores the commonest n-grams of the training texts, given as tokens."""
    counter = collections.Counter(gram for pieces in texts for gram in grams_of(pieces, settings))
    kept = commonest(counter, most, least)
    folder.joinpath('ngrams.json').write_text(json.dumps(kept, ensure_ascii=False), encoding='utf-8')


def read_grams(settings: GramSettings, folder: epath.Path) -> Grams:
    """Returns the n-grams that `prepare_grams` stored, or hashed ones, for which nothing is stored."""
    if settings.buckets:
        return Grams(settings, {})
    names = json.loads(folder.joinpath('ngrams.json').read_text(encoding='utf-8'))
    return Grams(settings, {name: number for number, name in enumerate(names, 1)})


def features(grams: Grams, pieces: Sequence[str], length: int, once: bool = False) -> Int[np.ndarray, 'features']:
    """Returns the numbers of the n-grams of at most `length` tokens, int32 [width], 0 where none is.

    A hashed n-gram is CRC-32 of its UTF-8 text, so that every process and machine agrees. With `once`, each
    counts once.
    """
    settings = grams.settings
    found = grams_of(pieces[:length], settings)
    found = list(dict.fromkeys(found)) if once else found
    if settings.buckets:
        numbers = [1 + zlib.crc32(gram.encode()) % settings.buckets for gram in found]
    else:
        numbers = [grams.numbers[gram] for gram in found if gram in grams.numbers]
    row = np.zeros(settings.width(length), np.int32)
    numbers = numbers[: len(row)]
    row[: len(numbers)] = numbers
    return row


def log_count_ratios(
    rows: Iterable[Int[np.ndarray, 'features']], targets: np.ndarray, size: int
) -> np.ndarray:
    """Returns float32 [size, units]: how much commoner an n-gram is in rows of a class than in the others.

    log((p / |p|) / (q / |q|)) with p and q one more than the rows of either kind that have the n-gram
    (Wang and Manning 2012, equation 2); 0 for padding.

    Args:
      rows: features of each training row.
      targets: [rows, units], 1 where a row is of the class.
      size: features, with the padding.
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
