"""The parts of a Transformer: norms, attention with a cache, feed-forward layers, blocks, and the head."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.nn.positions import rotate
from research.nn.tap import tap, watching
from research.nn.transformer_settings import TransformerSettings
from research.ops.attention import Mask, attention, attention_weights, weighted_values
from research.ops.constrain import BATCH, constrain

ACTIVATIONS = {
    'gelu': lambda x: jax.nn.gelu(x, approximate=False),
    'gelu_tanh': lambda x: jax.nn.gelu(x, approximate=True),
    'silu': jax.nn.silu,
    'relu': jax.nn.relu,
}


class BlockContext(NamedTuple):
    """Inputs of all blocks of a stack besides the residual stream and the cache."""

    mask: Mask
    turns: Float[Array, '#batch length half'] | None = None  # rotary angles
    bias: Float[Array, '#batch heads length keys'] | None = None  # added to the logits of self-attention
    memory: Float[Array, 'batch source width'] | None = None  # for cross-attention; None: use the cache
    memory_mask: Mask | None = None  # for cross-attention
    places: Int[Array, 'batch length'] | None = None  # positions in the cache of keys and values; see `write_cache`


def initializer(settings: TransformerSettings, variance: float = 1.0) -> Any:
    """Normal initializer of kernels, with the variance of the settings times `variance`."""
    if settings.initializer == 'fan_in':
        return nn.initializers.variance_scaling(variance, 'fan_in', 'normal')
    return nn.initializers.normal(settings.initial_scale * variance**0.5)


def dense(
    settings: TransformerSettings, features: int, bias: bool, variance: float = 1.0, **keywords
) -> nn.Dense:
    kernel = initializer(settings, variance)
    return nn.Dense(features, use_bias=bias, dtype=settings.dtype, kernel_init=kernel, **keywords)


def residual(settings: TransformerSettings) -> float:
    """Variance factor of kernels that write to the residual stream, so that the stream does not grow with depth.

    Radford et al. 2019 (GPT-2), section 2.3: their standard deviation is divided by sqrt(2 layers).
    """
    return 1 / (2 * settings.layers)


def embedding(settings: TransformerSettings, count: int, **keywords) -> nn.Embed:
    """Embedding table of `count` rows of the model's width."""
    initial = nn.initializers.normal(settings.initial_scale)
    return nn.Embed(count, settings.width, dtype=settings.dtype, embedding_init=initial, **keywords)


def normalize(settings: TransformerSettings, norm: str = '', **keywords) -> nn.Module:
    """Norm over features with float32 statistics: 'layer' or 'rms', by default `settings.norm`."""
    shared = {'epsilon': settings.norm_epsilon, 'dtype': settings.dtype, **keywords}
    shared['use_fast_variance'] = False  # E[x^2] - E[x]^2 cancels
    if (norm or settings.norm) == 'rms':
        return nn.RMSNorm(**shared)
    return nn.LayerNorm(use_bias=settings.norm_bias, **shared)


def write_cache(
    cache: dict[str, Array],
    places: Int[Array, 'batch length'] | None,
    new: dict[str, Float[Array, 'batch length heads width']],
) -> dict[str, Array]:
    """Writes keys and values into one layer's cache [batch, heads, capacity, width].

    Args:
      cache: the leaves of one layer.
      places: position of each token in the cache; from the capacity on, tokens are dropped. None: 0, 1, ...
      new: values by the name of their leaf.
    """

    def written(leaf: Array, value: Array) -> Array:
        value = value.astype(leaf.dtype)
        if places is None:  # one block for all rows
            return leaf.at[:, :, : value.shape[1]].set(jnp.swapaxes(value, 1, 2)[:, :, : leaf.shape[2]])
        rows = jnp.arange(value.shape[0])[:, None]
        return leaf.at[rows, :, places].set(value, mode='drop')

    return {**cache, **{name: written(cache[name], value) for name, value in new.items()}}


