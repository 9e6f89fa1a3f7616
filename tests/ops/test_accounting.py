"""Epsilon against published numbers, and the releases that are counted."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.batches import training_rows
from research.errors import UserError
from research.ops import accounting

pytest.importorskip('dp_accounting', reason='the extra privacy is not installed')


@pytest.mark.parametrize(
    ('sigma', 'probability', 'epsilon', 'delta'),
    [
        (2.0, 0.01, 1.0, 0.010224911126651472),
        (2.0, 0.01, 0.8, 0.022850339595771204),
        (1.0, 0.01, 1.0, 0.2391763947364977),
        (2.0, 0.02, 1.0, 0.14991732969314892),
    ],
)
def test_epsilon_equals_the_fourier_accountant(sigma, probability, epsilon, delta):
    """Deltas of 10,000 steps, from tests/test_compute_delta.py of DPBayes/PLD-Accountant (Koskela 2020)."""
    spent = accounting.sampled_epsilon(sigma, probability, delta, failure=0.0)({1: 10_000})
    assert epsilon <= spent < epsilon * 1.002  # an upper bound, and a tight one


@pytest.mark.parametrize(
    ('sigma', 'probability', 'steps', 'published'),
    [
        # Abadi et al. 2016, figure 2: q = 0.01, sigma = 4, T = 10,000, by the moments accountant.
        (4.0, 0.01, 10_000, 1.26),
        # TensorFlow Privacy, tutorials/README.md: MNIST, batch 256, sigma 1.12 and 0.6 for 60 and 30 epochs.
        (1.12, 256 / 60_000, 60 * 60_000 // 256, 2.92),
        (0.6, 256 / 60_000, 30 * 60_000 // 256, 9.74),
        # Bu et al. 2020, figure 4: batch 256, sigma 1.3, 20 epochs.
        (1.3, 256 / 60_000, 20 * 60_000 // 256, 1.34),
    ],
)
def test_epsilon_lies_a_little_under_published_moments_accountants(sigma, probability, steps, published):
    """Those bound epsilon through Renyi divergences; a privacy loss distribution loses nothing to that."""
    spent = accounting.sampled_epsilon(sigma, probability, 1e-5)({1: steps})
    assert 0.74 * published < spent < published


def test_gaussian_epsilon_solves_its_equation():
    """delta = Phi(1/2s - e s) - exp(e) Phi(-1/2s - e s): Balle and Wang 2018, theorem 8."""
    epsilon = accounting.gaussian_epsilon(8.0, 1e-5, {2: 3, 1: 4})
    sigma = 8.0 / math.sqrt(10)

    def normal(x):
        return 0.5 * math.erfc(-x / math.sqrt(2))

    delta = normal(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * normal(-0.5 / sigma - epsilon * sigma)
    np.testing.assert_allclose(delta, 1e-5, rtol=1e-6)
    assert accounting.gaussian_epsilon(8.0, 1e-5, {}) == 0.0


def test_sampling_everything_is_the_gaussian_mechanism():
    exact = accounting.gaussian_epsilon(10.0, 1e-5, {1: 100})
    for releases in ({1: 100}, {2: 50}, {1: 60, 4: 10}):
        np.testing.assert_allclose(
            accounting.sampled_epsilon(10.0, 1.0, 1e-5, 0.0)(releases), exact, rtol=1e-3
        )


def test_batches_that_overflow_cost_delta():
    ideal, poor, hopeless = (accounting.sampled_epsilon(1.0, 0.01, 1e-5, each) for each in (0.0, 1e-8, 1e-7))
    releases = {1: 2000}
    spent = poor(releases)
    lost = 1e-8 * 0.01 * 2000 * math.exp(spent)
    assert ideal(releases) < spent and 1e-6 < lost < 1e-5
    exact = accounting.sampled_epsilon(1.0, 0.01, 1e-5 - lost, 0.0)(releases)
    np.testing.assert_allclose(spent, exact, rtol=1e-4)
    assert hopeless(releases) == math.inf
    real = accounting.sampled_epsilon(1.0, 0.01, 1e-5)(releases)
    np.testing.assert_allclose(real, ideal(releases), rtol=1e-6)
    assert ideal({}) == 0.0


def test_updates_of_several_groups_are_counted_together():
    assert accounting.updates_together(10, (1,)) == {1: 10}
    assert accounting.updates_together(10, (1, 3)) == {1: 7, 2: 3}
    assert accounting.updates_together(2, (3,)) == {}
    assert accounting.updates_together(0, (1, 1)) == {}


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 30), size=st.integers(1, 40), steps=st.integers(0, 8), groups=st.integers(1, 2))
def test_no_row_is_read_more_often_than_is_counted(count, size, steps, groups):
    """Of every row, the sum of squared appearances in each batch of shuffled epochs, which is what spends."""
    bound = sum(k * each for k, each in accounting.epochs_together(steps, size, count, groups).items())
    squares = np.zeros(count)
    for step in range(steps):
        squares += (
            np.bincount([row.index for row in training_rows(count, size, 7, step)], minlength=count) ** 2
        )
    assert groups * squares.max() <= bound
    if count % size == 0:
        assert groups * squares.max() == bound


def test_the_noise_multiplier_for_a_target():
    calls = []

    def epsilon(sigma):
        calls.append(sigma)
        return accounting.sampled_epsilon(sigma, 0.02, 1e-5)({1: 500})

    sigma = accounting.calibrate(epsilon, 2.0)
    assert 1.96 < epsilon(sigma) <= 2.0 and len(calls) < 15
    for target in (0.05, 200.0):  # above and below where the search starts
        sigma = accounting.calibrate(lambda each: accounting.gaussian_epsilon(each, 1e-5, {1: 5}), target)
        assert 0.98 * target < accounting.gaussian_epsilon(sigma, 1e-5, {1: 5}) <= target
    for target in (1e-6, 1e9):
        with pytest.raises(UserError, match='^epsilon='):
            accounting.calibrate(lambda each: accounting.gaussian_epsilon(each, 1e-5, {1: 5}), target)
