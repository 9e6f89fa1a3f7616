"""Rows of a masked model: encoding with hidden tokens, requests with [MASK], and decoding to text."""

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
    end: tuple[int, ...] = ()  # after every row

    @property
    def around(self) -> int:
        """Number of tokens of a row that are not text."""
        return len(self.begin) + len(self.end)

    def inside(self, tokens: Any) -> Any:
        """A row without its begin and end tokens."""
        return tokens[len(self.begin) : len(tokens) - len(self.end)]


def marks_of(tokenizer: Tokenizer, weights: str) -> Marks:
    """The special tokens of the task's own tokenizer, or of that of `weights`.

    Raises:
      UserError: if the tokenizer of the weights has no mask, begin or end token.
    """
    if not weights:
        return Marks(tokenizer.token_to_id(MASK), (MASK,))  # pyright: ignore[reportArgumentType]
    known = [name for name in (MASK, '<mask>') if tokenizer.token_to_id(name) is not None]
    if not known:
        raise UserError(
            f'config.model.weights={weights!r}: its tokenizer has no {MASK} or <mask>, so no token can be masked: use '
            'weights of a masked model (BERT, RoBERTa, DistilBERT)'
        )
    special = pretrained_tokens(tokenizer, f'config.model.weights={weights!r}')
    names = tuple(dict.fromkeys((known[0], MASK)))
    return Marks(tokenizer.token_to_id(known[0]), names, (special.begin,), (special.end,))  # pyright: ignore[reportArgumentType]


class Masking(NamedTuple):
    """How rows are masked; lengths are in tokens."""

    length: int  # of a row, including its marks
    count: int  # maximum number of predicted tokens
    shares: tuple[float, float]  # of those: replaced by the mask, by a random token
    whole_words: bool
    spaced: bool  # a space before a mask belongs to the masked word


def block_length(length: int, marks: Marks) -> int:
    """Number of text tokens in a row of `length`; raises UserError if there are none."""
    if length <= marks.around:
        raise UserError(f'config.task.length={length}: {marks.around} tokens of a row are its begin and end')
    return length - marks.around


class MaskedRows:
    """Converts texts and rows to arrays and back; can be pickled."""

    def __init__(self, stats: CorpusStats, masking: Masking, marks: Marks):
        self.stats, self.masking, self.marks = stats, masking, marks
        self.words, self.block = Words(stats.tokenizer), block_length(masking.length, marks)
        unusual = self.words.special.copy()
        if (unknown := stats.tokenizer.token_to_id(UNKNOWN)) is not None:
            unusual[unknown] = True
        self.replacements = np.flatnonzero(~unusual)

    def encode(self, raw: Mapping[str, Any], rng: Any = None) -> dict[str, np.ndarray]:
        """'tokens' [length], 'length', 'positions' [count] to guess, 'count' of them; rows have 'targets' [count].

        Masks are drawn with `rng`, so they change every epoch; without it, they are a function of the row.

        Raises:
          UserError: for a request that is not text, is empty or too long, or has no or too many [MASK].
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
        """Adds the begin and end tokens to a text."""
        return np.concatenate([self.marks.begin, tokens, self.marks.end]).astype(np.int32)

    def request(self, text: str) -> dict[str, np.ndarray]:
        """Encodes a text with masks."""
        texts = re.split('|'.join(map(re.escape, self.marks.names)), text)
        masks, limit = len(texts) - 1, self.masking.count
        if not 0 < masks <= limit:
            raise UserError(f"the request's 'text' has {masks} {MASK}, and 1 to {limit} can be guessed")
        parts = [part for piece in texts for part in (piece, self.marks.mask)][:-1]
        tokens = self.framed(marked_tokens(self.stats, parts, self.block, self.masking.spaced))
        return self.pad(tokens, np.flatnonzero(tokens == self.marks.mask))

    def pad(self, tokens: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Pads to the fixed shapes."""
        row = {'tokens': np.zeros(self.masking.length, np.int32), 'positions': np.zeros(self.masking.count, np.int32)}
        row['tokens'][: len(tokens)], row['positions'][: len(positions)] = tokens, positions
        return {**row, 'length': np.int32(len(tokens)), 'count': np.int32(len(positions))}  # pyright: ignore[reportReturnType]

    def decode(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The input text, the text with the most probable tokens filled in, and the candidates of each hidden token.

        A candidate has its 'id', and the 'text' in which it alone replaces its hidden token.
        """
        count, tokens = int(outputs['count']), np.array(outputs['tokens'])[: int(outputs['length'])]
        positions = np.asarray(outputs['positions'])[:count]
        masked = self.text(self.marks.inside(tokens))
        rows = zip(positions, outputs['candidates'][:count], outputs['probabilities'][:count], strict=True)
        candidates = [
            [
                {
                    'token': self.text([token]), 'id': int(token), 'probability': round(float(probability), 4),
                    'text': self.filled(tokens, position, token),
                }
                for token, probability in zip(best, probabilities, strict=True)
            ]
            for position, best, probabilities in rows
        ]  # fmt: skip
        text = self.filled(tokens, positions, np.asarray(outputs['candidates'])[:count, 0])
        return {'masked': masked, 'text': text, 'candidates': candidates}

    def filled(self, tokens: np.ndarray, positions: Any, values: Any) -> str:
        """The text of tokens with those at some positions replaced."""
        whole = tokens.copy()
        whole[positions] = values
        return self.text(self.marks.inside(whole))

    def describe(self, row: Mapping[str, np.ndarray]) -> dict[str, str]:
        """An encoded row as text: masked text, and each target with the token shown in its place."""
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
        return decode_text(self.stats.tokenizer, tokens)
