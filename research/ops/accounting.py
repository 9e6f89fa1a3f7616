"""What differentially private training has spent: epsilon at a given delta, by the dp-accounting library.

A release is one noised sum of rows clipped to norm C: its noise has standard deviation (noise multiplier) C.
Neighbouring data sets differ by one row that is there or is not.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from research.data.batches import OVERFLOW
from research.errors import UserError
from research.extras import require

Releases = Mapping[int, int]  # {k: steps in which the same rows went into k releases}


def library() -> Any:
    """Returns the module `dp_accounting`; a UserError that says how to install it where it is missing."""
    require('dp_accounting.pld')
    return require('dp_accounting')


def updates_together(steps: int, every: tuple[int, ...]) -> Releases:
    """Returns in how many of the first `steps` steps k groups are updated: group i in each `every[i]`-th."""
    number = np.arange(1, steps + 1)
    together = np.sum([number % each == 0 for each in every], axis=0, dtype=int)
    return {k: int(count) for k, count in enumerate(np.bincount(together)) if k and count}


def epochs_together(steps: int, batch_size: int, count: int, groups: int) -> Releases:
    """Returns a bound on the releases with any one row where batches run on through shuffled epochs.

    A row is read once in an epoch. A batch that runs over the end of an epoch may hold it twice: none does
    where the batch size divides the number of rows.
    """
    epochs = -(-steps * batch_size // count)
    if count % batch_size == 0:
        twice = 1
    elif batch_size % count == 0:
        twice = batch_size // count
    else:
        twice = (batch_size - 2) // count + 2
    # Of one row's share k in each step, sum(k) = epochs and k <= twice: sum(k^2) <= epochs * twice.
    return {groups * min(twice, epochs): epochs} if epochs else {}


def gaussian_epsilon(noise_multiplier: float, delta: float, releases: Releases) -> float:
    """Returns epsilon where nothing is claimed for sampling: that of the Gaussian mechanism.

    Balle and Wang 2018 (arXiv:1805.06530), theorem 8. Composed Gaussian releases are one release of a vector,
    whose sensitivity is the root of their number.
    """
    total = sum(k * steps for k, steps in releases.items())
    if not total:
        return 0.0
    with np.errstate(divide='ignore'):  # its search takes the logarithm of a probability that rounds to zero
        return float(library().get_epsilon_gaussian(noise_multiplier / math.sqrt(total), delta))


def sampled_epsilon(
    noise_multiplier: float, probability: float, delta: float, failure: float = OVERFLOW
) -> Callable[[Releases], float]:
    """Returns epsilon as a function of the releases, where each step's rows are a Poisson sample.

    Privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022), rounded upwards: an upper bound.
    k releases of one sample are one of sensitivity sqrt(k).

    Args:
      noise_multiplier: above zero.
      probability: with which a row is in a sample.
      delta: of the whole run.
      failure: the probability in each step that a batch overflows. It matters where the one row is in it and
        pushes another out, so in all with probability t = failure * probability * steps at most. Without
        that, the one row adds itself to what is there anyhow, as this function assumes; so delta is at most
        e^epsilon t above the ideal one, and that is taken off it.
    """
    make = library().pld.privacy_loss_distribution.from_gaussian_mechanism

    @functools.cache
    def single(k: int):
        sigma = noise_multiplier / math.sqrt(k)
        # A tenth of the deviation of one step's privacy loss keeps the bound within a percent, where that is
        # above 1e-4: finer grids take minutes.
        deviation = probability * math.sqrt(math.expm1(min(sigma**-2, 50.0)))
        interval = min(1e-3, max(1e-4, 0.1 * deviation))
        return make(sigma, sampling_prob=probability, value_discretization_interval=interval)

    def epsilon(releases: Releases) -> float:
        parts = [single(k).self_compose(steps) for k, steps in releases.items()]
        if not parts:
            return 0.0
        whole = functools.reduce(lambda one, other: one.compose(other), parts)
        spent, lost = 0.0, failure * probability * sum(releases.values())
        for _ in range(20):
            left = delta - math.exp(min(spent, 500.0)) * lost
            if left <= 0:
                return math.inf
            before, spent = spent, float(whole.get_epsilon_for_delta(left))
            if spent <= before * (1 + 1e-6):
                return spent
        return math.inf

    return epsilon


def calibrate(epsilon: Callable[[float], float], target: float) -> float:
    """Returns a noise multiplier with `epsilon(noise multiplier)` at most `target`, and at most 2% below it.

    `epsilon` falls as its argument rises.

    Raises:
      UserError: when no noise multiplier from 0.01 to 10,000 does it.
    """
    from scipy.optimize import brentq

    @functools.cache
    def excess(logarithm: float) -> float:
        return math.log(max(min(epsilon(math.exp(logarithm)), 1e9), 1e-9) / target)

    low = high = 0.0
    while excess(high) > 0:
        low, high = high, high + math.log(2)
    while excess(low) <= 0:
        low, high = low - math.log(2), low
        if low < math.log(0.01):
            break
    if not math.log(0.01) <= low < high <= math.log(1e4):
        raise UserError(
            f'config.privacy.epsilon={target}: no noise multiplier from 0.01 to 10,000 gives that'
        )
    found = brentq(excess, low, high, xtol=1e-3)
    while excess(found) > 0:
        found += 1e-3
    return math.exp(found)