def cached(cache: dict[str, Array], name: str) -> Float[Array, 'batch capacity heads width']:
    """A leaf of one layer's cache in the axis order of `attention`."""
    return jnp.swapaxes(cache[name], 1, 2)


def to_heads(settings: TransformerSettings, x: Array, name: str) -> Float[Array, 'batch length heads width']:
    """Projects x to the heads of 'query', 'key' or 'value'; call it in a compact method."""
    count = settings.heads if name == 'query' else settings.key_heads
    # Without the division by sqrt(width), the kernel compensates for it, as in T5.
    variance = 1.0 if settings.attention_scale or name != 'query' else 1 / settings.width_of_head
    projection = dense(
        settings, count * settings.width_of_head, settings.query_key_value_bias, variance, name=name
    )
    heads = projection(x).reshape(*x.shape[:2], count, settings.width_of_head)
    if settings.qk_norm and name != 'value':
        heads = normalize(settings, 'rms', name=f'{name}_norm')(heads)
    return heads


def attend(module: nn.Module, query: Array, key: Array, value: Array, mask: Mask, bias: Any) -> Array:
    """Attends and projects back to the stream; call it in a compact method of a module with settings and train."""
    settings = module.settings
    dropout = settings.attention_dropout if module.train else 0.0
    dropout_key = module.make_rng('dropout') if dropout else None
    scale = None if settings.attention_scale else 1.0
    if watching(module, 'weights'):
        weights = tap(module, 'weights', attention_weights(query, key, mask, bias, scale))
        output = weighted_values(weights, value, dropout, dropout_key)
    else:
        output = attention(
            query, key, value, mask, bias, scale, dropout, dropout_key, implementation=settings.attention
        )
    output = output.reshape(*output.shape[:2], settings.heads * settings.width_of_head)
    return dense(settings, settings.width, settings.output_bias, residual(settings), name='out')(output)


class Attention(nn.Module):
    """Multi-head self-attention; grouped heads, rotary positions, head norms and a cache are optional."""

    settings: TransformerSettings
    train: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, 'batch length width'], context: BlockContext, cache: Any, layer: Int[Array, '']
    ) -> tuple[Float[Array, 'batch length width'], Any]:
        """Computes the attended features; returns them and the layer's cache, updated with the keys and values.

        With a cache but no `mask.query_positions`, rows start at position 0. With `mask.query_positions`, queries
        also attend to cached positions.
        """
        settings = self.settings
        mask = context.mask
        query, key, value = (to_heads(settings, x, name) for name in ('query', 'key', 'value'))
        if context.turns is not None:
            query, key = rotate(query, context.turns), rotate(key, context.turns)
        if cache is not None:
            cache = write_cache(cache, context.places, {'key': key, 'value': value})
            if mask.query_positions is not None:
                key, value = cached(cache, 'key'), cached(cache, 'value')
        if settings.windows:
            mask = dataclasses.replace(mask, band=window_of(settings, layer))
        return attend(self, query, key, value, mask, context.bias), cache


def window_of(settings: TransformerSettings, layer: Int[Array, '']) -> Int[Array, '']:
    """Attention window of a layer, for settings with `windows`."""
    return jnp.asarray(settings.windows, jnp.int32)[layer % len(settings.windows)]


class CrossAttention(nn.Module):
    """Attention of a decoder to the encoder's memory, whose keys and values may come from the cache."""

    settings: TransformerSettings
    train: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, 'batch length width'], context: BlockContext, cache: Any, layer: Int[Array, '']
    ) -> tuple[Float[Array, 'batch length width'], Any]:
        """Computes the attended features; returns them and the layer's cache, updated if there is a memory."""
        settings = self.settings
        query = to_heads(self.settings, x, 'query')
        if context.memory is None:
            key, value = cached(cache, 'cross_key'), cached(cache, 'cross_value')
        else:
            key, value = (to_heads(settings, context.memory, name) for name in ('key', 'value'))
        if context.memory is not None and cache is not None:
            cache = write_cache(cache, None, {'cross_key': key, 'cross_value': value})
        return attend(self, query, key, value, context.memory_mask, None), cache  # pyright: ignore[reportArgumentType]


