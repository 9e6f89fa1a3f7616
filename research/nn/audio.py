"""Models that read a spectrogram [batch, bands, frames, channels] as a picture and give one score for each class."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from research.errors import UserError
from research.nn.apply import check_settings
from research.nn.convolution import Conv
from research.nn.resnet import normalize
from research.nn.tap import tap
from research.nn.transformer_settings import TransformerSettings
from research.nn.vision_transformer import VisionTransformer


def halve(features: Float[Array, 'batch height width channels']) -> Float[Array, 'batch height_out width_out channels']:
    """Returns the maximum of every 2x2 square; an odd last row or column is left out.

    On a CPU, forward and backward, a convolutional network takes two thirds of the time that `nn.max_pool` takes it.
    The gradient of `jnp.max` over the square would compare what may be computed twice, and divide by 0.
    """
    height, width = (size // 2 * 2 for size in features.shape[1:3])
    four = [features[:, row:height:2, column:width:2] for row in range(2) for column in range(2)]
    return jnp.maximum(jnp.maximum(four[0], four[1]), jnp.maximum(four[2], four[3]))


class SoundConvolution(nn.Module):
    """Convolutions, each followed by a norm and max-pooling by 2, then what is left, hidden layers and scores.

    'flat' keeps where and when something sounds, for short sounds that fill the window; 'mean' forgets both, and
    'both' adds the maximum over time of the mean over bands, for an event somewhere in a long one.
    """

    classes: int
    filters: tuple[int, ...] = (16, 32, 64, 128)  # of each layer
    kernel: int = 3  # along each side
    convolutions: int = 1  # in each layer, before it pools
    norm: Literal['batch', 'group', 'none'] = 'batch'
    groups: int = 8  # at most so many in each group norm
    pool: Literal['flat', 'mean', 'both'] = 'mean'
    hidden: tuple[int, ...] = ()  # widths of layers before the last
    dropout: float = 0.0  # before every dense layer
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    def __post_init__(self):
        check_settings(self.dropout, filters=self.filters, kernel=(self.kernel,), groups=(self.groups,))
        check_settings(convolutions=(self.convolutions,), hidden=self.hidden or (1,))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, spectrogram: Float[Array, 'batch bands frames channels'], train: bool = False
    ) -> Float[Array, 'batch classes']:
        """Returns float32 unnormalised log-probabilities.

        Raises:
          UserError: for more layers than the spectrogram can be halved.
        """
        features, size = spectrogram, (self.kernel, self.kernel)
        if min(spectrogram.shape[1:3]) < 2 ** len(self.filters):
            raise UserError(
                f'config.model.filters: {len(self.filters)} layers halve both sides of the spectrogram, which is '
                f'{spectrogram.shape[1]} bands x {spectrogram.shape[2]} frames: fewer layers, or more bands and frames'
            )
        for number, filters in enumerate(self.filters):
            for part in range(self.convolutions):
                name = f'{number}_{part}'
                bias = self.norm == 'none'  # a norm would cancel it
                features = Conv(filters, size, use_bias=bias, dtype=self.dtype, name=f'conv_{name}')(features)
                features = normalize(features, f'norm_{name}', self.norm, self.groups, train, self.dtype)
                if part == self.convolutions - 1:
                    features = halve(features)  # before the ReLU, which is the same and costs a quarter
                features = jax.nn.relu(features)
        hidden = self.pooled(tap(self, 'features', features))
        for number, width in enumerate(self.hidden):
            hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
            hidden = jax.nn.relu(nn.Dense(width, dtype=self.dtype, name=f'hidden_{number}')(hidden))
        hidden = tap(self, 'pooled', nn.Dropout(self.dropout, deterministic=not train)(hidden))
        return nn.Dense(self.classes, dtype=self.dtype, name='head')(hidden).astype(jnp.float32)

    def pooled(self, features: Float[Array, 'batch bands frames channels']) -> Float[Array, 'batch width']:
        """Returns what the convolutions found, as one row for each sound."""
        if self.pool == 'flat':
            return features.reshape(features.shape[0], -1)
        features = features.astype(jnp.float32)
        if self.pool == 'mean':
            return jnp.mean(features, axis=(1, 2))
        over_bands = jnp.mean(features, axis=1)
        return jnp.mean(over_bands, axis=1) + jnp.max(over_bands, axis=1)


class SoundTransformer(nn.Module):
    """A Transformer over square patches of the spectrogram (as Gong et al. 2021, arXiv:2104.01778).

    Patches do not overlap; the spectrogram is filled up with 0, its mean, to whole patches.
    """

    settings: TransformerSettings  # its length is the number of patches and one more
    patch: int  # bands and frames along each side
    classes: int

    @nn.compact
    def __call__(
        self, spectrogram: Float[Array, 'batch bands frames channels'], train: bool = False
    ) -> Float[Array, 'batch classes']:
        """Returns float32 unnormalised log-probabilities."""
        fill = [(0, -size % self.patch) for size in spectrogram.shape[1:3]]
        filled = jnp.pad(spectrogram, ((0, 0), *fill, (0, 0)))
        return VisionTransformer(self.settings, self.patch, self.classes, train, name='encoder')(filled)


def patches_of(bands: int, frames: int, patch: int) -> int:
    """Returns how many patches a spectrogram has; a `UserError` for a side below one."""
    if patch < 1:
        raise UserError(f'config.model.patch must be above zero, got {patch}')
    return -(-bands // patch) * -(-frames // patch)
