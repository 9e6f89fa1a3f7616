"""Rows of a span corruption model: encoding, requests with sentinels, and decoding to text."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from research.data.text.corpus import decode_text, end_of
from research.data.text.corruption import corrupt_spans, fill_spans, generator_of, span_sizes, spans
from research.data.text.token_streams import CorpusStats, marked_tokens, request_text
from research.errors import UserError

SENTINEL = re.compile(r'(<extra_id_\d+>)')


class SpanSizes(NamedTuple):
    """Sizes in tokens, derived from those of a row and its spans."""

    length: int  # of a row before spans are removed
    density: float  # share of tokens to remove
    mean_span: float  # average tokens per span

    @property
    def hidden(self) -> int:
        """Tokens removed from a row."""
        return span_sizes(*self)[0]

    @property
    def spans(self) -> int:
        """Spans removed from a row, and the maximum of a request."""
        return span_sizes(*self)[1]

    @property
    def source_length(self) -> int:
        """Tokens of a source: visible tokens, a sentinel for each span, and the end."""
        return self.length - self.hidden + self.spans + 1

    @property
    def target_length(self) -> int:
        """Tokens of a target: removed tokens, a sentinel for each span and one more, and the end."""
        return self.hidden + self.spans + 2

    @property
    def sentinels(self) -> tuple[str, ...]:
        """Names of all sentinels: one for each span and one that closes the target."""
        return tuple(f'<extra_id_{number}>' for number in range(self.spans + 1))

    @property
    def positions(self) -> int:
        """Maximum length that encoder and decoder read."""
        return max(self.source_length, self.target_length + 1)


def check_sentinels(tokenizer: Tokenizer, sizes: SpanSizes, weights: str) -> None:
    """Raises UserError if the tokenizer of the weights has too few sentinels for a row."""
    missing = [name for name in sizes.sentinels if tokenizer.token_to_id(name) is None]
    if missing:
        none = missing[0] == sizes.sentinels[0]
        raise UserError(
            f'config.model.weights={weights!r}: its tokenizer has no {missing[0]}: '
            + ('it was not made for spans; use T5' if none else 'lower config.task.length or density')
        )


class SpanRows:
    """Converts texts and rows to arrays and back; can be pickled.

    `marks` are the decoder start and end tokens of pretrained weights, or None; `spaced` is whether a space before a
    sentinel belongs to the missing span.
    """

    def __init__(self, stats: CorpusStats, sizes: SpanSizes, marks: tuple[int, int] | None, spaced: bool):
        self.stats, self.sizes, self.spaced = stats, sizes, spaced or marks is not None
        self.start, self.end = marks or (end_of(stats.tokenizer),) * 2
        self.sentinels = np.array([stats.tokenizer.token_to_id(name) for name in sizes.sentinels], np.int32)

    def encode(self, raw: Mapping[str, Any], rng: Any = None) -> dict[str, np.ndarray]:
        """'source' [source length], 'source_length', and the target up to each token: 'tokens', 'length'.

        A row also has 'targets', the token after each. Spans are drawn with `rng`, so they change every epoch; without
        it, they are a function of the row. 'tokens' begin with the decoder's start (without weights, the end of the
        text before); a request has only that one.

        Raises:
          UserError: for a request that is not text, is empty or too long, or whose sentinels are not 0, 1, ...
        """
        sizes = self.sizes
        if 'tokens' not in raw:
            source = self.request(request_text(raw, f'and {sizes.sentinels[0]}'))
            return self.arrays(source, np.zeros(0, np.int32))
        tokens = np.asarray(raw['tokens'], np.int32)
        hidden = spans(len(tokens), sizes.hidden, sizes.spans, rng or generator_of(tokens))
        source, target = corrupt_spans(tokens, hidden, self.sentinels, self.end)
        return {**self.arrays(source, target[:-1]), 'targets': target}

    def arrays(self, source: np.ndarray, before: np.ndarray) -> dict[str, np.ndarray]:
        """Pads a source and the decoder input, with the start token prepended, to fixed shapes."""
        row = {'source': np.zeros(self.sizes.source_length, np.int32)}
        row['source'][: len(source)] = source
        row['tokens'] = np.full(self.sizes.target_length, self.start, np.int32)
        row['tokens'][1 : 1 + len(before)] = before
        return {**row, 'source_length': np.int32(len(source)), 'length': np.int32(1 + len(before))}  # pyright: ignore[reportReturnType]

    def request(self, text: str) -> np.ndarray:
        """Encodes a text with sentinels as a source."""
        sizes, parts = self.sizes, SENTINEL.split(text)
        written, expected = parts[1::2], list(sizes.sentinels[: len(parts) // 2])
        if not 0 < len(written) <= sizes.spans or written != expected:
            raise UserError(
                f"the request's 'text' has the sentinels {', '.join(written) or '(none)'}: write "
                f'{sizes.sentinels[0]} where something is missing, then {sizes.sentinels[1]}, and so on up to '
                f'{sizes.sentinels[sizes.spans - 1]}, each once and in order'
            )
        parts[1::2] = self.sentinels[: len(written)].tolist()
        return np.array([*marked_tokens(self.stats, parts, sizes.source_length - 1, self.spaced), self.end], np.int32)

    def decode(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The source as text, the text with its spans filled in, and the span of each sentinel."""
        source = np.asarray(outputs['source'])[: int(outputs['source_length'])].tolist()
        target = np.asarray(outputs['tokens'])[: int(outputs['length'])].tolist()
        sentinels = zip(self.sizes.sentinels, self.sentinels.tolist(), strict=True)
        filled = {name: self.filled([sentinel], target) for name, sentinel in sentinels if sentinel in source}
        return {'source': self.text(source[:-1]), 'text': self.filled(source, target), 'spans': filled}

    def describe(self, row: Mapping[str, np.ndarray]) -> dict[str, str]:
        """An encoded row as text: the source with its sentinels, the target, and the original text."""
        source = np.asarray(row['source'])[: int(row['source_length'])].tolist()
        if 'targets' not in row:
            return {'source': self.text(source)}
        target = row['targets'].tolist()
        return {'source': self.text(source), 'target': self.text(target), 'text': self.filled(source, target)}

    def filled(self, source: list[int], target: list[int]) -> str:
        """Source text with the target's spans in place of sentinels."""
        return self.text(fill_spans(source, target, self.sentinels.tolist(), self.end))

    def text(self, tokens: list[int]) -> str:
        return decode_text(self.stats.tokenizer, tokens)

    def target_counts(self) -> np.ndarray:
        """Expected count of each token in the targets of the training split."""
        counts = np.asarray(self.stats.counts, np.float64)
        rows = counts.sum() / self.sizes.length
        expected = counts * self.sizes.hidden / self.sizes.length
        expected[self.sentinels] += rows
        expected[self.end] += rows
        return expected
