"""What a masked model reads: rows some of whose tokens are hidden, requests with [MASK], and texts for a person."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from research.data.text.corpus import UNKNOWN, decode_text
from research.data.text.corruption import generator_of, mask_tokens
from research.data.text.token_streams import CorpusStats, marked_tokens, request_text
from research.data.text.tokens import pretrained_tokens
from research.data.text.words import Words
from research.errors import UserError

MASK = '[MASK]'


class Marks(NamedTuple):
    """The special tokens of rows."""

    mask: int
    names: tuple[str, ...]  # of the mask, in requests
    begin: tuple[int, ...] = ()  # before every row
    end: tuple[int, ...] = ()  # behind it

    @property
    def around(self) -> int:
        """How many tokens of a row are not of its text."""
        return len(self.begin) + len(self.end)

    def inside(self, tokens: Any) -> Any:
        """The tokens of a row without those before and behind."""
        return tokens[len(self.begin) : len(tokens) - len(self.end)]


def marks_of(tokenizer: Tokenizer, weights: str) -> Marks:
    """The marks of a tokenizer, of the task's own or of `weights`.

    Raises:
      UserError: where the tokenizer of weights has no mask, or nothing to frame a row with.
    """
    if not weights:
        return Marks(tokenizer.token_to_id(MASK), (MASK,))  # pyright: ignore[reportArgumentType]
    known = [name for name in (MASK, '<mask>') if tokenizer.token_to_id(name) is not None]
    if not known:
        raise UserError(
            f'config.model.weights={weights!r}: its tokenizer has no {MASK} or <mask>, so nothing can be hidden: take '
            'weights of a masked model (BERT, RoBERTa, DistilBERT)'
        )
    special = pretrained_tokens(tokenizer, f'config.model.weights={weights!r}')
    names = tuple(dict.fromkeys((known[0], MASK)))
    return Marks(tokenizer.token_to_id(known[0]), names, (special.begin,), (special.end,))  # pyright: ignore[reportArgumentType]


class Masking(NamedTuple):
    """How rows are masked; lengths are in tokens."""

    length: int  # of a row, its marks included
    count: int  # the most tokens that are guessed
    shares: tuple[float, float]  # of those, shown as the mask and as a random token
    whole_words: bool
    spaced: bool  # a space before a mask belongs to the word that it hides


def block_length(length: int, marks: Marks) -> int:
    """How many of the `length` tokens of a row are text; a `UserError` where there are none."""
    if length <= marks.around:
        raise UserError(f'config.task.length={length}: {marks.around} tokens of a row are its begin and end')
    return length - marks.around


class MaskedRows:
    """Texts and rows to arrays and back; holds which tokens are words, and can be pickled."""

    def __init__(self, stats: CorpusStats, masking: Masking, marks: Marks):
        self.stats, self.masking, self.marks = stats, masking, marks
        self.words, self.block = Words(stats.tokenizer), block_length(masking.length, marks)
        unusual = self.words.special.copy()
        if (unknown := stats.tokenizer.token_to_id(UNKNOWN)) is not None:
            unusual[unknown] = True
        self.replacements = np.flatnonzero(~unusual)

    def encode(self, raw: Mapping[str, Any], rng: Any = None) -> dict[str, np.ndarray]:
        """'tokens' [length], 'length', 'positions' [count] to guess, 'count' of them; rows have 'targets' [count].

        Masks are drawn by `rng`, anew in every epoch; without it they follow from the row itself.

        Raises:
          UserError: for a request that is no text, is empty or too long, or has no [MASK] or too many.
        """
        masking = self.masking
        if 'tokens' not in raw:
            return self.request(request_text(raw, f'and {MASK}'))
        tokens = self.framed(raw['tokens'])
        groups = self.words(tokens)
        if not masking.whole_words:
            groups = np.where(groups < 0, -1, np.arange(len(tokens)))
        masked = mask_tokens(
            tokens, groups, masking.count, self.marks.mask, self.replacements, masking.shares,
            rng or generator_of(tokens),
        )  # fmt: skip
        row = self.pad(masked.tokens, masked.positions)
        targets = np.zeros(masking.count, np.int32)
        targets[: len(masked.targets)] = masked.targets
        return {**row, 'targets': targets}

    def framed(self, tokens: Any) -> np.ndarray:
        """The tokens of a text as the model reads them."""
        return np.concatenate([self.marks.begin, tokens, self.marks.end]).astype(np.int32)

    def request(self, text: str) -> dict[str, np.ndarray]:
        """A text with masks as arrays."""
        texts = re.split('|'.join(map(re.escape, self.marks.names)), text)
        masks, limit = len(texts) - 1, self.masking.count
        if not 0 < masks <= limit:
            raise UserError(f"the request's 'text' has {masks} {MASK}, and 1 to {limit} can be guessed")
        parts = [part for each in texts for part in (each, self.marks.mask)][:-1]
        tokens = self.framed(marked_tokens(self.stats, parts, self.block, self.masking.spaced))
        return self.pad(tokens, np.flatnonzero(tokens == self.marks.mask))

    def pad(self, tokens: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
        """The fixed shapes."""
        row = {'tokens': np.zeros(self.masking.length, np.int32), 'positions': np.zeros(self.masking.count, np.int32)}
        row['tokens'][: len(tokens)], row['positions'][: len(positions)] = tokens, positions
        return {**row, 'length': np.int32(len(tokens)), 'count': np.int32(len(positions))}  # pyright: ignore[reportReturnType]

    def decode(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The text as it was read, the text filled with the likeliest tokens, and all candidates."""
        count, tokens = int(outputs['count']), np.array(outputs['tokens'])[: int(outputs['length'])]
        masked = self.text(self.marks.inside(tokens))
        tokens[np.asarray(outputs['positions'])[:count]] = np.asarray(outputs['candidates'])[:count, 0]
        rows = zip(outputs['candidates'][:count], outputs['probabilities'][:count], strict=True)
        candidates = [
            [
                {'token': self.text([token]), 'probability': round(float(probability), 4)}
                for token, probability in zip(*row, strict=True)
            ]
            for row in rows
        ]
        return {'masked': masked, 'text': self.text(self.marks.inside(tokens)), 'candidates': candidates}

    def describe(self, row: Mapping[str, np.ndarray]) -> dict[str, str]:
        """An encoded row as text with its masks, and the target: each hidden token and what is shown there."""
        count = int(row['count'])
        fields = {'masked text': self.text(row['tokens'][: int(row['length'])])}
        if 'targets' in row:
            shown = row['tokens'][row['positions'][:count]]
            pairs = zip(row['positions'][:count].tolist(), row['targets'][:count], shown, strict=True)
            fields['target'] = ', '.join(
                f'{position}: {self.text([target])!r} shown as {self.text([token])!r}'
                for position, target, token in pairs
            )
        return fields

    def text(self, tokens: Any) -> str:
        """Tokens as text, special ones by name."""
        return decode_text(self.stats.tokenizer, tokens)
