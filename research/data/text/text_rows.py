"""What a language model reads: rows of a stream, the beginning of a text that it continues, and texts for a person."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from research.data.text.corpus import begin_of, decode_text
from research.data.text.token_streams import CorpusStats, request_text, request_tokens

SHOWN = 6  # pairs of a token and the next, in a description


class TextRows(NamedTuple):
    """Sizes of rows and requests, in tokens."""

    stats: CorpusStats
    length: int  # of a row, and the most positions that the model reads
    new: int  # most tokens of a continuation
    prefix: bool  # whether a first part of a row is seen by all of it and not predicted

    @property
    def prompt_limit(self) -> int:
        """The most tokens of a request, so that its continuation fits."""
        return self.length - self.new

    def encode(self, raw: Mapping[str, Any], rng: Any = None) -> dict[str, np.ndarray]:
        """'tokens' [length] and their 'length'; a row also has 'targets', the token after each.

        Packed documents come with 'segments' [length]. Prefix-LM adds 'prefix': how many first tokens all others see;
        drawn evenly from 1 to length - 1 by `rng`, without it half of the row.

        Raises:
          UserError: for a request that is no text, is empty, or leaves no room for its continuation.
        """
        length = np.int32(self.length)
        if 'tokens' in raw:
            row = dict(raw)
            if 'targets' not in raw:
                block = np.asarray(raw['tokens'], np.int32)
                row = {'tokens': block[:-1], 'targets': block[1:], 'length': length}
            if self.prefix:
                row['prefix'] = length // 2 if rng is None else np.int32(rng.integers(1, self.length))
            return row
        advice = f'at most {self.prompt_limit} leave room for {self.new} new ones'
        begin = begin_of(self.stats.tokenizer)
        text = request_text(raw, 'to continue')
        tokens = begin + request_tokens(self.stats, text, self.prompt_limit - len(begin), advice)
        padded = np.zeros(self.length, np.int32)
        padded[: len(tokens)] = tokens
        row = {'tokens': padded, 'length': np.int32(len(tokens))}
        return {**row, 'prefix': row['length']} if self.prefix else row

    def decode(self, outputs: Mapping[str, np.ndarray]) -> dict[str, str]:
        """The prompt and its continuation as text."""

        def text(name: str, length: str) -> str:
            return plain_text(self.stats.tokenizer, np.asarray(outputs[name])[: int(outputs[length])])

        return {'prompt': text('prompt', 'prompt_length'), 'text': text('tokens', 'length')}

    def describe(self, row: Mapping[str, np.ndarray]) -> dict[str, str]:
        """An encoded row as text, its target, and the first pairs of a token and the next."""
        tokenizer, length = self.stats.tokenizer, int(row['length'])
        fields = {'text': decode_text(tokenizer, row['tokens'][:length])}
        if 'segments' in row:
            parts = (row['tokens'][row['segments'] == part] for part in range(int(row['segments'].max()) + 1))
            fields['text'] = '\n| next document |\n'.join(decode_text(tokenizer, part) for part in parts)
        if 'targets' in row:
            start = int(row.get('prefix', 1)) - 1
            fields['target'] = decode_text(tokenizer, row['targets'][start:length])
            pairs = list(zip(row['tokens'][start:length], row['targets'][start:length], strict=True))[:SHOWN]
            words = ([decode_text(tokenizer, [token]) for token in pair] for pair in pairs)
            fields['token and the next'] = ', '.join(f'{token!r} {following!r}' for token, following in words) + ', ...'
        return fields


def plain_text(tokenizer: Tokenizer, tokens: Any) -> str:
    """Tokens as text without special ones."""
    return tokenizer.decode(np.asarray(tokens).tolist(), skip_special_tokens=True)


def row_prompt(row: Mapping[str, Any]) -> Any:
    """How many tokens of a row, or of each row of a batch, are continued: half of it, or of its first document."""
    length, segments = row['length'], row.get('segments')
    first = length if segments is None else (segments == 0).sum(-1).astype(length.dtype)
    return first // 2 + (first < 2)  # at least one
