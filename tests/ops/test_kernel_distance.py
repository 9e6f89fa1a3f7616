"""The kernel distance against the double loop over pairs, in float64."""

import jax
import numpy as np
import pytest

from research.ops.kernel_distance import KernelSums, kernel_distance, kernel_distance_of_point, kernel_sums

RNG = np.random.default_rng(0)


def kernel(x, y):
    return (np.dot(x, y) / len(x) + 1) ** 3


def by_pairs(first, second):
    """Returns the unbiased estimate of Gretton et al. 2012, equation 3, by its definition."""
    m, n = len(first), len(second)
    within = sum(kernel(first[i], first[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    other = sum(kernel(second[i], second[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    across = sum(kernel(x, y) for x in first for y in second) / (m * n)
    return within + other - 2 * across


def sums_of(points, parts=1):
    """Returns the sums of points that come in several batches, the last padded with numbers that are not any."""
    total = None
    for part in np.array_split(points, parts):
        padded = np.concatenate([part, np.full((2, part.shape[1]), np.nan)]).astype(np.float32)
        mask = np.float32(np.arange(len(padded)) < len(part))
        found = [np.asarray(x, np.float64) for x in jax.jit(kernel_sums)(padded, mask)]
        total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
    return KernelSums(*total)


@pytest.mark.parametrize('shift', [0.0, 0.5])
def test_distance_is_that_of_all_pairs(shift):
    first, second = RNG.normal(size=(24, 4)), RNG.normal(size=(32, 4)) * 1.2 + shift
    found = kernel_distance(sums_of(first, 3), sums_of(second, 2))
    assert found == pytest.approx(by_pairs(first, second), rel=1e-4, abs=1e-5)


def test_distance_of_a_point_is_that_of_its_copies():
    point, cloud = RNG.normal(size=4), RNG.normal(size=(20, 4))
    copies = np.tile(point, (5, 1))
    assert kernel_distance_of_point(point, sums_of(cloud)) == pytest.approx(by_pairs(copies, cloud), rel=1e-4)


def test_distance_between_halves_of_one_cloud_is_zero_on_average():
    values = []
    for _ in range(60):
        points = RNG.random(size=(40, 3))
        values.append(kernel_distance(sums_of(points[:20]), sums_of(points[20:])))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60) and min(values) < 0
