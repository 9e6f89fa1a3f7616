"""Losses against float64 references written from the papers, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax

from research.errors import UserError
from research.ops.losses import adversarial_loss, sigmoid_cross_entropy, softmax_cross_entropy

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


def hand_written(name, real, fake):
    """Returns the three terms of a GAN's game and their derivatives, in float64."""
    if name == 'non_saturating':
        judge = -np.log(expit(real)) - np.log(1 - expit(fake))
        return judge, -np.log(expit(fake)), expit(real) - 1, expit(fake), expit(fake) - 1
    judge = np.maximum(0, 1 - real) + np.maximum(0, 1 + fake)
    return judge, -fake, -(real < 1).astype(float), (fake > -1).astype(float), -np.ones_like(fake)


@pytest.mark.parametrize('name', ['non_saturating', 'hinge'])
def test_adversarial_losses_and_their_gradients(name):
    real, fake = RNG.normal(size=30) * 3, RNG.normal(size=30) * 3
    judge, make, by_real, by_fake, by_made = hand_written(name, real, fake)
    game, x, y = adversarial_loss(name), jnp.float32(real), jnp.float32(fake)
    np.testing.assert_allclose(game.discriminator(x, y), judge, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(game.generator(y), make, rtol=2e-5, atol=1e-6)
    gradients = jax.grad(lambda a, b: game.discriminator(a, b).sum(), argnums=(0, 1))(x, y)
    np.testing.assert_allclose(gradients[0], by_real, atol=1e-6)
    np.testing.assert_allclose(gradients[1], by_fake, atol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda b: game.generator(b).sum())(y), by_made, atol=1e-6)


def test_non_saturating_loss_is_binary_cross_entropy():
    real, fake = jnp.float32(RNG.normal(size=9)), jnp.float32(RNG.normal(size=9))
    game = adversarial_loss('non_saturating')
    ones, zeros = jnp.ones(9), jnp.zeros(9)
    expected = sigmoid_cross_entropy(real, ones) + sigmoid_cross_entropy(fake, zeros)
    np.testing.assert_allclose(game.discriminator(real, fake), expected, rtol=1e-6)
    np.testing.assert_allclose(game.generator(fake), sigmoid_cross_entropy(fake, ones), rtol=1e-6)


def test_an_unknown_adversarial_loss_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'hinge'"):
        adversarial_loss('hinj')
