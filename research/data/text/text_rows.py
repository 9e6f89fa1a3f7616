"""Rows of a language model: blocks of a stream, prompts to continue, and decoding to text."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from research.data.text.corpus import begin_of, decode_text
from research.data.text.token_streams import CorpusStats, request_text, request_tokens

MAX_PAIRS = 6  # pairs of a token and the next, in a description


class TextRows(NamedTuple):
    """Sizes of rows and requests, in tokens."""

    stats: CorpusStats
    length: int  # of a row, and the number of positions that the model reads
    new: int  # maximum tokens of a continuation
    prefix: bool  # prefix-LM: all tokens attend to the first part of a row, which is not predicted

    @property
    def prompt_limit(self) -> int:
        """Maximum tokens of a request, so that its continuation fits."""
        return self.length - self.new

    def encode(self, raw: Mapping[str, Any], rng: Any = None) -> dict[str, np.ndarray]:
        """'tokens' [length] and their 'length'; a row also has 'targets', the token after each.

        Packed documents have 'segments' [length]. Prefix-LM adds 'prefix', the length of the prefix: uniform from 1 to
        length - 1 with `rng`, half of the row without.

        Raises:
          UserError: for a request that is not text, is empty, or leaves no room for its continuation.
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
            pairs = list(zip(row['tokens'][start:length], row['targets'][start:length], strict=True))[:MAX_PAIRS]
            texts = ([decode_text(tokenizer, [token]) for token in pair] for pair in pairs)
            fields['token and the next'] = ', '.join(f'{token!r} {following!r}' for token, following in texts) + ', ...'
        return fields


def plain_text(tokenizer: Tokenizer, tokens: Any) -> str:
    """Decodes tokens without special ones."""
    return tokenizer.decode(np.asarray(tokens).tolist(), skip_special_tokens=True)


def row_prompt(row: Mapping[str, Any]) -> Any:
    """Length of the prompt of a row, or of each row of a batch: half of it, or of its first document."""
    length, segments = row['length'], row.get('segments')
    first = length if segments is None else (segments == 0).sum(-1).astype(length.dtype)
    return first // 2 + (first < 2)  # at least one
