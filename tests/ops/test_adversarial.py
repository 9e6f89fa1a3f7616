"""A GAN's losses and penalties against float64 references written from the papers, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from research.errors import UserError
from research.ops.adversarial import (
    adversarial_loss,
    discriminator_accuracy,
    gradient_penalty,
    lazy_regularization,
    r1_penalty,
)
from research.ops.losses import sigmoid_cross_entropy

RNG = np.random.default_rng(0)


def hand_written(name, real, fake):
    """Returns both sides of the game and its derivatives by real, fake and made logits, in float64."""
    ones = np.ones_like(fake)
    sides = -np.log(expit(real)) - np.log(1 - expit(fake))
    slopes = expit(real) - 1, expit(fake)
    return {
        'non_saturating': (sides, -np.log(expit(fake)), *slopes, expit(fake) - 1),
        'minimax': (sides, np.log(1 - expit(fake)), *slopes, -expit(fake)),
        'hinge': (
            np.maximum(0, 1 - real) + np.maximum(0, 1 + fake),
            -fake,
            -(real < 1).astype(float),
            (fake > -1).astype(float),
            -ones,
        ),
        'wasserstein': (fake - real, -fake, -ones, ones, -ones),
        'least_squares': ((real - 1) ** 2 / 2 + fake**2 / 2, (fake - 1) ** 2 / 2, real - 1, fake, fake - 1),
    }[name]


@pytest.mark.parametrize('name', ['non_saturating', 'minimax', 'hinge', 'wasserstein', 'least_squares'])
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
    large = game.discriminator(jnp.bfloat16([1e4, -1e4]), jnp.bfloat16([-1e4, 1e4]))
    assert large.dtype == jnp.float32 and np.isfinite(large).all()


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


WIDTH = 6
WEIGHT, SECOND = RNG.normal(size=(WIDTH, 5)), RNG.normal(size=5)


def judge_of(weight):
    """Returns a discriminator of one hidden layer of tanh."""
    return lambda pictures: jnp.tanh(pictures.reshape(len(pictures), -1) @ weight) @ jnp.float32(SECOND)


def slopes_by_hand(points, weight):
    """Returns the gradient of each logit by its picture, in float64: W (b (1 - tanh^2))."""
    return (SECOND * (1 - np.tanh(points @ weight) ** 2)) @ weight.T


def penalties_by_hand(real, fake, share, weight):
    r1 = (slopes_by_hand(real, weight) ** 2).sum(1) / 2
    between = share[:, None] * real + (1 - share[:, None]) * fake
    return r1, (np.sqrt((slopes_by_hand(between, weight) ** 2).sum(1)) - 1) ** 2


def differences(function, weight, step=1e-6):
    """Returns the gradient of a function of a matrix by central differences, in float64."""
    gradient = np.zeros_like(weight)
    for place in np.ndindex(*weight.shape):
        high, low = weight.copy(), weight.copy()
        high[place], low[place] = high[place] + step, low[place] - step
        gradient[place] = (function(high) - function(low)) / (2 * step)
    return gradient


def test_penalties_and_their_gradients_by_the_parameters():
    real, fake, share = RNG.normal(size=(7, WIDTH)), RNG.normal(size=(7, WIDTH)), RNG.random(7)
    x, y = (jnp.float32(each).reshape(7, 2, 3, 1) for each in (real, fake))
    mask = np.float32([1, 1, 1, 1, 1, 0, 0])

    def both(weight):
        judge = judge_of(weight)
        return r1_penalty(judge, x), gradient_penalty(judge, x, y, jnp.float32(share))

    for number in (0, 1):
        expected = penalties_by_hand(real, fake, share, WEIGHT)[number]
        np.testing.assert_allclose(both(jnp.float32(WEIGHT))[number], expected, rtol=1e-5)
        gradient = jax.grad(lambda weight, number=number: jnp.sum(both(weight)[number] * mask))(jnp.float32(WEIGHT))
        by_hand = differences(
            lambda weight, number=number: (penalties_by_hand(real, fake, share, weight)[number] * mask).sum(), WEIGHT
        )
        np.testing.assert_allclose(gradient, by_hand, rtol=2e-4, atol=1e-5)


def test_penalty_of_a_discriminator_without_a_slope_has_a_finite_gradient():
    x = jnp.ones((3, 2, 2, 1))

    def loss(scale):
        return gradient_penalty(lambda given: scale * given.sum((1, 2, 3)), x, x, jnp.ones(3)).sum()

    value, gradient = jax.value_and_grad(loss)(0.0)
    assert value == pytest.approx(3, abs=1e-5) and np.isfinite(gradient)


def test_a_lazy_penalty_is_as_large_on_average():
    values = [lazy_regularization(lambda: jnp.float32([1.0, 2.0]), jnp.int32(step), 4) for step in range(8)]
    np.testing.assert_allclose(np.mean(values, 0), [1, 2])
    assert [float(value[0]) for value in values] == [4, 0, 0, 0, 4, 0, 0, 0]


def test_how_often_the_discriminator_is_right_depends_on_where_its_zero_is():
    real, fake, mask = jnp.float32([0.7, 0.2, 9]), jnp.float32([0.3, -1.0, 9]), jnp.float32([1, 1, 0])
    assert {name: float(value) for name, value in discriminator_accuracy(real, fake, mask, 0.5).items()} == {
        'real_right': 1,
        'fake_right': 2,
    }
    assert float(discriminator_accuracy(real, fake, mask, None)['difference']) == pytest.approx(1.6)
