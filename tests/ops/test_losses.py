"""Losses against float64 references written from the papers, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax

from research.ops.losses import sigmoid_cross_entropy, softmax_cross_entropy

RNG = np.random.default_rng(0)


def smoothed_target(labels, classes, smoothing):
    """Returns the distribution of Szegedy et al. 2016, section 7, in float64."""
    return (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([2, 7]),
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from([1.0, 30.0]),
)
def test_softmax_cross_entropy_is_minus_the_expected_log_probability(classes, seed, smoothing, scale):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(6, classes)) * scale
    labels = rng.integers(classes, size=6)
    target = smoothed_target(labels, classes, smoothing)
    expected = -(target * log_softmax(logits, -1)).sum(-1)
    values = softmax_cross_entropy(jnp.float32(logits), labels, smoothing)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_gradient_of_softmax_cross_entropy_is_probability_minus_target(smoothing):
    logits, labels = RNG.normal(size=(5, 7)), RNG.integers(7, size=5)
    gradient = jax.grad(lambda x: softmax_cross_entropy(x, labels, smoothing).sum())(jnp.float32(logits))
    expected = np.exp(log_softmax(logits, -1)) - smoothed_target(labels, 7, smoothing)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_losses_are_float32_and_finite_for_large_bfloat16_logits():
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]], jnp.bfloat16)
    values = softmax_cross_entropy(logits, jnp.array([0, 0]))
    assert values.dtype == jnp.float32 and np.isfinite(values).all() and values[0] == 0
    values = sigmoid_cross_entropy(logits, jnp.ones_like(logits))
    assert values.dtype == jnp.float32 and np.isfinite(values).all()


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_sigmoid_cross_entropy_and_its_gradient(smoothing):
    logits, targets = RNG.normal(size=20) * 4, RNG.random(20)
    soft = (1 - smoothing) * targets + smoothing / 2
    expected = -soft * np.log(expit(logits)) - (1 - soft) * np.log(1 - expit(logits))
    values = sigmoid_cross_entropy(jnp.float32(logits), jnp.float32(targets), smoothing)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    gradient = jax.grad(lambda x: sigmoid_cross_entropy(x, targets, smoothing).sum())(jnp.float32(logits))
    np.testing.assert_allclose(gradient, expit(logits) - soft, atol=1e-6)
