"""Moves pixels between space and channels, and enlarges pictures on the device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def space_to_depth(
    images: Float[Array, 'batch height width channels'], factor: int
) -> Float[Array, 'batch height_out width_out channels_out']:
    """Moves each square of `factor` x `factor` pixels into the channels; the factor divides both sides."""
    batch, height, width, channels = images.shape
    squares = images.reshape(batch, height // factor, factor, width // factor, factor, channels)
    return jnp.transpose(squares, (0, 1, 3, 2, 4, 5)).reshape(batch, height // factor, width // factor, -1)


def depth_to_space(
    features: Float[Array, 'batch height width channels'], factor: int
) -> Float[Array, 'batch height_out width_out channels_out']:
    """The inverse of `space_to_depth` ("pixel shuffle", Shi et al. 2016, arXiv:1609.05158, eq. 4)."""
    batch, height, width, _ = features.shape
    squares = features.reshape(batch, height, width, factor, factor, -1)
    return jnp.transpose(squares, (0, 1, 3, 2, 4, 5)).reshape(batch, height * factor, width * factor, -1)


def enlarge(
    images: Float[Array, 'batch height width channels'], factor: int
) -> Float[Array, 'batch height_out width_out channels']:
    """Enlarges pictures by cubic convolution (a = -0.5), as `research.data.image.resize` does apart from borders."""
    batch, height, width, channels = images.shape
    shape = (batch, height * factor, width * factor, channels)
    return jax.image.resize(images, shape, 'cubic') if factor > 1 else images
