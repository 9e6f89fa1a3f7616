"""Noise: normal, cut off as by drawing anew, and on the arc between two draws."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from research.ops.noise import NO_INTERPOLATION, between, noise_of, normal


def test_noise_is_standard_normal():
    noise = np.asarray(noise_of({'index': jnp.arange(2000)}, jax.random.key(0), 8))
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    assert np.abs(np.corrcoef(noise, rowvar=False) - np.eye(8)).max() < 0.1


def test_truncated_noise_is_what_drawing_anew_gives():
    noise = np.asarray(normal(jax.random.key(0), 4000, 0.7))
    assert np.abs(noise).max() <= 0.7
    assert scipy.stats.kstest(noise, scipy.stats.truncnorm(-0.7, 0.7).cdf).pvalue > 0.01


def test_the_way_between_two_draws_keeps_to_the_sphere():
    rng = np.random.default_rng(0)
    first, second = (jnp.float32(each / np.linalg.norm(each)) for each in rng.normal(size=(2, 16)))
    angle = np.arccos(np.dot(first, second))
    for at in (0.0, 0.3, 1.0):
        point = np.asarray(between(first, second, jnp.float32(at)))
        expected = (np.sin((1 - at) * angle) * first + np.sin(at * angle) * second) / np.sin(angle)
        np.testing.assert_allclose(point, expected, atol=1e-5)
        assert abs(np.linalg.norm(point) - 1) < 1e-5
    np.testing.assert_allclose(between(first, first, jnp.float32(0.5)), first, atol=1e-6)


def test_what_lies_between_two_seeds_depends_on_the_seeds_alone():
    key = jax.random.key(1)

    def draw(index, seed, to, at):
        rows = {'index': index, 'seed': seed, 'to': to, 'at': at}
        return np.asarray(noise_of({name: jnp.asarray([value]) for name, value in rows.items()}, key, 4))[0]

    np.testing.assert_array_equal(draw(0, 3, 4, 0.0), draw(9, 3, 7, 0.0))
    np.testing.assert_allclose(draw(0, 3, 4, 1.0), draw(0, 4, 3, 0.0), atol=1e-6)
    assert not np.allclose(draw(0, 3, NO_INTERPOLATION, 0.0), draw(9, 3, NO_INTERPOLATION, 0.0))
    plain = noise_of({'index': jnp.asarray([5]), 'seed': jnp.asarray([3])}, key, 4)[0]
    np.testing.assert_array_equal(draw(5, 3, NO_INTERPOLATION, 0.0), plain)
