"""The Fréchet distance against closed forms and against SciPy's general matrix square root."""

import numpy as np
import pytest
import scipy.linalg

from research.ops.frechet import Moments, frechet_distance, moment_sums, moments


def cloud(count, width, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) * scale + rng.normal(size=width)


def of_points(points):
    return moments(*moment_sums(points.astype(np.float32), np.ones(len(points), np.float32)))


def test_moments_are_mean_and_covariance_and_padding_does_not_matter():
    points = cloud(50, 4, 0)
    padded = np.concatenate([points, np.full((7, 4), np.nan)]).astype(np.float32)
    count, total, square = moment_sums(padded, np.float32(np.arange(57) < 50))
    found = moments(count, total, square)
    np.testing.assert_allclose(found.mean, points.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.covariance, np.cov(points, rowvar=False), rtol=1e-3, atol=1e-4)


def test_distance_equals_the_formula_with_a_general_matrix_root():
    first, second = of_points(cloud(200, 6, 1)), of_points(cloud(200, 6, 2, 1.5))
    root = scipy.linalg.sqrtm(first.covariance @ second.covariance).real
    expected = np.sum((first.mean - second.mean) ** 2) + np.trace(
        first.covariance + second.covariance - 2 * root
    )
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-8)


def test_distance_of_normal_distributions_along_the_axes_has_a_closed_form():
    first = Moments(np.array([0.0, 1.0]), np.diag([1.0, 4.0]))
    second = Moments(np.array([3.0, 1.0]), np.diag([9.0, 0.0]))
    assert frechet_distance(first, second) == pytest.approx(9 + (1 - 3) ** 2 + (2 - 0) ** 2)


def test_distance_to_itself_is_zero_even_where_the_covariance_is_singular():
    points = np.hstack([cloud(20, 3, 4), np.zeros((20, 40))])
    same = of_points(points)
    assert 0 <= frechet_distance(same, same) < 1e-9
