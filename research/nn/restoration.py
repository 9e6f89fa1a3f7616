"""Networks from a degraded grey picture to a restored one: fully convolutional, so for pictures of any size.

Each adds a learned correction to its input, enlarged if the output is larger. `reach` is the distance in pixels of the
input within which an output pixel depends on the input.
"""

import functools
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from research.errors import Count, PositiveInt, Range
from research.nn.convolution import Conv
from research.nn.resnet import normalize
from research.nn.tap import tap
from research.ops.pixels import depth_to_space, enlarge, space_to_depth

Depth = Annotated[int, Range(2)]
Precision = Literal['float32', 'bfloat16']
FIRST = nn.initializers.variance_scaling(0.01, 'fan_in', 'normal')  # of the last layer: starts near the input
HE = nn.initializers.he_normal()
CUBIC_REACH = 3  # of bicubic enlargement


def convolutions(module: nn.Module, features: Array, depth: int, norm: str, train: bool) -> Array:
    """Convolutions of 3x3 with ReLU, norms on all but the first; call it in a compact method of a network here."""
    for number in range(depth):
        biased = not number or norm == 'none'  # a norm would cancel the bias
        conv = Conv(module.width, (3, 3), use_bias=biased, kernel_init=HE, dtype=module.dtype, name=f'conv_{number}')
        features = conv(features)
        if number:
            features = normalize(features, f'norm_{number}', norm, 1, train, module.dtype)
        features = jax.nn.relu(features)
    return tap(module, 'features', features)


def last(module: nn.Module, features: Array, channels: int) -> Array:
    """The float32 output of the last convolution; call it in a compact method."""
    conv = Conv(channels, (3, 3), kernel_init=FIRST, dtype=module.dtype, name='last')
    return conv(features).astype(jnp.float32)


class DnCNN(nn.Module):
    """A residual denoiser of plain convolutions (Zhang et al. 2017, arXiv:1608.03981): depth 17, width 64 as published.

    It needs no strength of the degradation ("blind").
    """

    scale: int = 1
    width: PositiveInt = 64
    depth: Depth = 17  # convolutions
    norm: Literal['batch', 'none'] = 'batch'
    dtype: Precision = 'float32'

    @property
    def reach(self) -> int:
        return self.depth

    @nn.compact
    def __call__(
        self, images: Float[Array, 'batch height width 1'], levels: Float[Array, 'batch'], train: bool = False
    ) -> Float[Array, 'batch height width 1']:
        """Restores pictures; the levels are ignored."""
        del levels
        features = convolutions(self, images, self.depth - 1, self.norm, train)
        return images - last(self, features, 1)


class FFDNet(nn.Module):
    """A fast denoiser at half the resolution (Zhang et al. 2018, arXiv:1710.04026), told the strength per picture.

    2x2 pixels become channels, next to a constant channel with the level. Unlike theirs it adds a correction to its
    input. Depth 15, width 64, batch norm as published.
    """

    scale: int = 1
    width: PositiveInt = 48
    depth: Depth = 10  # convolutions
    norm: Literal['batch', 'none'] = 'none'
    dtype: Precision = 'float32'

    @property
    def reach(self) -> int:
        return 2 * self.depth + 2

    @nn.compact
    def __call__(
        self, images: Float[Array, 'batch height width 1'], levels: Float[Array, 'batch'], train: bool = False
    ) -> Float[Array, 'batch height width 1']:
        """Restores pictures with even sides."""
        squares = space_to_depth(images, 2)
        level = jnp.broadcast_to(levels[:, None, None, None], (*squares.shape[:3], 1))
        features = jnp.concatenate([squares, level], axis=-1)
        features = convolutions(self, features, self.depth - 1, self.norm, train)
        return images - depth_to_space(last(self, features, 4), 2)


class SubPixel(nn.Module):
    """Super-resolution that computes at the low resolution and enlarges last (Shi et al. 2016, arXiv:1609.05158).

    Residual blocks without norms, as in EDSR (Lim et al. 2017, arXiv:1707.02921; width 64, 16 blocks). With no block it
    is close to ESPCN. The correction is added to the bicubic enlargement, that of VDSR (arXiv:1511.04587).
    """

    scale: int
    width: PositiveInt = 32
    blocks: Count = 6
    dtype: Precision = 'float32'

    @property
    def reach(self) -> int:
        return 2 * self.blocks + 4 + CUBIC_REACH

    @nn.compact
    def __call__(
        self, images: Float[Array, 'batch height width 1'], levels: Float[Array, 'batch'], train: bool = False
    ) -> Float[Array, 'batch height_out width_out 1']:
        """Restores pictures at `scale` times their size; the levels are ignored."""
        del levels, train
        conv = functools.partial(Conv, self.width, (3, 3), kernel_init=HE, dtype=self.dtype)
        features = first = jax.nn.relu(conv(name='first')(images))
        for number in range(self.blocks):
            hidden = jax.nn.relu(conv(name=f'block_{number}_in')(features))
            features = features + 0.5 * conv(name=f'block_{number}_out')(hidden)
        features = jax.nn.relu(conv(name='middle')(features) + first) if self.blocks else features
        features = tap(self, 'features', features)
        correction = depth_to_space(last(self, features, self.scale**2), self.scale)
        return enlarge(images, self.scale) + correction
