"""One Transformer for every published shape; a stack of blocks whose parameters are always stored stacked.

Decoder-only and encoder-only here, with its logits; both together in `encoder_decoder`. `scan` chooses how the
stack runs, never how it is stored.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.errors import UserError
from research.nn.layers import Block, BlockContext, Head, dense, embedding, normalize
from research.nn.positions import angles, frequencies, in_segments, relative_bias, sinusoids, stretch
from research.nn.tap import DELTAS, OBSERVED, tap
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


class Stack(nn.Module):
    """Positions, blocks and the last norm: a Transformer between its embedding and its logits."""

    settings: TransformerSettings
    train: bool = False
    cross: bool = False  # blocks attend to a memory too

    def setup(self):
        """Names the parts: positions, types, embedding_norm, relative, blocks, final_norm, where there are any."""
        settings, still = self.settings, not self.train
        if settings.positions == 'learned':
            self.positions = embedding(settings, settings.length + settings.position_offset)
        if settings.types:
            self.types = embedding(settings, settings.types)
        if settings.embedding_norm:
            self.embedding_norm = normalize(settings)
        if settings.positions == 'relative':
            initial = nn.initializers.normal(settings.width**-0.5)  # T5's own start
            self.relative = nn.Embed(settings.relative_buckets, settings.heads, embedding_init=initial)
        self.embedding_drop = nn.Dropout(settings.embedding_dropout, deterministic=still)
        self.blocks = stacked_blocks(settings, self.train, self.cross)
        if settings.norm_position == 'pre':
            self.final_norm = normalize(settings)
        self.output_drop = nn.Dropout(settings.output_dropout, deterministic=still)

    def read(
        self, x, length=None, segments=None, prefix=None, cache=None, read_from=None, types=None,
        memory=None, memory_mask=None,
    ):  # fmt: skip
        """Returns hidden states and cache of embedded tokens x; other arguments as of `Transformer`, `BlockContext`."""
        settings, count = self.settings, x.shape[1]
        settings.check_length(count)
        offsets = jnp.arange(count)[None]
        places = offsets if read_from is None else offsets + read_from[:, None]
        mask = Mask(
            causal=settings.causal,
            window=settings.window,
            prefix=prefix,
            key_length=length,
            query_segments=segments,
            key_segments=segments,
            query_positions=None if read_from is None else places,
        )
        positions = places if segments is None else in_segments(segments)
        bias = None
        if settings.positions == 'relative':
            keys = count if read_from is None else cache['key'].shape[2]
            table = self.relative.embedding
            bias = relative_bias(table, places, keys, not settings.causal, settings.relative_distance)
        around = BlockContext(mask, turns_of(settings, positions), bias, memory, memory_mask)
        x = constrain(self.enter(x, positions, types), BATCH)
        (x, cache), _ = self.blocks((x, cache), jnp.arange(settings.layers), around)
        if settings.norm_position == 'pre':
            x = self.final_norm(x)
        return self.output_drop(x), cache

    def enter(self, x: Array, positions: Int[Array, '#batch length'], types: Any) -> Array:
        """Returns what the first block reads: tokens with their positions and types, normed, dropped out."""
        settings = self.settings
        if settings.embedding_scale:
            x = x * jnp.asarray(settings.width**0.5, x.dtype)
        if settings.types:
            x = x + self.types(jnp.zeros(x.shape[:2], jnp.int32) if types is None else types)
        elif types is not None:
            raise UserError('tokens have types, but config.model.types is 0: say how many types there are')
        if settings.positions == 'learned':
            x = x + self.positions(positions + settings.position_offset)
        elif settings.positions in ('sinusoidal', 'halves'):
            x = x + sinusoids(positions, settings.width, settings.positions == 'halves').astype(x.dtype)
        return self.embedding_drop(self.embedding_norm(x) if settings.embedding_norm else x)


class Transformer(nn.Module):
    """Token embedding, positions, a stack of blocks, and logits."""

    settings: TransformerSettings
    train: bool = False

    def setup(self):
        """Names the parts: those of `Stack`, tokens, head (unless it is just the embedding), pooler."""
        self.tokens = embedding(self.settings, self.settings.vocabulary)
        self.stack = Stack(self.settings, self.train)
        nn.share_scope(self, self.stack)  # its parameters stand beside the others
        self.head = Head(self.settings)
        if self.settings.pooler:
            self.pooler = dense(self.settings, self.settings.width, True)

    def __call__(
        self,
        tokens: Int[Array, 'batch length'],
        length: Int[Array, 'batch'] | None = None,
        segments: Int[Array, 'batch length'] | None = None,
        prefix: Int[Array, 'batch'] | None = None,
        cache: Cache | None = None,
        read_from: Int[Array, 'batch'] | None = None,
        types: Int[Array, 'batch length'] | None = None,
    ) -> tuple[Float[Array, 'batch length vocabulary'], Cache | None]:
        """Returns float32 logits at every position, of the next token or its own, and the cache with these tokens.

        Args:
          tokens: ids, right-padded.
          length: tokens of each row that are not padding; None where all are (or causality hides the rest).
          segments: which packed text each token belongs to; None for one text a row. Positions restart with
            each.
          prefix: first tokens of each row that all positions see (prefix-LM).
          cache: see `empty_cache`; None computes without one.
          read_from: position of each row's first token here, so that earlier ones are read from the cache;
            None starts rows at 0.
          types: of each token (BERT's segments); None where all are 0.

        Raises:
          UserError: for more positions than the model reads, and types where it has none.
        """
        x, cache = self.features(tokens, length, segments, prefix, cache, read_from, types)
        if self.settings.pooler and self.is_initializing():
            self.pooled(x)
        return self.logits(x), cache

    def features(
        self, tokens, length=None, segments=None, prefix=None, cache=None, read_from=None, types=None
    ):
        """Returns the last hidden states [batch, length, width] and the cache; arguments as in `__call__`."""
        x = tap(self, 'embedding', self.tokens(tokens))
        return self.stack.read(x, length, segments, prefix, cache, read_from, types)

    def pooled(self, x: Float[Array, 'batch length width']) -> Float[Array, 'batch width']:
        """Returns tanh(dense(first position)) of hidden states: BERT's summary of a text."""
        return jnp.tanh(self.pooler(x[:, 0]))

    def logits(self, x: Float[Array, 'batch length width']) -> Float[Array, 'batch length vocabulary']:
        """Returns float32 logits of hidden states."""
        return self.head(x, self.tokens.embedding)


def turns_of(settings: TransformerSettings, positions: Int[Array, '#batch length']) -> Array | None:
    """Returns the rotary angles of positions, or None where they are marked otherwise."""
    if settings.positions != 'rotary':
        return None
    if not settings.rotary_length:
        return angles(positions, settings.width_of_head, settings.rotary_base)
    turns = stretch(
        frequencies(settings.width_of_head, settings.rotary_base),
        settings.rotary_factor, settings.rotary_low, settings.rotary_high, settings.rotary_length,
    )  # fmt: skip
    return positions[..., None].astype(jnp.float32) * turns


def stacked_blocks(settings: TransformerSettings, train: bool, cross: bool = False) -> nn.Module:
    """Returns the stack as one scanned block with a leading layer axis, to run as a loop or unrolled."""
    block = Block
    if settings.remat:  # a loop body is not merged with its recomputation; unrolled code would be
        block = nn.remat(Block, prevent_cse=not settings.scan)
    scanned = nn.scan(
        block,
        variable_axes={'params': 0, OBSERVED: 0, DELTAS: 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=(0, nn.broadcast),
        length=settings.layers,
        unroll=1 if settings.scan else settings.layers,
        metadata_params={nn.PARTITION_NAME: 'layers'},
    )
    return scanned(settings, train, cross)
