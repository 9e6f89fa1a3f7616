"""Inputs of a translation model: packed rows, pairs and requests as arrays, and decoding to text."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.data.text.corpus import encode_text
from research.data.text.pair_packing import pack
from research.data.text.pair_rows import Tokenizers, tokens_of
from research.data.text.text_rows import plain_text
from research.errors import UserError


class PairArrays(NamedTuple):
    """Tokenizers of both sides, and sizes in tokens."""

    tokenizers: Tokenizers
    length: int  # maximum of one text, including its end
    row_length: int  # of a packed row, on each side

    def encode(self, raw: Mapping[str, Any], rng: Any = None) -> dict[str, Any]:
        """Encodes a packed row, a pair, or a request.

        A packed row: 'source', 'source_segments', 'tokens' (the decoder's input), 'targets' and 'segments', each
        [row_length]. A pair: 'source' and 'targets' [length], 'tokens' [length], and their lengths 'source_length'
        and 'length'; longer texts are truncated. A request: its 'source', and 'tokens' [1], the start.

        Raises:
          UserError: for a request that is not text, is empty, or too long.
        """
        del rng  # nothing is augmented
        start = self.tokenizers.start
        if 'sources' in raw:
            return encode_packed(raw, self.row_length, start)
        if 'target' in raw:
            source, target = (
                tokens[: self.length] for tokens in tokens_of(self.tokenizers, (raw['source'], raw['target']))
            )
            return {
                **padded(source, self.length),
                'tokens': pack([np.array([start, *target[:-1]])], self.length)[0],
                'targets': pack([np.array(target)], self.length)[0],
                'length': np.int32(len(target)),
            }
        source = padded(self.request_tokens(raw), self.length)
        return {**source, 'tokens': np.array([start], np.int32), 'length': np.int32(1)}

    def request_tokens(self, raw: Mapping[str, Any]) -> list[int]:
        """Tokens of a request's source, including its end."""
        text = raw.get('source')
        if not isinstance(text, str):
            raise UserError("the request has no 'source', or it is not a string")
        if not text.strip():
            raise UserError("the request's 'source' is empty: give a text to translate")
        if len(text) > self.text_limit():
            raise UserError(
                f"the request's 'source' has {len(text)} characters; {self.length} tokens hold {self.text_limit()}"
            )
        tokens = self.tokenizers.encode_source(text.strip())
        if len(tokens) > self.length:
            raise UserError(
                f"the request's 'source' has {len(tokens)} tokens with its end; the model reads "
                f'{self.length}: shorten it, or give its sentences one by one'
            )
        return tokens

    def text_limit(self) -> int:
        """Maximum number of characters that the tokens of a source can represent."""
        return self.length * max(map(len, self.tokenizers.source.get_vocab()))

    def decode(self, outputs: Mapping[str, np.ndarray]) -> dict[str, str]:
        """The source, without the common prefix, and its translation as text."""
        tokenizers = self.tokenizers
        source = plain_text(tokenizers.source, np.asarray(outputs['source'])[: int(outputs['source_length'])])
        prefix = encode_text(tokenizers.source, tokenizers.prefix)
        prefix = plain_text(tokenizers.source, prefix).strip()  # as the tokenizer reproduces it
        return {
            'source': source.removeprefix(prefix).lstrip() if prefix else source,
            'text': plain_text(tokenizers.target, np.asarray(outputs['tokens'])[: int(outputs['length'])]),
        }


def encode_packed(raw: Mapping[str, Any], length: int, start: int) -> dict[str, np.ndarray]:
    """Encodes a packed row; the decoder reads every target after the token `start`."""
    source, source_segments = pack(raw['sources'], length)
    targets, segments = pack(raw['targets'], length)
    tokens, _ = pack([np.concatenate([[start], text[:-1]]) for text in raw['targets']], length)
    return {
        'source': source, 'source_segments': source_segments,
        'tokens': tokens, 'targets': targets, 'segments': segments,
    }  # fmt: skip


def padded(source: Sequence[int], length: int) -> dict[str, Any]:
    return {'source': pack([np.asarray(source)], length)[0], 'source_length': np.int32(len(source))}
