"""Classifiers of sequences of letters, encoded one-hot or as k-mers."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from research.errors import Count, PositiveInt, Rate, Sizes
from research.nn.tap import tap
from research.nn.text_models import masked_pool, windows


class SequenceConvolution(nn.Module):
    """Convolutions over positions, a pooling, a hidden layer and a head.

    `pool`: 'flat' keeps positions, for windows cut around a site; 'max' and 'mean' only detect presence.
    """

    units: int
    vocabulary: int = 0  # number of k-mers; 0: the input is one-hot
    width: PositiveInt = 32  # of a k-mer's embedding
    filters: Sizes = (64, 64)  # of each layer
    window: PositiveInt = 7
    hidden: Count = 64  # 0: none
    pool: Literal['flat', 'max', 'mean'] = 'flat'
    dropout: Rate = 0.3
    input_dropout: Rate = 0.0  # fraction of positions dropped entirely

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, 'batch positions 4'] | Int[Array, 'batch positions'],
        length: Int[Array, 'batch'],
        train: bool = False,
    ) -> Float[Array, 'batch units']:
        """Computes one logit per unit; positions from `length` on are padding and count as zeros."""
        valid = (jnp.arange(inputs.shape[1]) < length[:, None])[..., None]
        x = inputs
        if self.vocabulary:
            x = tap(self, 'embedding', nn.Embed(self.vocabulary, self.width, name='kmers')(inputs))
        x = nn.Dropout(self.input_dropout, broadcast_dims=(2,), deterministic=not train)(x * valid)
        for number, filters in enumerate(self.filters):
            before = (self.window - 1) // 2
            neighbours = windows(x, self.window, before, self.window - 1 - before)
            x = jax.nn.relu(nn.Dense(filters, name=f'layer_{number}')(neighbours)) * valid
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = tap(self, 'features', x)
        x = x.reshape(x.shape[0], -1) if self.pool == 'flat' else masked_pool(x, valid[..., 0], self.pool)
        if self.hidden:
            x = jax.nn.relu(nn.Dense(self.hidden, name='hidden')(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.units, name='head')(tap(self, 'pooled', x)).astype(jnp.float32)