class FeedForward(nn.Module):
    """Two projections and an activation; gated: three projections (Shazeer 2020, arXiv:2002.05202)."""

    settings: TransformerSettings
    train: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, 'batch length width']) -> Float[Array, 'batch length width']:
        """Computes down(activation(up(x))); gated: down(activation(gate(x)) * up(x))."""
        settings = self.settings
        activation = ACTIVATIONS[self.settings.activation]
        hidden, bias = settings.width_of_hidden, settings.feed_forward_bias
        up = dense(settings, hidden, bias, name='up')(x)
        if settings.gated:
            up = activation(dense(settings, hidden, bias, name='gate')(x)) * up
        else:
            up = activation(up)
        up = nn.Dropout(settings.hidden_dropout, deterministic=not self.train)(up)
        return dense(settings, settings.width, bias, residual(settings), name='down')(up)


class Block(nn.Module):
    """Attention and feed-forward with residual connections; the body of the scan over layers.

    `cross` adds cross-attention to a memory between the two, for decoders.
    """

    settings: TransformerSettings
    train: bool = False
    cross: bool = False

    @nn.compact
    def __call__(self, carry: tuple[Array, Any], layer: Int[Array, ''], context: BlockContext) -> tuple:
        """Applies one layer; returns ((stream, the layer's cache), None), as `nn.scan` expects."""
        x, cache = carry
        settings = self.settings
        shared = (self.settings, self.train)
        drop = nn.Dropout(settings.dropout, deterministic=not self.train)
        attend = Attention(*shared, name='attention')
        attention_norm = normalize(settings, name='attention_norm')
        cross = CrossAttention(*shared, name='cross') if self.cross else None
        cross_norm = normalize(settings, name='cross_norm') if self.cross else None
        feed = FeedForward(*shared, name='feed_forward')
        feed_forward_norm = normalize(settings, name='feed_forward_norm')
        before = settings.norm_position == 'pre'
        for norm, part in ((attention_norm, attend), (cross_norm, cross)):
            if part is not None:
                added, cache = part(norm(x) if before else x, context, cache, layer)  # pyright: ignore[reportOptionalCall]
                x = x + drop(added) if before else norm(x + drop(added))  # pyright: ignore[reportOptionalCall]
        added = feed(feed_forward_norm(x) if before else x)
        x = x + drop(added) if before else feed_forward_norm(x + drop(added))
        return (tap(self, 'stream', constrain(x, BATCH)), cache), None


class Head(nn.Module):
    """Projects hidden states to logits, optionally tied to the embedding, optionally after a transform (BERT)."""

    settings: TransformerSettings

    @nn.compact
    def __call__(
        self, x: Float[Array, 'batch length width'], table: Float[Array, 'vocabulary width']
    ) -> Float[Array, 'batch length vocabulary']:
        """Computes float32 logits; products use the compute type, sums float32. `table` is the embedding."""
        settings = self.settings
        vocabulary, width = table.shape
        if settings.head_transform:
            activation = ACTIVATIONS[settings.head_activation or settings.activation]
            x = activation(dense(settings, width, True, name='transform')(x))
            x = normalize(settings, name='norm')(x)
        if settings.head_scale:
            x = x * width**-0.5
        if settings.tie_embedding:
            product, kernel = 'blw,vw->blv', table
        else:
            product, kernel = 'blw,wv->blv', self.param('kernel', initializer(settings), (width, vocabulary))
        logits = jnp.einsum(product, x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)
        if settings.head_bias:
            logits = logits + self.param('bias', nn.initializers.zeros, (vocabulary,))
        return logits
