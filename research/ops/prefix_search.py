"""Decoding of CTC outputs on the host: the best path, and a prefix beam search with a language model of words."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from research.ops.ctc import BLANK

Prefix = tuple[int, ...]
WordScore = Callable[[tuple[str, ...]], float]  # (words) -> natural log-probability of the last one after the others


class Search(NamedTuple):
    """Settings of the prefix beam search.

    A text scores log P(text | sound) + weight * log P(words) + bonus * number of words (Hannun et al. 2014,
    arXiv:1408.2873, equation 4).
    """

    beams: int = 16
    weight: float = 0.0  # of the language model; 0: none
    bonus: float = 0.0  # for each word, against the preference of a language model for short texts
    prune: float = 1e-3  # labels less probable than this in a frame are not tried there


class Beam(NamedTuple):
    """A prefix with the log-probability of its alignments that end in a blank, and in its last label."""

    blank: float = -math.inf
    label: float = -math.inf

    @property
    def total(self) -> float:
        """The log-probability of the prefix."""
        return log_add(self.blank, self.label)


def log_add(first: float, second: float) -> float:
    """log(exp(first) + exp(second))."""
    high, low = (first, second) if first > second else (second, first)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def greedy(log_probabilities: Float[np.ndarray, 'frames labels']) -> list[int]:
    """The most probable label of each frame, without repeats and blanks."""
    best = log_probabilities.argmax(axis=-1)
    first = np.r_[True, best[1:] != best[:-1]] if len(best) else np.zeros(0, bool)
    return best[first & (best != BLANK)].tolist()


def prefix_search(
    log_probabilities: Float[np.ndarray, 'frames labels'],
    alphabet: Sequence[str],
    settings: Search,
    word_score: WordScore | None = None,
) -> list[tuple[str, float]]:
    """The texts of the last beam with their scores, best first (Hannun et al. 2014, arXiv:1408.2873, algorithm 1).

    Args:
      log_probabilities: natural logarithms, of the blank and the letters.
      alphabet: the letter of each label; that of the blank is not used. ' ' ends a word.
      settings: see `Search`.
      word_score: the language model; None for none. A word is scored when it ends.
    """
    bonus_of = word_bonus(alphabet, settings, word_score)
    beams: dict[Prefix, Beam] = {(): Beam(blank=0.0)}
    floor = math.log(settings.prune) if settings.prune else -math.inf
    for frame in log_probabilities:
        beams = next_beams(beams, frame.tolist(), [int(c) for c in np.flatnonzero(frame > floor) if c != BLANK])
        ranked = sorted(beams, key=lambda prefix: -(beams[prefix].total + bonus_of(prefix, False)))
        beams = {prefix: beams[prefix] for prefix in ranked[: settings.beams]}
    texts = {prefix: beams[prefix].total + bonus_of(prefix, True) for prefix in beams}
    return [(text_of(prefix, alphabet), texts[prefix]) for prefix in sorted(texts, key=lambda prefix: -texts[prefix])]


def transcriber(
    alphabet: Sequence[str], settings: Search, word_score: WordScore | None = None
) -> Callable[[Mapping[str, np.ndarray]], dict[str, Any]]:
    """Builds a task's `decode`: 'text' of the beam search with its 'score', and 'greedy', the text of the best path.

    It reads 'log_probabilities' [frames, labels], of which the first 'frames' are valid.
    """

    def decode(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        frames = np.asarray(outputs['log_probabilities'], np.float64)[: int(outputs['frames'])]
        text, score = prefix_search(frames, alphabet, settings, word_score)[0]
        plain = text_of(tuple(greedy(frames)), alphabet)
        return {'text': ' '.join(text.split()), 'greedy': ' '.join(plain.split()), 'score': round(score, 3)}

    return decode


def next_beams(beams: dict[Prefix, Beam], frame: Sequence[float], labels: Sequence[int]) -> dict[Prefix, Beam]:
    """Extends every prefix by one frame: with a blank, its last label again, or each of `labels`."""
    new: dict[Prefix, Beam] = {}

    def add(prefix: Prefix, blank: float, label: float) -> None:
        if max(blank, label) == -math.inf:
            return
        old = new.get(prefix, Beam())
        new[prefix] = Beam(log_add(old.blank, blank), log_add(old.label, label))

    for prefix, beam in beams.items():
        total, last = beam.total, prefix[-1] if prefix else BLANK
        add(prefix, total + frame[BLANK], beam.label + frame[last] if prefix else -math.inf)
        for label in labels:
            add((*prefix, label), -math.inf, (beam.blank if label == last else total) + frame[label])
    return new


def text_of(prefix: Prefix, alphabet: Sequence[str]) -> str:
    """The letters of a prefix."""
    return ''.join(alphabet[label] for label in prefix)


def word_bonus(
    alphabet: Sequence[str], settings: Search, word_score: WordScore | None
) -> Callable[[Prefix, bool], float]:
    """(prefix, whether it is the whole text) -> weight * log P(its complete words) + bonus * their number."""
    if word_score is None or not settings.weight:
        return lambda prefix, whole: 0.0
    score: WordScore = word_score
    known: dict[tuple[str, ...], float] = {(): 0.0}

    def of_words(words: tuple[str, ...]) -> float:
        if words not in known:
            known[words] = of_words(words[:-1]) + settings.weight * score(words) + settings.bonus
        return known[words]

    ends: dict[Prefix, float] = {}

    def of_prefix(prefix: Prefix, whole: bool) -> float:
        key = prefix
        while not whole and key and alphabet[key[-1]] != ' ':  # the last word is incomplete
            key = key[:-1]
        if key not in ends:
            ends[key] = of_words(tuple(text_of(key, alphabet).split()))
        return ends[key]

    return of_prefix
