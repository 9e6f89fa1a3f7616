"""Decoder-only and encoder-only Transformers of all published shapes; `encoder_decoder` combines the two.

The parameters of the blocks are always stored stacked; `scan` only selects how the stack runs. With a cache, the layers
always run one by one.
"""

import operator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.errors import SettingError
from research.nn.layers import Block, BlockContext, Head, dense, embedding, normalize
from research.nn.positions import angles, frequencies, in_segments, relative_bias, sinusoids, stretch
from research.nn.tap import DELTAS, OBSERVED, tap
from research.nn.transformer_settings import TransformerSettings
from research.ops.attention import Mask
from research.ops.constrain import BATCH, constrain

Cache = dict[str, Any]  # see `empty_cache`
LEAVES = ('key', 'value', 'cross_key', 'cross_value')  # the parts of a cache with one leaf per layer


def empty_cache(settings: TransformerSettings, batch: int, capacity: int) -> Cache:
    """Creates a cache for `batch` rows of `capacity` positions; every leaf has the batch axis first.

    key, value: for each layer [batch, key heads, capacity, head width] in the compute type; position: int32 [batch],
    the position of each row's next token. Rows can be replaced individually (continuous batching). One leaf per layer,
    heads before positions: with all layers in one leaf, a step of 32 rows takes twice as long on a CPU.
    """
    shape = (batch, settings.key_heads, capacity, settings.width_of_head)

    def leaves() -> tuple[Array, ...]:
        return tuple(jnp.zeros(shape, settings.dtype) for _ in range(settings.layers))

    return {'key': leaves(), 'value': leaves(), 'position': jnp.zeros((batch,), jnp.int32)}


