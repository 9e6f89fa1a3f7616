"""Spectral normalization: layers whose kernel is divided by its largest singular value.

Miyato et al. 2018 (arXiv:1802.05957), section 2.1 and algorithm 1: one power iteration per training step, which starts
from the vector of the previous step, kept in the collection 'spectral'. All computations are in float32.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from research.ops.convolution import convolution

COLLECTION = 'spectral'
EPSILON = 1e-12


def unit(vector: Float[Array, 'size']) -> Float[Array, 'size']:
    return vector / (jnp.linalg.norm(vector) + EPSILON)


def start(key: Any, size: int) -> Float[Array, 'size']:
    return unit(jax.random.normal(key, (size,)))


def normalized(module: nn.Module, kernel: Float[Array, '*inputs outputs'], train: bool) -> Array:
    """Divides a kernel, as a matrix [inputs, outputs], by its largest singular value; call it in a compact method.

    Training updates the stored singular vector. No gradient flows through the singular vectors.
    """
    matrix = kernel.astype(jnp.float32).reshape(-1, kernel.shape[-1])
    vector = module.variable(COLLECTION, 'right', lambda: start(module.make_rng('params'), matrix.shape[1]))

    def times(left: Array, right: Array) -> Array:
        return jnp.matmul(left, right, precision='highest')

    frozen = jax.lax.stop_gradient(matrix)
    left = unit(times(frozen, vector.value))
    right = unit(times(left, frozen))
    if train and not module.is_initializing():
        vector.value = right
    return kernel / times(times(left, matrix), right).astype(kernel.dtype)


class Dense(nn.Module):
    """A dense layer with optional spectral normalization."""

    width: int
    spectral: bool
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, 'batch inputs'], train: bool) -> Float[Array, 'batch width']:
        """Computes x W + b."""
        kernel = self.param('kernel', nn.initializers.xavier_uniform(), (x.shape[-1], self.width))
        if self.spectral:
            kernel = normalized(self, kernel, train)
        x = x.astype(self.dtype) @ kernel.astype(self.dtype)
        return x + self.param('bias', nn.initializers.zeros, (self.width,)).astype(self.dtype) if self.bias else x


class Conv(nn.Module):
    """A convolution with SAME padding and optional spectral normalization."""

    width: int
    size: int  # side of the kernel
    spectral: bool
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    bias: bool = True
    stride: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, 'batch height width channels'], train: bool
    ) -> Float[Array, 'batch height_out width_out channels_out']:
        """Convolves; the normalized matrix is [size * size * channels, width]."""
        shape = (self.size, self.size, x.shape[-1], self.width)
        kernel = self.param('kernel', nn.initializers.xavier_uniform(), shape)
        if self.spectral:
            kernel = normalized(self, kernel, train)
        x = convolution(x.astype(self.dtype), kernel.astype(self.dtype), (self.stride, self.stride), 'SAME')
        return x + self.param('bias', nn.initializers.zeros, (self.width,)).astype(self.dtype) if self.bias else x


class Embed(nn.Module):
    """An embedding table with optional spectral normalization."""

    count: int
    width: int
    spectral: bool

    @nn.compact
    def __call__(self, labels: Int[Array, 'batch'], train: bool) -> Float[Array, 'batch width']:
        """Looks up the labels; float32."""
        table = self.param('embedding', nn.initializers.xavier_uniform(), (self.count, self.width))
        if self.spectral:
            table = normalized(self, table, train)
        return table[labels]
