"""The Fréchet distance between two sets of points, each approximated by a normal distribution."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Moments(NamedTuple):
    """Mean and covariance (divided by n - 1) of a set of points."""

    mean: Float[np.ndarray, 'width']
    covariance: Float[np.ndarray, 'width width']


def moment_sums(
    points: Float[Array, 'batch width'], mask: Float[Array, 'batch']
) -> tuple[Float[Array, ''], Float[Array, 'width'], Float[Array, 'width width']]:
    """Computes count, sum of x and sum of x x^T over the points whose mask is 1.

    Subtract an approximate mean first, to avoid cancellation in float32.
    """
    points = jnp.where(mask[:, None] > 0, points.astype(jnp.float32), 0.0)
    square = jnp.matmul(points.T, points, precision='highest')
    return jnp.sum(mask), jnp.sum(points, axis=0), square


def moments(count: float, total: np.ndarray, square: np.ndarray) -> Moments:
    """Computes moments from the sums of `moment_sums` in float64; needs at least two points."""
    count, total, square = float(count), np.asarray(total, np.float64), np.asarray(square, np.float64)
    mean = total / count
    covariance = (square - count * np.outer(mean, mean)) / (count - 1)
    return Moments(mean, (covariance + covariance.T) / 2)


def symmetric_root(matrix: Float[np.ndarray, 'n n']) -> Float[np.ndarray, 'n n']:
    """Square root of a positive semidefinite matrix; negative eigenvalues, due to rounding, are set to zero."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def frechet_distance(first: Moments, second: Moments) -> float:
    """Computes |m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)), in squared units of the points.

    Dowson and Landau 1982, equation 4; the metric of Heusel et al. 2017 (arXiv:1706.08500, equation 6). The trace of
    (C1 C2)^(1/2) equals that of (R C2 R)^(1/2) with R the root of C1, a symmetric matrix, so it is stable and real
    even for singular covariances.
    """
    root = symmetric_root(first.covariance)
    values = np.linalg.eigvalsh(root @ second.covariance @ root)
    cross = np.sqrt(np.maximum(values, 0)).sum()
    distance = np.sum((first.mean - second.mean) ** 2)
    return float(max(distance + np.trace(first.covariance) + np.trace(second.covariance) - 2 * cross, 0.0))
