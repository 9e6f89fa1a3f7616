"""Exact match and F1 of answers, as the official scripts of SQuAD 1.1 and 2.0 define them.

Rajpurkar et al. 2016 (arXiv:1606.05250), section 6.1, and 2018 (arXiv:1806.03822). Scores are percentages, the maximum
over the references of a question. An empty text means no answer; it matches only an empty text.
"""

import collections
import re
import string
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from research.data.text.word_segmentation import CHINESE, without_punctuation

Unit = Literal['words', 'characters']
ARTICLES = re.compile(r'\b(a|an|the)\b')
PUNCTUATION = str.maketrans('', '', string.punctuation)
MIXED = re.compile(rf'[{CHINESE}]|[^\s{CHINESE}]+')


def normal_words(text: str) -> list[str]:
    """Words in lower case without ASCII punctuation and English articles."""
    return ARTICLES.sub(' ', text.lower().translate(PUNCTUATION)).split()


def normal_characters(text: str) -> list[str]:
    """Chinese and Japanese characters, and words of other scripts, in lower case without any punctuation."""
    return MIXED.findall(without_punctuation(text.lower()))


UNITS: dict[str, Callable[[str], list[str]]] = {'words': normal_words, 'characters': normal_characters}


class Scores(NamedTuple):
    """Exact match and F1, 0 to 100."""

    exact: float
    f1: float


def answer_scores(answer: str, references: Sequence[str], unit: Unit = 'words') -> Scores:
    """Scores an answer against the references of a question; none, or only empty ones, mean no answer."""
    split = UNITS[unit]
    given = split(answer)
    expected = [units for units in map(split, references) if units] or [[]]
    return Scores(
        max(100.0 * (given == units) for units in expected),
        max(100.0 * overlap(given, units) for units in expected),
    )


def overlap(given: Sequence[str], expected: Sequence[str]) -> float:
    """F1 of two bags; where one is empty, whether both are."""
    if not given or not expected:
        return float(given == expected)
    common = sum((collections.Counter(given) & collections.Counter(expected)).values())
    return 2 * common / (len(given) + len(expected))


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """The mean over questions."""
    return Scores(*(float(value) for value in np.mean(np.asarray(scores), axis=0)))


class Threshold(NamedTuple):
    """The best mean score, and the margin above which "no answer" gives it."""

    score: float
    margin: float


def best_threshold(margins: Sequence[float], answered: Sequence[float], answerable: Sequence[bool]) -> Threshold:
    """Finds the threshold on the margin of "no answer" with the best mean score, as SQuAD 2.0's script.

    Args:
      margins: score of "no answer" minus that of the best span, of each question.
      answered: the score of each question if its best span is the answer, 0 to 100.
      answerable: whether its context answers it.
    """
    order = np.argsort(np.asarray(margins, np.float64), kind='stable')
    sorted_margins, gold = np.asarray(margins, np.float64)[order], np.asarray(answerable, bool)[order]
    # Answering the first k questions gains their scores, and loses the unanswerable ones among them.
    gains = np.where(gold, np.asarray(answered, np.float64)[order], -100.0)
    totals = 100.0 * np.sum(~gold) + np.concatenate([[0.0], np.cumsum(gains)])
    ends = np.append(sorted_margins[1:] > sorted_margins[:-1], True)  # equal margins fall on the same side
    allowed = np.flatnonzero(np.concatenate([[True], ends]))
    best = int(allowed[np.argmax(totals[allowed])])
    lowest = float(sorted_margins[0]) - 1.0
    return Threshold(float(totals[best]) / len(order), float(sorted_margins[best - 1]) if best else lowest)
