"""The parts of a Transformer block: norms, attention with its cache, feed-forward."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.nn.positions import rotate
from research.nn.transformer_settings import TransformerSettings
from research.ops.attention import Mask, attention
from research.ops.constrain import BATCH, constrain

ACTIVATIONS = {
    'gelu': lambda x: jax.nn.gelu(x, approximate=False),
    'gelu_tanh': lambda x: jax.nn.gelu(x, approximate=True),
    'silu': jax.nn.silu,
    'relu': jax.nn.relu,
}


def dense(
    settings: TransformerSettings, features: int, bias: bool, residual: bool = False, **keywords
) -> nn.Dense:
    """Returns a projection; `residual` marks those that write to the residual stream.

    Their initial deviation is smaller by sqrt(2 layers), so that the stream does not grow with depth
    (Radford et al. 2019, GPT-2, section 2.3).
    """
    scale = 1 / (2 * settings.layers) if residual else 1.0
    if settings.initializer == 'fan_in':
        initializer = nn.initializers.variance_scaling(scale, 'fan_in', 'normal')
    else:
        initializer = nn.initializers.normal(settings.initial_scale * scale**0.5)
    return nn.Dense(features, use_bias=bias, dtype=settings.dtype, kernel_init=initializer, **keywords)


def normalize(settings: TransformerSettings, kind: str = '', **keywords) -> nn.Module:
    """Returns a norm over features with float32 statistics; `kind` 'layer' or 'rms', by default as set."""
    shared = {'epsilon': settings.norm_epsilon, 'dtype': settings.dtype, **keywords}
    shared['use_fast_variance'] = False  # E[x^2] - E[x]^2 cancels
    if (kind or settings.norm) == 'rms':
        return nn.RMSNorm(**shared)
    return nn.LayerNorm(use_bias=settings.norm_bias, **shared)


def write_cache(
    cache: dict[str, Array],
    layer: Int[Array, ''],
    positions: Int[Array, 'batch length'],
    key: Float[Array, 'batch length heads width'],
    value: Float[Array, 'batch length heads width'],
) -> dict[str, Array]:
    """Returns `cache` with a layer's keys and values at each row's positions, without those past its end."""
    rows = jnp.arange(key.shape[0])[:, None]
    new = {'key': key, 'value': value}
    written = {
        name: cache[name].at[rows, layer, positions].set(new[name].astype(cache[name].dtype), mode='drop')
        for name in new
    }
    return {**cache, **written}


class Attention(nn.Module):
    """Multi-head self-attention with grouped heads, rotary positions, head norms and a cache by choice."""

    settings: TransformerSettings
    train: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'batch length width'],
        mask: Mask,
        turns: Float[Array, '#batch length half'] | None,
        cache: dict[str, Array] | None,
        layer: Int[Array, ''],
    ) -> tuple[Float[Array, 'batch length width'], dict[str, Array] | None]:
        """Returns the attended features and the cache with this layer's keys and values in it.

        With a cache and no `mask.query_positions` the rows are read from their beginning; with them, queries
        also see what the cache holds.
        """
        settings, (batch, length, _) = self.settings, x.shape
        width, bias = settings.width_of_head, settings.query_key_value_bias

        def heads(name: str, count: int) -> Float[Array, 'batch length count width']:
            return dense(settings, count * width, bias, name=name)(x).reshape(batch, length, count, width)

        query = heads('query', settings.heads)
        key, value = heads('key', settings.key_heads), heads('value', settings.key_heads)
        if settings.qk_norm:
            query = normalize(settings, 'rms', name='query_norm')(query)
            key = normalize(settings, 'rms', name='key_norm')(key)
        if turns is not None:
            query, key = rotate(query, turns), rotate(key, turns)
        if cache is not None:
            positions = mask.query_positions
            if positions is None:
                positions = jnp.broadcast_to(jnp.arange(length), (batch, length))
            cache = write_cache(cache, layer, positions, key, value)
            if mask.query_positions is not None:
                key, value = cache['key'][:, layer], cache['value'][:, layer]
        dropout = settings.attention_dropout if self.train else 0.0
        dropout_key = self.make_rng('dropout') if dropout else None
        output = attention(
            query, key, value, mask, None, None, dropout, dropout_key, implementation=settings.attention
        )
        output = output.reshape(batch, length, settings.heads * width)
        return dense(settings, settings.width, settings.output_bias, True, name='out')(output), cache


class FeedForward(nn.Module):
    """Two projections and an activation, or three where one gates (Shazeer 2020, arXiv:2002.05202)."""

    settings: TransformerSettings

    @nn.compact
    def __call__(self, x: Float[Array, 'batch length width']) -> Float[Array, 'batch length width']:
        """Returns down(activation(up(x))), or down(activation(gate(x)) * up(x))."""
        settings, activation = self.settings, ACTIVATIONS[self.settings.activation]
        hidden, bias = settings.width_of_hidden, settings.feed_forward_bias
        up = dense(settings, hidden, bias, name='up')(x)
        if settings.gated:
            up = activation(dense(settings, hidden, bias, name='gate')(x)) * up
        else:
            up = activation(up)
        return dense(settings, settings.width, bias, True, name='down')(up)


class Block(nn.Module):
    """Attention and feed-forward, each added to the residual stream; the body of the scan over layers."""

    settings: TransformerSettings
    train: bool = False

    @nn.compact
    def __call__(self, carry: tuple[Array, Any], layer: Int[Array, ''], mask: Mask, turns: Any) -> tuple:
        """Returns ((stream, cache), None) after this layer."""
        x, cache = carry
        settings = self.settings
        drop = nn.Dropout(settings.dropout, deterministic=not self.train)
        attend = Attention(settings, self.train, name='attention')
        feed = FeedForward(settings, name='feed_forward')
        attention_norm = normalize(settings, name='attention_norm')
        feed_forward_norm = normalize(settings, name='feed_forward_norm')
        if settings.norm_position == 'pre':
            added, cache = attend(attention_norm(x), mask, turns, cache, layer)
            x = x + drop(added)
            x = x + drop(feed(feed_forward_norm(x)))
        else:
            added, cache = attend(x, mask, turns, cache, layer)
            x = attention_norm(x + drop(added))
            x = feed_forward_norm(x + drop(feed(x)))
        return (constrain(x, BATCH), cache), None
