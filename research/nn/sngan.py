"""The networks of SNGAN: a convolutional discriminator and a residual pair, spectral norm, projection.

Miyato et al. 2018 (arXiv:1802.05957), appendix B; with `classes` above 0 a discriminator projects on the label, and
the residual generator's batch norm has a scale and an offset for each class (Miyato and Koyama 2018,
arXiv:1802.05637). With `spectral` off, the residual pair is that of WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028).
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from research.errors import UserError
from research.nn.apply import check_settings
from research.nn.gan import check_doublings
from research.nn.spectral import Conv, Dense, Embed


def double(features: Float[Array, 'batch height width channels']) -> Array:
    """Returns the picture at twice the size, each value four times."""
    return jnp.repeat(jnp.repeat(features, 2, axis=1), 2, axis=2)


def halve(features: Float[Array, 'batch height width channels']) -> Array:
    """Returns the picture at half the size, means of 2x2 values; an odd side loses its last row."""
    return nn.avg_pool(features, (2, 2), (2, 2))


class ClassNorm(nn.Module):
    """Batch norm, whose scale and offset are of the class where there are classes."""

    classes: int
    dtype: Literal['float32', 'bfloat16']

    @nn.compact
    def __call__(
        self, features: Float[Array, 'batch height width channels'], labels: Int[Array, 'batch'], train: bool
    ) -> Float[Array, 'batch height width channels']:
        """Returns the normalized features; statistics are of the whole batch, whatever its classes."""
        own = not self.classes
        norm = nn.BatchNorm(
            not train, momentum=0.9, dtype=self.dtype, use_scale=own, use_bias=own, name='norm'
        )
        features = norm(features)
        if own:
            return features
        shape = (self.classes, features.shape[-1])
        scale, offset = (
            self.param(name, start, shape)[labels][:, None, None].astype(self.dtype)
            for name, start in (('scale', nn.initializers.ones), ('bias', nn.initializers.zeros))
        )
        return features * scale + offset


class UpBlock(nn.Module):
    """Norm, ReLU, doubling, 3x3, norm, ReLU, 3x3; beside it doubling and 1x1."""

    width: int
    classes: int
    dtype: Literal['float32', 'bfloat16']

    @nn.compact
    def __call__(
        self, features: Float[Array, 'batch height width channels'], labels: Int[Array, 'batch'], train: bool
    ) -> Float[Array, 'batch height_out width_out channels_out']:
        """Returns features of `width` channels at twice the size."""
        # No biases: whatever is added to a whole channel, the norms that follow take off again.
        conv = functools.partial(Conv, self.width, spectral=False, dtype=self.dtype, bias=False)
        norm = functools.partial(ClassNorm, self.classes, self.dtype)
        hidden = double(jax.nn.relu(norm(name='norm_0')(features, labels, train)))
        hidden = conv(size=3, name='conv_0')(hidden, train)
        hidden = jax.nn.relu(norm(name='norm_1')(hidden, labels, train))
        hidden = conv(size=3, name='conv_1')(hidden, train)
        # A 1x1 convolution and the copying of values give the same in either order: the small picture first.
        return hidden + double(conv(size=1, name='conv_shortcut')(features, train))


class DownBlock(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, halving; beside it 1x1 and halving. The first block begins with its 3x3."""

    width: int
    first: bool
    down: bool
    spectral: bool
    dtype: Literal['float32', 'bfloat16']

    @nn.compact
    def __call__(
        self, features: Float[Array, 'batch height width channels'], train: bool
    ) -> Float[Array, 'batch height_out width_out channels_out']:
        """Returns features of `width` channels, at half the size where `down` is set."""
        conv = functools.partial(Conv, self.width, spectral=self.spectral, dtype=self.dtype)
        hidden = features if self.first else jax.nn.relu(features)
        hidden = jax.nn.relu(conv(size=3, name='conv_0')(hidden, train))
        hidden = conv(size=3, name='conv_1')(hidden, train)
        if self.down:  # means and a 1x1 convolution give the same in either order
            hidden, features = halve(hidden), halve(features)
        if self.down or features.shape[-1] != self.width:
            features = conv(size=1, name='conv_shortcut')(features, train)
        return hidden + features


class ResNetGenerator(nn.Module):
    """A dense layer to a coarse picture, residual blocks that double it, norm, ReLU, 3x3 and tanh."""

    shape: tuple[int, ...]  # height, width, channels
    classes: int = 0
    widths: tuple[int, ...] = (128, 64, 32)  # channels of the coarse picture and of each block
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    def __post_init__(self):
        check_settings(widths=self.widths)
        check_doublings(self.shape, len(self.widths) - 1, self.widths)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, noise: Float[Array, 'batch latent'], labels: Int[Array, 'batch'], train: bool = False
    ) -> Float[Array, 'batch height width channels']:
        """Returns images in (-1, 1)."""
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
    """Returns each row's logit, with its projection on the label where there are classes; call it while compact."""
    logit = Dense(1, spectral, name='head')(features, train)[:, 0]
    if classes:
        embedded = Embed(classes, features.shape[-1], spectral, name='label')(labels, train)
        logit += jnp.sum(embedded * features, axis=-1)
    return logit


class ResNetDiscriminator(nn.Module):
    """Residual blocks, of which the first `halvings` halve the picture, ReLU, sum over pixels, one logit."""

    classes: int = 0
    widths: tuple[int, ...] = (32, 64, 128)  # channels of each block
    halvings: int = 2
    spectral: bool = True
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    def __post_init__(self):
        check_settings(widths=self.widths, halvings=(self.halvings + 1,))
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        images: Float[Array, 'batch height width channels'],
        labels: Int[Array, 'batch'],
        train: bool = False,
    ) -> Float[Array, 'batch']:
        """Returns one logit per image: large where it looks real."""
        halvings = min(self.halvings, len(self.widths))
        if min(images.shape[1:3]) < 2**halvings:
            raise UserError(
                f'config.model.discriminator.halvings={halvings}: {images.shape[1]}x{images.shape[2]} pixels '
                'cannot be halved so often'
            )
        hidden = images
        for number, width in enumerate(self.widths):
            options = (width, number == 0, number < self.halvings, self.spectral, self.dtype)
            hidden = DownBlock(*options, name=f'block_{number}')(hidden, train)
        features = jnp.sum(jax.nn.relu(hidden).astype(jnp.float32), axis=(1, 2))
        return project(features, labels, self.classes, self.spectral, train)


class ConvSNDiscriminator(nn.Module):
    """4x4 convolutions that halve the picture, one of 3x3, LeakyReLU 0.1, one logit; spectral norm in all.

    Table 3 of the paper, without the 3x3 convolutions before each halving; `dcgan.DCGANGenerator` is its generator.
    """

    classes: int = 0
    widths: tuple[int, ...] = (64, 128)  # channels of each smaller picture
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    def __post_init__(self):
        check_settings(widths=self.widths)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        images: Float[Array, 'batch height width channels'],
        labels: Int[Array, 'batch'],
        train: bool = False,
    ) -> Float[Array, 'batch']:
        """Returns one logit per image: large where it looks real."""
        hidden = images
        for number, width in enumerate(self.widths):
            conv = Conv(width, 4, True, self.dtype, stride=2, name=f'conv_{number}')
            hidden = jax.nn.leaky_relu(conv(hidden, train), 0.1)
        conv = Conv(self.widths[-1], 3, True, self.dtype, name='conv_last')
        hidden = jax.nn.leaky_relu(conv(hidden, train), 0.1)
        features = hidden.reshape(hidden.shape[0], -1).astype(jnp.float32)
        return project(features, labels, self.classes, True, train)
