"""DCGAN: a discriminator of strided convolutions, a generator of transposed ones, batch norm in both.

Radford et al. 2016 (arXiv:1511.06434), section 3 and figure 1. Kernels are 4x4: a size that the stride divides
avoids checkerboard artifacts. With `classes` above 0 both are conditioned on the label, as in `nn.gan`.
"""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from research.errors import Sizes
from research.nn.gan import MAX_NORM_GROUPS, ConvDiscriminator, check_doublings, with_label
from research.nn.resnet import normalize
from research.ops.convolution import convolution

KERNEL_INIT = nn.initializers.normal(0.02)  # section 4 of the paper


class Doubling(nn.Module):
    """A transposed 4x4 convolution of stride 2; equals `nn.ConvTranspose` with the same parameters.

    Every output pixel depends on 2x2 input pixels, so four interleaved 2x2 convolutions compute the same (Shi et al.
    2016, arXiv:1609.07009). XLA's kernel gradient of the transposed form is slow on a CPU.
    """

    width: int
    use_bias: bool = True
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    @nn.compact
    def __call__(self, x: Float[Array, 'batch height width channels']) -> Array:
        """Upsamples the features to twice the height and width."""
        batch, height, width, channels = x.shape
        kernel = self.param('kernel', KERNEL_INIT, (4, 4, channels, self.width)).astype(self.dtype)
        convolve = functools.partial(convolution, x.astype(self.dtype), window_strides=(1, 1))
        # Row 2i + a of the output is the sum over t of x[i + t + a - 1] kernel[2t + a]; the same for columns.
        phases = [
            convolve(kernel[a::2, b::2], padding=((1 - a, a), (1 - b, b))) for a in (0, 1) for b in (0, 1)
        ]
        x = jnp.stack(phases, axis=-2).reshape(batch, height, width, 2, 2, self.width)
        x = x.swapaxes(2, 3).reshape(batch, 2 * height, 2 * width, self.width)
        return x + self.param('bias', nn.initializers.zeros, (self.width,)).astype(self.dtype) if self.use_bias else x


class DCGANGenerator(nn.Module):
    """A dense layer to a coarse feature map, transposed convolutions that double its size, and tanh."""

    shape: tuple[int, ...]  # height, width, channels; two widths start 28, 32 and 64 pixels from 7, 8 and 16
    classes: int = 0
    widths: Sizes = (128, 64)  # channels of each feature map, coarsest first; each is doubled in size
    norm: Literal['none', 'batch', 'group'] = 'batch'
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    def __post_init__(self):
        check_doublings(self.shape, len(self.widths), self.widths)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, noise: Float[Array, 'batch latent'], labels: Int[Array, 'batch'], train: bool = False
    ) -> Float[Array, 'batch height width channels']:
        """Generates images in (-1, 1)."""
        shared: dict[str, Any] = dict(dtype=self.dtype, kernel_init=KERNEL_INIT)
        times = 2 ** len(self.widths)
        coarse = (self.shape[0] // times, self.shape[1] // times, self.widths[0])
        hidden = with_label(noise, labels, self.classes)
        dense = nn.Dense(math.prod(coarse), use_bias=self.norm == 'none', name='coarse', **shared)
        hidden = dense(hidden).reshape(-1, *coarse)
        hidden = jax.nn.relu(normalize(hidden, 'norm_coarse', self.norm, MAX_NORM_GROUPS, train, self.dtype))
        conv = functools.partial(Doubling, dtype=self.dtype)
        for number, width in enumerate(self.widths[1:]):
            hidden = conv(width, use_bias=self.norm == 'none', name=f'conv_{number}')(hidden)
            hidden = jax.nn.relu(normalize(hidden, f'norm_{number}', self.norm, MAX_NORM_GROUPS, train, self.dtype))
        return jnp.tanh(conv(self.shape[2], name='image')(hidden).astype(jnp.float32))


class DCGANDiscriminator(ConvDiscriminator):
    """4x4 convolutions of stride 2, LeakyReLU 0.2, batch norm after all but the first."""

    widths: Sizes = (64, 128)
    norm: Literal['none', 'batch', 'group'] = 'batch'

    def convolution(self, number: int) -> dict:
        """Keywords of every convolution, regardless of its number."""
        return dict(kernel_size=(4, 4), strides=2, kernel_init=KERNEL_INIT)
