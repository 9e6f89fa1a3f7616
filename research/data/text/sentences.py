"""Answers without learning: the sentence of a context that shares most with the question."""

import collections
import math
import re
from collections.abc import Callable, Iterable, Sequence

from research.data.text.pieces import word_pieces

SENTENCE = re.compile(r'.+?(?:[.!?]["\')\]]*(?=\s|$)|[。！？]|$|(?=\n))', re.DOTALL)


def sentences(text: str) -> list[str]:
    """Splits a text after full stops, question and exclamation marks, and at line feeds; at least one sentence."""
    return [match.strip() for match in SENTENCE.findall(text) if match.strip()] or [text]


def rarities(contexts: Iterable[str]) -> Callable[[str], float]:
    """The function from a word to log(contexts / contexts with the word), for unknown words log(contexts)."""
    distinct = set(contexts)
    counts = collections.Counter(name for context in distinct for name in set(word_pieces(context)[0]))
    return lambda name: math.log((1 + len(distinct)) / max(counts[name], 1))


def best_sentence(question: str, choices: Sequence[str], rarity: Callable[[str], float]) -> str:
    """The first of the sentences with the largest sum of the rarities of words that the question has too."""
    asked = set(word_pieces(question)[0])
    return max(choices, key=lambda sentence: sum(rarity(name) for name in asked & set(word_pieces(sentence)[0])))