class Stack(nn.Module):
    """Positions, blocks and the final norm: a Transformer without its embedding and its head."""

    settings: TransformerSettings
    train: bool = False
    cross: bool = False  # adds cross-attention to a memory

    def setup(self):
        """Defines blocks, and positions, types, embedding_norm, relative, final_norm if the settings use them."""
        settings = self.settings
        still = not self.train
        if settings.positions == 'learned':
            self.positions = embedding(settings, settings.length + settings.position_offset)
        if settings.types:
            self.types = embedding(settings, settings.types)
        if settings.embedding_norm:
            self.embedding_norm = normalize(settings)
        if settings.positions == 'relative':
            initial = nn.initializers.normal(settings.width**-0.5)  # as in T5
            self.relative = nn.Embed(settings.relative_buckets, settings.heads, embedding_init=initial)
        self.embedding_drop = nn.Dropout(settings.embedding_dropout, deterministic=still)
        self.blocks = stacked_blocks(settings, self.train, self.cross)
        if settings.norm_position == 'pre':
            self.final_norm = normalize(settings)
        self.output_drop = nn.Dropout(settings.output_dropout, deterministic=still)

    def read(
        self, x, length=None, segments=None, prefix=None, cache=None, read_from=None, types=None,
        memory=None, memory_mask=None,
    ) -> tuple[Array, Any]:  # fmt: skip
        """Computes hidden states and cache from embedded tokens x; arguments as in `Transformer` and `BlockContext`."""
        settings = self.settings
        count = x.shape[1]
        settings.check_length(count)
        offsets = jnp.arange(count)[None]
        row_positions = offsets if read_from is None else offsets + read_from[:, None]
        mask = Mask(
            causal=settings.causal,
            window=settings.window,
            prefix=prefix,
            key_length=length if read_from is None else None,  # else causality hides the padding
            query_segments=segments,
            key_segments=segments,
            query_positions=None if read_from is None else row_positions,
        )
        positions = row_positions if segments is None else in_segments(segments)
        bias = None
        if settings.positions == 'relative':
            keys = count if read_from is None else cache['key'][0].shape[2]  # pyright: ignore[reportOptionalSubscript]
            table = self.relative.embedding
            bias = relative_bias(table, row_positions, keys, not settings.causal, settings.relative_distance)
        places = row_positions
        if read_from is None:
            places = None
        elif length is not None:
            inside = offsets < length[:, None]
            places = jnp.where(inside, places, jnp.iinfo(jnp.int32).max)  # padding is not written
            positions = jnp.where(inside, positions, 0)  # it may exceed the model's positions
        context = BlockContext(mask, turns_of(settings, positions), bias, memory, memory_mask, places)
        x = constrain(self.enter(x, positions, types), BATCH)
        if cache is None:
            (x, _), _ = self.blocks((x, None), jnp.arange(settings.layers), context)
        else:
            x, cache = self.layer_by_layer(x, cache, context)
        if settings.norm_position == 'pre':
            x = self.final_norm(x)
        return self.output_drop(x), cache

    def layer_by_layer(self, x: Array, cache: Cache, context: BlockContext) -> tuple[Array, Cache]:
        """Applies the blocks in turn, each with its own leaves of the cache."""
        stacked, block = self.blocks.variables['params'], Block(self.settings, self.train, self.cross, parent=None)
        layers = []
        for layer in range(self.settings.layers):
            params = jax.tree.map(operator.itemgetter(layer), stacked)
            leaves = {name: cache[name][layer] for name in LEAVES if name in cache}
            (x, leaves), _ = block.apply({'params': params}, (x, leaves), layer, context)  # pyright: ignore[reportGeneralTypeIssues, reportAssignmentType]
            layers.append(leaves)
        return x, {**cache, **{name: tuple(leaves[name] for leaves in layers) for name in layers[0]}}

    def enter(self, x: Array, positions: Int[Array, '#batch length'], types: Any) -> Array:
        """Computes the input of the first block: tokens plus positions and types, then norm and dropout."""
        settings = self.settings
        if settings.embedding_scale:
            x = x * jnp.asarray(settings.width**0.5, x.dtype)
        if settings.types:
            x = x + self.types(jnp.zeros(x.shape[:2], jnp.int32) if types is None else types)
        elif types is not None:
            raise SettingError('types', 'is 0, but the tokens have types: set it to their number')
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
        """Defines the parts of `Stack`, and tokens, head and pooler."""
        self.tokens = embedding(self.settings, self.settings.vocabulary)
        self.stack = Stack(self.settings, self.train)
        nn.share_scope(self, self.stack)  # its parameters are not nested
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
        """Computes float32 logits at every position; returns them and the updated cache.

        Args:
          tokens: right-padded ids.
          length: tokens of each row without padding; None if no row is padded, or causality hides the padding. With
            `read_from`, the padding is not written to the cache.
          segments: the packed text each token belongs to; None for one text per row. Positions restart in each.
          prefix: number of leading tokens of each row that all positions see (prefix-LM).
          cache: see `empty_cache`; None to compute without one.
          read_from: position of the first of `tokens` in each row; earlier positions are read from the cache. None
            starts at 0.
          types: token types (BERT's segments); None if all are 0.

        Raises:
          UserError: if there are more positions than `settings.length`.
          SettingError: if tokens have types but `settings.types` is 0.
        """
        x, cache = self.features(tokens, length, segments, prefix, cache, read_from, types)
        if self.settings.pooler and self.is_initializing():
            self.pooled(x)
        return self.logits(x), cache

    def features(
        self, tokens, length=None, segments=None, prefix=None, cache=None, read_from=None, types=None
    ):
        """Computes the last hidden states [batch, length, width] and the cache; arguments as in `__call__`."""
        x = tap(self, 'embedding', self.tokens(tokens))
        return self.stack.read(x, length, segments, prefix, cache, read_from, types)

    def pooled(self, x: Float[Array, 'batch length width']) -> Float[Array, 'batch width']:
        """BERT's pooler: activation(dense(first position))."""
        activation = {'tanh': jnp.tanh, 'relu': nn.relu}[self.settings.pooler_activation]
        return activation(self.pooler(x[:, 0]))

    def logits(self, x: Float[Array, 'batch length width']) -> Float[Array, 'batch length vocabulary']:
        """Projects hidden states to float32 logits."""
        return self.head(x, self.tokens.embedding)


def turns_of(settings: TransformerSettings, positions: Int[Array, '#batch length']) -> Array | None:
    """Rotary angles of positions; None for other position encodings."""
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
    """Scans one block over a leading layer axis of its parameters, as a loop or unrolled."""
    return scanned(Block, settings, train, cross)


def scanned(block: Any, settings: TransformerSettings, *arguments: Any, **keywords: Any) -> nn.Module:
    """Scans `block(settings, *arguments)`, which is called with (carry, layer, context), over the layers."""
    if settings.remat:  # only in unrolled code would CSE undo the recomputation
        block = nn.remat(block, prevent_cse=not settings.scan)
    stack = nn.scan(
        block,
        variable_axes={'params': 0, OBSERVED: 0, DELTAS: 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=settings.layers,
        unroll=1 if settings.scan else settings.layers,
        metadata_params={nn.PARTITION_NAME: 'layers'},
    )
    return stack(settings, *arguments, **keywords)
