"""Tokens that know their place in the text, so that an answer can be cut out of it unchanged."""

import functools
import json
import unicodedata
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Int
from tokenizers import Tokenizer

from research.data.text.corpus import encode_text
from research.data.text.tokens import SPECIAL, UNKNOWN, Tokens, commonest, pretrained_tokens
from research.data.text.word_segmentation import check_unicode, piece_pattern

CACHED_TEXTS = 4096  # texts whose tokens are kept
VOCABULARY = 'vocabulary.json'  # in the run's prepared folder
TOKENIZER = 'tokenizer.json'  # of published weights
SHAPES = ('', 'lower', 'Capital', 'CAPITALS', 'number', 'year', 'mixed with digits', 'without case', 'symbol')
JOINERS = '\u200d\ufe0e\ufe0f'  # continue the character before them


class Pieces(NamedTuple):
    """The tokens of one text."""

    ids: list[int]
    names: list[str]  # normalized words, or the tokenizer's names
    shapes: list[int]  # of SHAPES, if tokens are words; else []
    offsets: Int[np.ndarray, 'tokens 2']  # (start, stop) of each in code points of the text


class PieceReader(NamedTuple):
    """A vocabulary, and the function that reads a text with it."""

    tokens: Tokens
    read: Callable[[str], Pieces]
    reread: Callable[[str], Pieces]  # the same with a cache, for contexts, which many questions share
    words: bool  # whether tokens are whole words


def word_pieces(text: str) -> tuple[list[str], Int[np.ndarray, 'tokens 2']]:
    """Splits a text into words, and symbols and Chinese characters alone; returns lower-case NFKC forms and offsets."""
    check_unicode(text)
    matches = list(piece_pattern().finditer(text))
    names = [unicodedata.normalize('NFKC', match.group()).lower() for match in matches]
    return names, np.array([match.span() for match in matches], np.int32).reshape(-1, 2)


def shape_of(word: str) -> int:
    """The form of a word, an index of `SHAPES`; a year has four digits."""
    if word.isdecimal():
        return 5 if len(word) == 4 else 4
    if not any(map(str.isalnum, word)):
        return 8
    if any(map(str.isdigit, word)):
        return 6
    if word == word.lower():
        return 7 if word == word.upper() else 1
    return 3 if len(word) > 1 and word == word.upper() else 2


def prepare_words(texts: Iterable[str], limit: int, min_count: int, folder: epath.Path) -> None:
    """Stores the `limit` most frequent words with at least `min_count` occurrences, the most frequent first."""
    counts: dict[str, int] = {}
    for text in texts:
        for name in word_pieces(text)[0]:
            counts[name] = counts.get(name, 0) + 1
    kept = commonest(counts, limit, min_count)
    folder.joinpath(VOCABULARY).write_text(json.dumps(kept, ensure_ascii=False), encoding='utf-8')


def read_words(folder: epath.Path) -> PieceReader:
    """The reader of the words that `prepare_words` stored."""
    names = [*SPECIAL, *json.loads(folder.joinpath(VOCABULARY).read_text(encoding='utf-8'))]
    numbers = {name: number for number, name in enumerate(names) if number >= len(SPECIAL)}

    def read(text: str) -> Pieces:
        names, offsets = word_pieces(text)
        shapes = [shape_of(text[start:stop]) for start, stop in offsets]
        return Pieces([numbers.get(name, UNKNOWN) for name in names], names, shapes, offsets)

    def ids(text: str) -> list[int]:
        return read(text).ids

    tokens = Tokens(len(names), lambda text: word_pieces(text)[0], ids, names)
    return PieceReader(tokens, read, functools.lru_cache(CACHED_TEXTS)(read), True)


def read_pretrained(folder: epath.Path, origin: str) -> PieceReader:
    """The reader of a stored tokenizer of published weights, which are named `origin` in messages."""
    tokenizer = Tokenizer.from_str(folder.joinpath(TOKENIZER).read_text(encoding='utf-8'))
    tokens = pretrained_tokens(tokenizer, origin)

    def read(text: str) -> Pieces:
        ids = encode_text(tokenizer, text)  # checks the text, and that special tokens in it are ordinary text
        offsets = tokenizer.encode(text, add_special_tokens=False).offsets
        bounds = [whole_characters(text, *without_space(text, *pair)) for pair in offsets]
        return Pieces(ids, [tokens.names[index] for index in ids], [], np.array(bounds, np.int32).reshape(-1, 2))

    return PieceReader(tokens, read, functools.lru_cache(CACHED_TEXTS)(read), False)


def without_space(text: str, start: int, stop: int) -> tuple[int, int]:
    """Bounds of a token without white space at its ends."""
    while start < stop and text[start].isspace():
        start += 1
    while start < stop and text[stop - 1].isspace():
        stop -= 1
    return start, stop


def whole_characters(text: str, start: int, stop: int) -> tuple[int, int]:
    """Extends a token by combining marks after it, which tokenizers without accents leave out."""
    while start < stop < len(text) and (text[stop] in JOINERS or unicodedata.category(text[stop])[0] == 'M'):
        stop += 1
    return start, stop
