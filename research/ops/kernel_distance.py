"""The kernel distance between two clouds of points (KID), exact over all pairs and from sums alone.

Binkowski et al. 2018 (arXiv:1801.01401), section 4: the squared maximum mean discrepancy under the kernel
k(x, y) = (x.y / d + 1)^3, estimated without bias (Gretton et al. 2012, lemma 6). That kernel is the inner product
of u (x) u (x) u with u = (x / sqrt(d), 1), so sums over pairs of points are products of sums over points: no pair
is ever formed, no subset drawn, and the result depends on no order. It takes (d + 1)^3 numbers.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

WIDEST = 128  # numbers a point may have


class KernelSums(NamedTuple):
    """What the distance needs of a cloud."""

    count: float
    cube: Float[np.ndarray, 'lifted square']  # sum of u (x) u (x) u
    own: float  # sum of k(x, x)


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


def kernel_distance(first: KernelSums, second: KernelSums) -> float:
    """Returns the unbiased squared discrepancy; it may fall a little below zero. At least two points each.

    The mean kernel over pairs of different points within each cloud, less twice that between the clouds.
    """

    def within(cloud: KernelSums) -> float:
        return (np.vdot(cloud.cube, cloud.cube) - cloud.own) / (cloud.count * (cloud.count - 1))

    across = np.vdot(first.cube, second.cube) / (first.count * second.count)
    return float(within(first) + within(second) - 2 * across)


def kernel_distance_of_point(point: Float[np.ndarray, 'width'], cloud: KernelSums) -> float:
    """Returns the same from one point, drawn again and again, to a cloud."""
    lifted = np.append(np.asarray(point, np.float64) / len(point) ** 0.5, 1.0)
    cube = np.outer(lifted, np.outer(lifted, lifted).ravel())
    within = (np.vdot(cloud.cube, cloud.cube) - cloud.own) / (cloud.count * (cloud.count - 1))
    return float(np.dot(lifted, lifted) ** 3 + within - 2 * np.vdot(cube, cloud.cube) / cloud.count)
