"""Models that read a sequence of letters, one-hot or as k-mers, and give one score for each class."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from research.errors import SettingError
from research.nn.apply import check_settings
from research.nn.tap import tap
from research.nn.text_models import check_rates, masked_pool, windows


class SequenceConvolution(nn.Module):
    """Convolutions over positions, then a hidden layer over all of them ('flat'), or over their maximum or mean.

    'flat' knows where in the sequence something stands, as in windows cut around a site; the others know only
    whether it is there.
    """

    units: int
    vocabulary: int = 0  # k-mers that are looked up; 0: the input is one-hot
    width: int = 32  # of a k-mer's vector
    filters: tuple[int, ...] = (64, 64)  # of each layer
    window: int = 7
    hidden: int = 64  # 0: none
    pool: Literal['flat', 'max', 'mean'] = 'flat'
    dropout: float = 0.3
    input_dropout: float = 0.0  # share of the positions of which nothing is seen

    def __post_init__(self):
        check_settings(self.dropout, filters=self.filters, window=(self.window,), width=(self.width,))
        check_rates(self, 'input_dropout')
        if self.hidden < 0:
            raise SettingError('hidden', f'must be zero (none) or more, got {self.hidden}')
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, 'batch positions 4'] | Int[Array, 'batch positions'],
        length: Int[Array, 'batch'],
        train: bool = False,
    ) -> Float[Array, 'batch units']:
        """Returns one score for each class; positions from `length` on are padding, which counts as zeros."""
        there = (jnp.arange(inputs.shape[1]) < length[:, None])[..., None]
        x = inputs
        if self.vocabulary:
            x = tap(self, 'embedding', nn.Embed(self.vocabulary, self.width, name='kmers')(inputs))
        x = nn.Dropout(self.input_dropout, broadcast_dims=(2,), deterministic=not train)(x * there)
        for number, filters in enumerate(self.filters):
            before = (self.window - 1) // 2
            read = windows(x, self.window, before, self.window - 1 - before)
            x = jax.nn.relu(nn.Dense(filters, name=f'layer_{number}')(read)) * there
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = tap(self, 'features', x)
        x = x.reshape(x.shape[0], -1) if self.pool == 'flat' else masked_pool(x, there[..., 0], self.pool)
        if self.hidden:
            x = jax.nn.relu(nn.Dense(self.hidden, name='hidden')(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.units, name='head')(tap(self, 'pooled', x)).astype(jnp.float32)
