"""The kernel distance between two sets of points (KID), exact over all pairs; for narrow points, from sums alone.

Binkowski et al. 2018 (arXiv:1801.01401), section 4: the squared maximum mean discrepancy under the kernel
k(x, y) = (x.y / d + 1)^3, by its unbiased estimator (Gretton et al. 2012, lemma 6). This kernel is an inner product
of u (x) u (x) u with u = (x / sqrt(d), 1), so sums over pairs of points are products of sums over points: exact,
without subsets, and independent of the order. The sums take (d + 1)^3 numbers. For wider points, the first 2,000 are
stored instead, and all their pairs are computed.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

MAX_SUMMED_WIDTH = 128  # features; wider points are stored
MAX_STORED_POINTS = 2000  # per set


class KernelSums(NamedTuple):
    """Sums over a set of points that determine the distance."""

    count: float
    cube: Float[np.ndarray, 'lifted square']  # sum of u (x) u (x) u
    diagonal: float  # sum of k(x, x)


class KernelPoints(NamedTuple):
    """Points that are too wide for sums."""

    points: Float[np.ndarray, 'count width']


def kernel_points(
    points: Float[Array, 'batch width'], index: Int[Array, 'batch'], mask: Float[Array, 'batch']
) -> Float[Array, 'kept width']:
    """Scatters points to the rows of their indices in an array of 2,000 rows; larger indices are dropped."""
    row = jnp.where(mask > 0, index, MAX_STORED_POINTS)
    masked = jnp.where(mask[:, None] > 0, points.astype(jnp.float32), 0.0)
    return jnp.zeros((MAX_STORED_POINTS, points.shape[1])).at[row].add(masked, mode='drop')


def kernel_sums(
    points: Float[Array, 'batch width'], mask: Float[Array, 'batch']
) -> tuple[Float[Array, ''], Float[Array, 'lifted square'], Float[Array, '']]:
    """Computes count, sum of u (x) u (x) u and sum of k(x, x) over the points whose mask is 1."""
    width = points.shape[1]
    points = jnp.where(mask[:, None] > 0, points.astype(jnp.float32), 0.0) / np.float32(width**0.5)
    lifted = jnp.concatenate([points, jnp.ones((len(points), 1))], axis=1) * mask[:, None]
    square = (lifted[:, :, None] * lifted[:, None, :]).reshape(len(points), -1)
    diagonal = jnp.sum(mask * jnp.sum(jnp.square(lifted), axis=1) ** 3)
    return jnp.sum(mask), jnp.matmul(lifted.T, square, precision='highest'), diagonal


KernelStats = KernelSums | KernelPoints


def pairs(first: KernelPoints, second: KernelPoints) -> Float[np.ndarray, 'first second']:
    """Computes the kernel of every pair, in float64."""
    products = np.asarray(first.points, np.float64) @ np.asarray(second.points, np.float64).T
    return (products / first.points.shape[1] + 1) ** 3


def mean_within(stats: KernelStats) -> float:
    """Mean kernel over pairs of different points."""
    if isinstance(stats, KernelPoints):
        matrix = pairs(stats, stats)
        count = len(stats.points)
        return (matrix.sum() - np.trace(matrix)) / (count * (count - 1))
    return (np.vdot(stats.cube, stats.cube) - stats.diagonal) / (stats.count * (stats.count - 1))


def kernel_distance(first: KernelStats, second: KernelStats) -> float:
    """Computes the unbiased squared discrepancy, which may be slightly negative; needs two points per set.

    The mean kernels over pairs of different points within each set, minus twice that across the sets.
    """
    if isinstance(first, KernelPoints):
        assert isinstance(second, KernelPoints)
        across = pairs(first, second).mean()
    else:
        assert isinstance(second, KernelSums)
        across = np.vdot(first.cube, second.cube) / (first.count * second.count)
    return float(mean_within(first) + mean_within(second) - 2 * across)


def kernel_distance_of_point(point: Float[np.ndarray, 'width'], stats: KernelStats) -> float:
    """Computes the same distance between a distribution on a single point and a set of points."""
    lifted = np.append(np.asarray(point, np.float64) / len(point) ** 0.5, 1.0)
    if isinstance(stats, KernelPoints):
        across = pairs(KernelPoints(np.asarray(point)[None]), stats).mean()
    else:
        across = np.vdot(np.outer(lifted, np.outer(lifted, lifted).ravel()), stats.cube) / stats.count
    return float(np.dot(lifted, lifted) ** 3 + mean_within(stats) - 2 * across)
