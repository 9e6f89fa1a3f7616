"""The networks of SNGAN: a convolutional discriminator and a residual pair, with spectral norm and projection.

Miyato et al. 2018 (arXiv:1802.05957), appendix B; with `classes` above 0 discriminators project on the label, and
the residual generator's batch norm has a scale and an offset per class (Miyato and Koyama 2018,
arXiv:1802.05637). With `spectral` off, the residual pair is that of WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028).
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from research.errors import Count, SettingError, Sizes
from research.nn.gan import check_doublings
from research.nn.spectral import Conv, Dense, Embed


def double(features: Float[Array, 'batch height width channels']) -> Array:
    """Upsamples by 2, nearest neighbour."""
    return jnp.repeat(jnp.repeat(features, 2, axis=1), 2, axis=2)


def halve(features: Float[Array, 'batch height width channels']) -> Array:
    """Average-pools 2x2 windows with stride 2; an odd last row or column is dropped."""
    return nn.avg_pool(features, (2, 2), (2, 2))


class ClassNorm(nn.Module):
    """Batch norm, with a scale and an offset per class if there are classes."""

    classes: int
    dtype: Literal['float32', 'bfloat16']

    @nn.compact
    def __call__(
        self, features: Float[Array, 'batch height width channels'], labels: Int[Array, 'batch'], train: bool
    ) -> Float[Array, 'batch height width channels']:
        """Normalizes the features with statistics over the whole batch, shared by all classes."""
        shared_affine = not self.classes
        norm = nn.BatchNorm(
            not train, momentum=0.9, dtype=self.dtype, use_scale=shared_affine, use_bias=shared_affine,
            name='norm',
        )
        features = norm(features)
        if shared_affine:
            return features
        shape = (self.classes, features.shape[-1])
        scale, offset = (
            self.param(name, start, shape)[labels][:, None, None].astype(self.dtype)
            for name, start in (('scale', nn.initializers.ones), ('bias', nn.initializers.zeros))
        )
        return features * scale + offset


class UpBlock(nn.Module):
    """Norm, ReLU, upsampling, 3x3, norm, ReLU, 3x3; the shortcut is upsampling and 1x1."""

    width: int
    classes: int
    dtype: Literal['float32', 'bfloat16']

    @nn.compact
    def __call__(
        self, features: Float[Array, 'batch height width channels'], labels: Int[Array, 'batch'], train: bool
    ) -> Float[Array, 'batch height_out width_out channels_out']:
        """Computes features of `width` channels at twice the size."""
        # No biases: the norms that follow would cancel them.
        conv = functools.partial(Conv, self.width, spectral=False, dtype=self.dtype, bias=False)
        norm = functools.partial(ClassNorm, self.classes, self.dtype)
        hidden = double(jax.nn.relu(norm(name='norm_0')(features, labels, train)))
        hidden = conv(size=3, name='conv_0')(hidden, train)
        hidden = jax.nn.relu(norm(name='norm_1')(hidden, labels, train))
        hidden = conv(size=3, name='conv_1')(hidden, train)
        # A 1x1 convolution commutes with nearest-neighbour upsampling and is cheaper before it.
        return hidden + double(conv(size=1, name='conv_shortcut')(features, train))


class DownBlock(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, pooling; the shortcut is 1x1 and pooling. The first block has no leading ReLU."""

    width: int
    first: bool
    down: bool
    spectral: bool
    dtype: Literal['float32', 'bfloat16']

    @nn.compact
    def __call__(
        self, features: Float[Array, 'batch height width channels'], train: bool
    ) -> Float[Array, 'batch height_out width_out channels_out']:
        """Computes features of `width` channels, at half the size if `down`."""
        conv = functools.partial(Conv, self.width, spectral=self.spectral, dtype=self.dtype)
        hidden = features if self.first else jax.nn.relu(features)
        hidden = jax.nn.relu(conv(size=3, name='conv_0')(hidden, train))
        hidden = conv(size=3, name='conv_1')(hidden, train)
        if self.down:  # average pooling commutes with the 1x1 convolution
            hidden, features = halve(hidden), halve(features)
        if self.down or features.shape[-1] != self.width:
            features = conv(size=1, name='conv_shortcut')(features, train)
        return hidden + features


