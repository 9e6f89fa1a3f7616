"""Encoder-decoder Transformers: the 2017 Transformer, T5 and Marian, depending on their settings."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.nn.layers import Head, embedding
from research.nn.tap import tap
from research.nn.transformer import Cache, Stack, empty_cache
from research.nn.transformer_settings import TransformerSettings
from research.ops.attention import Mask


class EncoderDecoder(nn.Module):
    """Embedding, encoder, decoder with cross-attention, and logits (Vaswani et al. 2017, arXiv:1706.03762)."""

    settings: TransformerSettings
    train: bool = False

    def setup(self):
        """Defines tokens, source_tokens (with a separate source vocabulary), encoder, decoder, head."""
        settings = self.settings
        self.tokens = embedding(settings, settings.vocabulary)
        if settings.source_vocabulary:
            self.source_tokens = embedding(settings, settings.source_vocabulary)
        self.encoder = Stack(settings.encoder, self.train)
        self.decoder = Stack(settings.decoder, self.train, cross=True)
        self.head = Head(settings)

    def __call__(
        self,
        source: Int[Array, 'batch source_length'],
        source_length: Int[Array, 'batch'] | None,
        tokens: Int[Array, 'batch length'],
        length: Int[Array, 'batch'] | None = None,
        source_segments: Int[Array, 'batch source_length'] | None = None,
        segments: Int[Array, 'batch length'] | None = None,
    ) -> Float[Array, 'batch length vocabulary']:
        """Computes float32 logits of the token that follows each of `tokens`.

        Args:
          source, tokens: right-padded ids; `tokens` are the targets shifted right by one, after a start token.
          source_length, length: tokens of each row without padding; None if no row is padded.
          source_segments, segments: the packed pair each token belongs to; None for one pair per row.

        Raises:
          UserError: if there are more positions than `settings.length`.
        """
        memory = self.encode(source, source_length, source_segments)
        mask = Mask(
            key_length=source_length,
            query_segments=segments,
            key_segments=None if segments is None else source_segments,
        )
        entered = tap(self.decoder, 'embedding', self.tokens(tokens))
        x, _ = self.decoder.read(entered, length, segments, memory=memory, memory_mask=mask)
        return self.logits(x)

    def encode(
        self,
        source: Int[Array, 'batch length'],
        source_length: Int[Array, 'batch'] | None = None,
        source_segments: Int[Array, 'batch length'] | None = None,
    ) -> Float[Array, 'batch length width']:
        """Encodes a source; returns the memory, the encoder's last hidden states."""
        embed = self.source_tokens if self.settings.source_vocabulary else self.tokens
        entered = tap(self.encoder, 'embedding', embed(source))  # a separate tap: encoder and decoder may share a table
        return self.encoder.read(entered, source_length, source_segments)[0]

    def start_cache(
        self, memory: Float[Array, 'batch length width'], source_length: Int[Array, 'batch'], capacity: int
    ) -> Cache:
        """Creates a cache for `capacity` target positions, filled with each layer's keys and values of the memory.

        Leaves are those of `empty_cache`, and cross_key, cross_value: for each layer [batch, key heads, source length,
        head width]; source_length: int32 [batch]. Every leaf has the batch axis first, so rows can be permuted.
        """
        settings = self.settings.decoder
        batch = memory.shape[0]
        cross = empty_cache(settings, batch, memory.shape[1])
        cache = {
            **empty_cache(settings, batch, capacity),
            'cross_key': cross['key'],
            'cross_value': cross['value'],
            'source_length': jnp.asarray(source_length, jnp.int32),
        }
        # One dummy token goes through the decoder, so that each layer stores its cross keys and values. The
        # first step overwrites the dummy's own keys and values.
        first = self.tokens(jnp.zeros((batch, 1), jnp.int32))
        mask = Mask(key_length=source_length)
        _, cache = self.decoder.read(first, cache=cache, memory=memory, memory_mask=mask)
        return cache

    def extend(
        self, cache: Cache, tokens: Int[Array, 'batch length'], length: Int[Array, 'batch'] | None = None
    ) -> tuple[Cache, Float[Array, 'batch length width']]:
        """Reads further tokens of each row; returns (cache, hidden states).

        `length` counts the tokens of each row without padding, which is not written to the cache; None: no padding.
        """
        position, mask = cache['position'], Mask(key_length=cache['source_length'])
        x, cache = self.decoder.read(
            self.tokens(tokens), length, cache=cache, read_from=position, memory_mask=mask
        )
        return {**cache, 'position': position + (tokens.shape[1] if length is None else length)}, x

    def step(
        self, cache: Cache, tokens: Int[Array, 'batch']
    ) -> tuple[Cache, Float[Array, 'batch vocabulary']]:
        """Reads one more token per row; returns (cache, float32 logits of the next token)."""
        cache, x = self.extend(cache, tokens[:, None])
        return cache, self.logits(x)[:, 0]

    def logits(self, x: Float[Array, 'batch length width']) -> Float[Array, 'batch length vocabulary']:
        """Projects hidden states to float32 logits."""
        return self.head(x, self.tokens.embedding)
