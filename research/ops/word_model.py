"""An n-gram language model of words with Witten-Bell smoothing, in pure Python: for small vocabularies on the host."""

import collections
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

START, UNKNOWN = '<s>', '<unk>'


class WordModel(NamedTuple):
    """Counts of all n-grams up to an order.

    P(word | history) interpolates the orders: (count(history, word) + types(history) * P(word | shorter history)) /
    (count(history) + types(history)), where types(history) is the number of different words after it (Witten and Bell
    1991, method C). Below the unigrams is a uniform distribution over the known words and one unknown word.
    """

    order: int
    following: dict[tuple[str, ...], tuple[int, dict[str, int]]]  # {history: (its count, {word: count})}

    def probability(self, word: str, history: Sequence[str]) -> float:
        """P(word | the last words of the history, after the start of the text)."""
        known = self.following[()][1] if self.following else {}
        result = 1 / (len(known) + 1)
        word = word if word in known else UNKNOWN
        before = (*[START] * (self.order - 1), *history)
        for size in range(self.order):
            entry = self.following.get(tuple(before[len(before) - size :]))
            if entry is None:
                break
            total, counts = entry
            result = (counts.get(word, 0) + len(counts) * result) / (total + len(counts))
        return result

    def score(self, words: tuple[str, ...]) -> float:
        """Natural log-probability of the last word after the others."""
        return math.log(self.probability(words[-1], words[:-1]))


def count_words(texts: Iterable[str], order: int) -> WordModel:
    """Counts the n-grams of texts, each of which starts with START."""
    following: dict[tuple[str, ...], dict[str, int]] = collections.defaultdict(lambda: collections.defaultdict(int))
    for text in texts:
        words = [START] * (order - 1) + text.split()
        for position in range(order - 1, len(words)):
            for size in range(order):
                following[tuple(words[position - size : position])][words[position]] += 1
    return WordModel(order, {history: (sum(counts.values()), dict(counts)) for history, counts in following.items()})
