"""The kernel distance between two clouds of points (KID), exact over all pairs; from sums alone where they are narrow.

Binkowski et al. 2018 (arXiv:1801.01401), section 4: the squared maximum mean discrepancy under the kernel
k(x, y) = (x.y / d + 1)^3, estimated without bias (Gretton et al. 2012, lemma 6). That kernel is the inner product
of u (x) u (x) u with u = (x / sqrt(d), 1), so sums over pairs of points are products of sums over points: no pair
is ever formed, no subset drawn, and the result depends on no order. It takes (d + 1)^3 numbers: of wider points the
first 2,000 are kept instead, and all their pairs formed.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

WIDEST = 128  # numbers of a point for which sums are taken
KEPT = 2000  # points of each cloud that are kept where they are wider


class KernelSums(NamedTuple):
    """What the distance needs of a cloud."""

    count: float
    cube: Float[np.ndarray, 'lifted square']  # sum of u (x) u (x) u
    own: float  # sum of k(x, x)


class KernelPoints(NamedTuple):
    """The points themselves, where they are too wide for sums."""

    points: Float[np.ndarray, 'count width']


def kernel_points(
    points: Float[Array, 'batch width'], index: Int[Array, 'batch'], mask: Float[Array, 'batch']
) -> Float[Array, 'kept width']:
    """Returns 2,000 rows that are zero but for the points, each in the row of its index; others are left out."""
    place = jnp.where(mask > 0, index, KEPT)
    held = jnp.where(mask[:, None] > 0, points.astype(jnp.float32), 0.0)
    return jnp.zeros((KEPT, points.shape[1])).at[place].add(held, mode='drop')


def kernel_sums(
    points: Float[Array, 'batch width'], mask: Float[Array, 'batch']
) -> tuple[Float[Array, ''], Float[Array, 'lifted square'], Float[Array, '']]:
    """Returns count, sum of u (x) u (x) u and sum of k(x, x) over the points whose mask is 1."""
    width = points.shape[1]
    points = jnp.where(mask[:, None] > 0, points.astype(jnp.float32), 0.0) / np.float32(width**0.5)
    lifted = jnp.concatenate([points, jnp.ones((len(points), 1))], axis=1) * mask[:, None]
    square = (lifted[:, :, None] * lifted[:, None, :]).reshape(len(points), -1)
    own = jnp.sum(mask * jnp.sum(jnp.square(lifted), axis=1) ** 3)
    return jnp.sum(mask), jnp.matmul(lifted.T, square, precision='highest'), own


Cloud = KernelSums | KernelPoints


def pairs(first: KernelPoints, second: KernelPoints) -> Float[np.ndarray, 'first second']:
    """Returns the kernel of every pair, in float64."""
    products = np.asarray(first.points, np.float64) @ np.asarray(second.points, np.float64).T
    return (products / first.points.shape[1] + 1) ** 3


def mean_within(cloud: Cloud) -> float:
    """Returns the mean kernel over pairs of different points."""
    if isinstance(cloud, KernelPoints):
        found, count = pairs(cloud, cloud), len(cloud.points)
        return (found.sum() - np.trace(found)) / (count * (count - 1))
    return (np.vdot(cloud.cube, cloud.cube) - cloud.own) / (cloud.count * (cloud.count - 1))


def kernel_distance(first: Cloud, second: Cloud) -> float:
    """Returns the unbiased squared discrepancy; it may fall a little below zero. At least two points each.

    The mean kernel over pairs of different points within each cloud, less twice that between the clouds.
    """
    if isinstance(first, KernelPoints):
        across = pairs(first, second).mean()
    else:
        across = np.vdot(first.cube, second.cube) / (first.count * second.count)
    return float(mean_within(first) + mean_within(second) - 2 * across)


def kernel_distance_of_point(point: Float[np.ndarray, 'width'], cloud: Cloud) -> float:
    """Returns the same from one point, drawn again and again, to a cloud."""
    lifted = np.append(np.asarray(point, np.float64) / len(point) ** 0.5, 1.0)
    if isinstance(cloud, KernelPoints):
        across = pairs(KernelPoints(np.asarray(point)[None]), cloud).mean()
    else:
        across = np.vdot(np.outer(lifted, np.outer(lifted, lifted).ravel()), cloud.cube) / cloud.count
    return float(np.dot(lifted, lifted) ** 3 + mean_within(cloud) - 2 * across)
