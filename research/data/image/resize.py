"""Bicubic resizing with antialiasing, as MATLAB's `imresize` does it.

The kernel is cubic convolution with a = -0.5 (R. Keys, IEEE Transactions on Acoustics 29(6), 1981, eq. 15). For
downscaling it is stretched by the factor. Borders are mirrored with the edge pixel repeated, and the weights of an
output pixel are normalised. Pillow renormalises at borders instead, and OpenCV does not stretch the kernel; published
results of super-resolution use this one.
"""

import fractions
import functools
import math

import numpy as np
from jaxtyping import Float, Shaped


def cubic(x: Float[np.ndarray, '...']) -> Float[np.ndarray, '...']:
    """The cubic convolution kernel with a = -0.5, zero beyond 2."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


@functools.lru_cache(maxsize=256)
def weights_of(size: int, factor: fractions.Fraction) -> Float[np.ndarray, 'output input']:
    """The matrix that resizes one axis of `size` pixels to ceil(size * factor) pixels."""
    scale = float(factor)
    stretch = min(scale, 1.0)  # below 1: a wider kernel, against aliasing
    output = math.ceil(size * factor)
    centers = (np.arange(output) + 0.5) / scale - 0.5
    taps = math.ceil(4 / stretch) + 2
    positions = np.floor(centers - 2 / stretch)[:, None] + np.arange(taps)
    weights = cubic((centers[:, None] - positions) * stretch)
    weights /= weights.sum(1, keepdims=True)
    mirrored = np.mod(positions.astype(int), 2 * size)
    mirrored = np.minimum(mirrored, 2 * size - 1 - mirrored)
    matrix = np.zeros((output, size))
    np.add.at(matrix, (np.arange(output)[:, None], mirrored), weights)
    return matrix


def resize(
    image: Shaped[np.ndarray, 'height width *channels'], factor: fractions.Fraction | int
) -> Shaped[np.ndarray, 'height_out width_out *channels']:
    """Resizes a picture by a factor; sides are rounded up.

    Args:
      image: uint8, whose result is rounded and clipped, or float, whose result is neither.
      factor: 3, or fractions.Fraction(1, 3).
    """
    factor = fractions.Fraction(factor)
    rows, columns = (weights_of(size, factor) for size in image.shape[:2])
    values = np.tensordot(rows, image.astype(np.float64), (1, 0))
    values = np.moveaxis(np.tensordot(values, columns, (1, 1)), -1, 1)
    if image.dtype == np.uint8:
        return np.clip(np.round(values), 0, 255).astype(np.uint8)
    return values.astype(image.dtype)
