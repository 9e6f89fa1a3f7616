"""Classifiers of spectrograms [batch, bands, frames, channels], which they treat as images."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from research.errors import PositiveInt, Rate, SettingError, Sizes
from research.nn.convolution import Conv
from research.nn.resnet import normalize
from research.nn.tap import tap
from research.nn.transformer_settings import TransformerSettings
from research.nn.vision_transformer import VisionTransformer


def halve(features: Float[Array, 'batch height width channels']) -> Float[Array, 'batch height_out width_out channels']:
    """Max-pools 2x2 windows with stride 2; an odd last row or column is dropped.

    On a CPU, a training step of a convolutional network takes two thirds of its time with `nn.max_pool`.
    `jnp.maximum` rather than `jnp.max`: the gradient of the latter compares values that XLA may compute twice,
    and can then divide by 0.
    """
    height, width = (size // 2 * 2 for size in features.shape[1:3])
    corners = [features[:, row:height:2, column:width:2] for row in range(2) for column in range(2)]
    return jnp.maximum(jnp.maximum(corners[0], corners[1]), jnp.maximum(corners[2], corners[3]))


class SoundConvolution(nn.Module):
    """Convolutional layers with norm and 2x2 max pooling, a pooling of all positions, hidden layers, and a head.

    `pool` chooses the last pooling: 'flat' keeps time and frequency, for short sounds that fill the window; 'mean'
    averages over both; 'both' adds the maximum over time of the mean over bands, for short events in long sounds.
    """

    classes: int
    filters: Sizes = (16, 32, 64, 128)  # of each layer
    kernel: PositiveInt = 3  # along each side
    convolutions: PositiveInt = 1  # in each layer, before it pools
    norm: Literal['batch', 'group', 'none'] = 'batch'
    groups: PositiveInt = 8  # maximum per group norm
    pool: Literal['flat', 'mean', 'both'] = 'mean'
    hidden: tuple[PositiveInt, ...] = ()  # widths of layers before the last
    dropout: Rate = 0.0  # before every dense layer
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    @nn.compact
    def __call__(
        self, spectrogram: Float[Array, 'batch bands frames channels'], train: bool = False
    ) -> Float[Array, 'batch classes']:
        """Computes float32 logits.

        Raises:
          SettingError: if the spectrogram is too small to be halved by every layer.
        """
        features = spectrogram
        size = (self.kernel, self.kernel)
        if min(spectrogram.shape[1:3]) < 2 ** len(self.filters):
            raise SettingError(
                'filters:',
                f'{len(self.filters)} layers halve both sides of the spectrogram, which has '
                f'{spectrogram.shape[1]} bands x {spectrogram.shape[2]} frames: use fewer layers, or more bands and '
                'frames',
            )
        for number, filters in enumerate(self.filters):
            for part in range(self.convolutions):
                name = f'{number}_{part}'
                bias = self.norm == 'none'  # a norm would cancel it
                features = Conv(filters, size, use_bias=bias, dtype=self.dtype, name=f'conv_{name}')(features)
                features = normalize(features, f'norm_{name}', self.norm, self.groups, train, self.dtype)
                if part == self.convolutions - 1:
                    features = halve(features)  # before the ReLU: the same result at a quarter of the cost
                features = jax.nn.relu(features)
        hidden = self.pooled(tap(self, 'features', features))
        for number, width in enumerate(self.hidden):
            hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
            hidden = jax.nn.relu(nn.Dense(width, dtype=self.dtype, name=f'hidden_{number}')(hidden))
        hidden = tap(self, 'pooled', nn.Dropout(self.dropout, deterministic=not train)(hidden))
        return nn.Dense(self.classes, dtype=self.dtype, name='head')(hidden).astype(jnp.float32)

    def pooled(self, features: Float[Array, 'batch bands frames channels']) -> Float[Array, 'batch width']:
        """Pools the features of each sound into one vector."""
        if self.pool == 'flat':
            return features.reshape(features.shape[0], -1)
        features = features.astype(jnp.float32)
        if self.pool == 'mean':
            return jnp.mean(features, axis=(1, 2))
        over_bands = jnp.mean(features, axis=1)
        return jnp.mean(over_bands, axis=1) + jnp.max(over_bands, axis=1)


class SoundTransformer(nn.Module):
    """A Transformer over square patches of the spectrogram (as Gong et al. 2021, arXiv:2104.01778).

    Patches do not overlap. The spectrogram is padded with 0, its mean, to whole patches.
    """

    settings: TransformerSettings  # length: number of patches + 1
    patch: int  # side of a patch, in bands and frames
    classes: int

    @nn.compact
    def __call__(
        self, spectrogram: Float[Array, 'batch bands frames channels'], train: bool = False
    ) -> Float[Array, 'batch classes']:
        """Computes float32 logits."""
        fill = [(0, -size % self.patch) for size in spectrogram.shape[1:3]]
        filled = jnp.pad(spectrogram, ((0, 0), *fill, (0, 0)))
        return VisionTransformer(self.settings, self.patch, self.classes, train, name='encoder')(filled)


def patches_of(bands: int, frames: int, patch: int) -> int:
    """Number of patches of a spectrogram."""
    return -(-bands // patch) * -(-frames // patch)
