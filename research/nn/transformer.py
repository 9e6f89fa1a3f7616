"""One Transformer for every published shape; a stack of blocks whose parameters are always stored stacked.

Today it is decoder-only or encoder-only. `scan` chooses how the stack runs, never how it is stored.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.nn.layers import Block, dense, normalize
from research.nn.positions import angles, sinusoids
from research.nn.transformer_settings import TransformerSettings
from research.ops.attention import Mask
from research.ops.constrain import BATCH, constrain

Cache = dict[str, Array]


def empty_cache(settings: TransformerSettings, batch: int, capacity: int) -> Cache:
    """Returns a cache for `batch` rows of `capacity` positions; every leaf has the batch axis first.

    key, value: [batch, layers, capacity, key heads, head width] in the compute type; position: int32 [batch],
    where the next token of each row will stand. Rows may be replaced one by one (continuous batching).
    """
    shape = (batch, settings.layers, capacity, settings.key_heads, settings.width_of_head)
    return {
        'key': jnp.zeros(shape, settings.dtype),
        'value': jnp.zeros(shape, settings.dtype),
        'position': jnp.zeros((batch,), jnp.int32),
    }


class Transformer(nn.Module):
    """Token embedding, positions, a stack of blocks, and logits."""

    settings: TransformerSettings
    train: bool = False

    def setup(self):
        """Names the parts: tokens, positions (learned), blocks, final_norm (pre-norm), head (untied)."""
        settings = self.settings
        embed = nn.initializers.normal(settings.initial_scale)
        shared = {'features': settings.width, 'dtype': settings.dtype, 'embedding_init': embed}
        self.tokens = nn.Embed(settings.vocabulary, **shared)
        if settings.positions == 'learned':
            self.positions = nn.Embed(settings.length, **shared)
        self.embedding_drop = nn.Dropout(settings.embedding_dropout, deterministic=not self.train)
        self.blocks = stacked_blocks(settings, self.train)
        if settings.norm_position == 'pre':
            self.final_norm = normalize(settings)
        if not settings.tie_embedding:
            self.head = dense(settings, settings.vocabulary, False)

    def __call__(
        self,
        tokens: Int[Array, 'batch length'],
        length: Int[Array, 'batch'] | None = None,
        segments: Int[Array, 'batch length'] | None = None,
        prefix: Int[Array, 'batch'] | None = None,
        cache: Cache | None = None,
        read_from: Int[Array, 'batch'] | None = None,
    ) -> tuple[Float[Array, 'batch length vocabulary'], Cache | None]:
        """Returns float32 logits of the next token at every position, and the cache with these tokens in it.

        Args:
          tokens: ids, right-padded.
          length: tokens of each row that are not padding; None where all are (or causality hides the rest).
          segments: which packed text each token belongs to; None for one text a row.
          prefix: first tokens of each row that all positions see (prefix-LM).
          cache: see `empty_cache`; None computes without one.
          read_from: position of each row's first token here, so that earlier ones are read from the cache;
            None starts rows at 0.
        """
        x, cache = self.features(tokens, length, segments, prefix, cache, read_from)
        return self.logits(x), cache

    def features(self, tokens, length=None, segments=None, prefix=None, cache=None, read_from=None):
        """Returns the last hidden states [batch, length, width] and the cache; arguments as in `__call__`."""
        settings = self.settings
        offsets = jnp.arange(tokens.shape[1])[None]
        positions = offsets if read_from is None else offsets + read_from[:, None]
        mask = Mask(
            causal=settings.causal,
            window=settings.window,
            prefix=prefix,
            key_length=length,
            query_segments=segments,
            key_segments=segments,
            query_positions=None if read_from is None else positions,
        )
        x = constrain(self.embedding_drop(self.tokens(tokens) + self.place(positions)), BATCH)
        turns = None
        if settings.positions == 'rotary':
            turns = angles(positions, settings.width_of_head, settings.rotary_base)
        (x, cache), _ = self.blocks((x, cache), jnp.arange(settings.layers), mask, turns)
        if settings.norm_position == 'pre':
            x = self.final_norm(x)
        return x, cache

    def place(self, positions: Int[Array, '#batch length']) -> Any:
        """Returns what the kind of positions adds to the token embedding."""
        if self.settings.positions == 'learned':
            return self.positions(positions)
        if self.settings.positions == 'sinusoidal':
            return sinusoids(positions, self.settings.width).astype(self.settings.dtype)
        return jnp.zeros((), self.settings.dtype)

    def logits(self, x: Float[Array, 'batch length width']) -> Float[Array, 'batch length vocabulary']:
        """Returns float32 logits; products are in the compute type, sums in float32."""
        if self.settings.tie_embedding:
            table = self.tokens.embedding.astype(self.settings.dtype)
            return jnp.einsum('blw,vw->blv', x, table, preferred_element_type=jnp.float32)
        return self.head(x).astype(jnp.float32)


def stacked_blocks(settings: TransformerSettings, train: bool) -> nn.Module:
    """Returns the stack as one scanned block with a leading layer axis, to run as a loop or unrolled."""
    block = Block
    if settings.remat:  # a loop body is not merged with its recomputation; unrolled code would be
        block = nn.remat(Block, prevent_cse=not settings.scan)
    scanned = nn.scan(
        block,
        variable_axes={'params': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=(0, nn.broadcast, nn.broadcast),
        length=settings.layers,
        unroll=1 if settings.scan else settings.layers,
        metadata_params={nn.PARTITION_NAME: 'layers'},
    )
    return scanned(settings, train)