class ResNetGenerator(nn.Module):
    """A dense layer to a coarse feature map, residual blocks that double its size, norm, ReLU, 3x3 and tanh."""

    shape: tuple[int, ...]  # height, width, channels
    classes: int = 0
    widths: Sizes = (128, 64, 32)  # channels of the coarse feature map and of each block
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    def __post_init__(self):
        check_doublings(self.shape, len(self.widths) - 1, self.widths)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, noise: Float[Array, 'batch latent'], labels: Int[Array, 'batch'], train: bool = False
    ) -> Float[Array, 'batch height width channels']:
        """Generates images in (-1, 1)."""
        times = 2 ** (len(self.widths) - 1)
        coarse = (self.shape[0] // times, self.shape[1] // times, self.widths[0])
        hidden = Dense(math.prod(coarse), False, self.dtype, name='coarse')(noise, train).reshape(-1, *coarse)
        for number, width in enumerate(self.widths[1:]):
            hidden = UpBlock(width, self.classes, self.dtype, name=f'block_{number}')(hidden, labels, train)
        hidden = jax.nn.relu(ClassNorm(0, self.dtype, name='norm')(hidden, labels, train))
        image = Conv(self.shape[2], 3, False, self.dtype, name='image')(hidden, train)
        return jnp.tanh(image.astype(jnp.float32))


def project(
    features: Float[Array, 'batch width'], labels: Int[Array, 'batch'], classes: int, spectral: bool, train: bool
) -> Float[Array, 'batch']:
    """Computes one logit per row, with a projection on the label if there are classes; call it in a compact method."""
    logit = Dense(1, spectral, name='head')(features, train)[:, 0]
    if classes:
        embedded = Embed(classes, features.shape[-1], spectral, name='label')(labels, train)
        logit += jnp.sum(embedded * features, axis=-1)
    return logit


class ResNetDiscriminator(nn.Module):
    """Residual blocks, the first `halvings` of which downsample, then ReLU, sum over pixels, one logit."""

    classes: int = 0
    widths: Sizes = (32, 64, 128)  # channels of each block
    halvings: Count = 2
    spectral: bool = True
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    @nn.compact
    def __call__(
        self,
        images: Float[Array, 'batch height width channels'],
        labels: Int[Array, 'batch'],
        train: bool = False,
    ) -> Float[Array, 'batch']:
        """Computes one logit per image; large values mean real."""
        halvings = min(self.halvings, len(self.widths))
        if min(images.shape[1:3]) < 2**halvings:
            raise SettingError(
                f'halvings={halvings}:', f'{images.shape[1]}x{images.shape[2]} pixels cannot be halved {halvings} times'
            )
        hidden = images
        for number, width in enumerate(self.widths):
            options = (width, number == 0, number < self.halvings, self.spectral, self.dtype)
            hidden = DownBlock(*options, name=f'block_{number}')(hidden, train)
        features = jnp.sum(jax.nn.relu(hidden).astype(jnp.float32), axis=(1, 2))
        return project(features, labels, self.classes, self.spectral, train)


class ConvSNDiscriminator(nn.Module):
    """4x4 convolutions of stride 2, one 3x3 convolution, LeakyReLU 0.1, one logit; all layers with spectral norm.

    Table 3 of the paper, without the 3x3 convolution before each downsampling. Its generator is
    `dcgan.DCGANGenerator`.
    """

    classes: int = 0
    widths: Sizes = (64, 128)  # channels of each 4x4 convolution
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    @nn.compact
    def __call__(
        self,
        images: Float[Array, 'batch height width channels'],
        labels: Int[Array, 'batch'],
        train: bool = False,
    ) -> Float[Array, 'batch']:
        """Computes one logit per image; large values mean real."""
        hidden = images
        for number, width in enumerate(self.widths):
            conv = Conv(width, 4, True, self.dtype, stride=2, name=f'conv_{number}')
            hidden = jax.nn.leaky_relu(conv(hidden, train), 0.1)
        conv = Conv(self.widths[-1], 3, True, self.dtype, name='conv_last')
        hidden = jax.nn.leaky_relu(conv(hidden, train), 0.1)
        features = hidden.reshape(hidden.shape[0], -1).astype(jnp.float32)
        return project(features, labels, self.classes, True, train)
