"""Generators and discriminators: a pair of perceptrons, as in tutorials, and a small convolutional pair.

A generator maps noise to an image in (-1, 1) by tanh; a discriminator maps such an image to one logit. With
`classes` above 0 both are conditioned on the label: the generator concatenates its one-hot vector with the noise, the
discriminator adds the inner product of its features and an embedding of the label (projection: Miyato and Koyama
2018, arXiv:1802.05637, equation 3).
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from research.errors import Rate, SettingError, Sizes
from research.nn.convolution import Conv
from research.nn.resnet import normalize

MAX_NORM_GROUPS = 8  # per group norm
leaky_relu = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)


def with_label(noise: Array, labels: Array, classes: int) -> Array:
    """Concatenates noise and one-hot labels; without classes, the noise alone."""
    return jnp.concatenate([noise, jax.nn.one_hot(labels, classes)], axis=-1) if classes else noise


def score(features: Array, labels: Array, classes: int, dtype: str) -> Array:
    """Computes one float32 logit per row of features; call it in a compact method."""
    logit = nn.Dense(1, dtype=dtype, name='head')(features)[:, 0].astype(jnp.float32)
    if classes:
        embedded = nn.Embed(classes, features.shape[-1], dtype=dtype, name='label')(labels)
        logit += jnp.sum((embedded * features).astype(jnp.float32), axis=-1)
    return logit


def check_doublings(shape: tuple[int, ...], count: int, widths: tuple[int, ...]) -> None:
    """Raises `SettingError` if an image of this shape cannot be reached by `count` doublings."""
    if shape[0] % 2**count or shape[1] % 2**count:
        raise SettingError(
            'widths:',
            f'{len(widths)} widths double the image {count} times, which does not lead to {shape[0]}x{shape[1]} '
            f'pixels; use fewer widths, or images whose sides are multiples of {2**count}',
        )


class MLPGenerator(nn.Module):
    """Hidden layers with LeakyReLU 0.2, then tanh."""

    shape: tuple[int, ...]  # height, width, channels
    classes: int = 0
    widths: Sizes = (128, 256, 512)
    norm: Literal['none', 'batch', 'group'] = 'none'
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    @nn.compact
    def __call__(
        self, noise: Float[Array, 'batch latent'], labels: Int[Array, 'batch'], train: bool = False
    ) -> Float[Array, 'batch height width channels']:
        """Generates images in (-1, 1)."""
        dense = functools.partial(nn.Dense, use_bias=self.norm == 'none', dtype=self.dtype)
        hidden = with_label(noise, labels, self.classes)
        for number, width in enumerate(self.widths):
            hidden = dense(width, name=f'hidden_{number}')(hidden)
            hidden = leaky_relu(normalize(hidden, f'norm_{number}', self.norm, MAX_NORM_GROUPS, train, self.dtype))
        pixels = nn.Dense(math.prod(self.shape), dtype=self.dtype, name='image')(hidden)
        return jnp.tanh(pixels.astype(jnp.float32)).reshape(-1, *self.shape)


class MLPDiscriminator(nn.Module):
    """Hidden layers with LeakyReLU 0.2 and dropout; the loss applies the sigmoid."""

    classes: int = 0
    widths: Sizes = (512, 256)
    dropout: Rate = 0.3
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    @nn.compact
    def __call__(
        self,
        images: Float[Array, 'batch height width channels'],
        labels: Int[Array, 'batch'],
        train: bool = False,
    ) -> Float[Array, 'batch']:
        """Computes one logit per image; large values mean real."""
        hidden = images.reshape(images.shape[0], -1)
        for number, width in enumerate(self.widths):
            hidden = leaky_relu(nn.Dense(width, dtype=self.dtype, name=f'hidden_{number}')(hidden))
            hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        return score(hidden, labels, self.classes, self.dtype)


class ConvGenerator(nn.Module):
    """A dense layer to a coarse feature map, then nearest-neighbour upsampling with 3x3 convolutions, and tanh.

    Resize-convolutions avoid the checkerboard artifacts of transposed ones: Odena et al. 2016,
    doi:10.23915/distill.00003.
    """

    shape: tuple[int, ...]  # height, width, channels
    classes: int = 0
    widths: Sizes = (64, 32)  # channels of each feature map, coarsest first; sizes double
    norm: Literal['none', 'batch', 'group'] = 'batch'
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
        hidden = with_label(noise, labels, self.classes)
        hidden = nn.Dense(math.prod(coarse), dtype=self.dtype, name='coarse')(hidden)
        hidden = leaky_relu(hidden).reshape(-1, *coarse)
        conv = functools.partial(Conv, kernel_size=(3, 3), dtype=self.dtype)
        for number, width in enumerate(self.widths):
            if number:
                hidden = jnp.repeat(jnp.repeat(hidden, 2, axis=1), 2, axis=2)
            hidden = conv(width, use_bias=self.norm == 'none', name=f'conv_{number}')(hidden)
            hidden = leaky_relu(normalize(hidden, f'norm_{number}', self.norm, MAX_NORM_GROUPS, train, self.dtype))
        return jnp.tanh(conv(self.shape[2], name='image')(hidden).astype(jnp.float32))


class ConvDiscriminator(nn.Module):
    """3x3 convolutions with LeakyReLU 0.2 and dropout; all after the first have stride 2."""

    classes: int = 0
    widths: Sizes = (32, 64)
    norm: Literal['none', 'batch', 'group'] = 'none'  # none after the first convolution
    dropout: Rate = 0.0
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
            norm = self.norm if number else 'none'
            shared = dict(use_bias=norm == 'none', dtype=self.dtype, name=f'conv_{number}')
            hidden = Conv(width, **shared, **self.convolution(number))(hidden)
            hidden = leaky_relu(normalize(hidden, f'norm_{number}', norm, MAX_NORM_GROUPS, train, self.dtype))
            hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        return score(hidden.reshape(hidden.shape[0], -1), labels, self.classes, self.dtype)

    def convolution(self, number: int) -> dict:
        """Keywords of the convolution with this number."""
        return dict(kernel_size=(3, 3), strides=2 if number else 1)
