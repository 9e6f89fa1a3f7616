"""Privacy accounting: the epsilon that training has spent at a given delta, by the dp-accounting library.

A release is one noised sum of gradients clipped to norm C, with noise of standard deviation (noise multiplier) * C.
Neighbouring data sets differ by the presence of one row.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from research.data.batches import MAX_OVERFLOW_PROBABILITY
from research.errors import SettingError
from research.extras import require

Releases = Mapping[int, int]  # {k: number of steps whose rows take part in k releases}


def library() -> Any:
    """Imports `dp_accounting`; raises `UserError` with the install command if it is missing."""
    require('dp_accounting.pld')
    return require('dp_accounting')


def updates_together(steps: int, intervals: tuple[int, ...]) -> Releases:
    """Counts the first `steps` steps by how many groups they update; group i updates every `intervals[i]` steps."""
    number = np.arange(1, steps + 1)
    together = np.sum([number % interval == 0 for interval in intervals], axis=0, dtype=int)
    return {k: int(count) for k, count in enumerate(np.bincount(together)) if k and count}


def epochs_together(steps: int, batch_size: int, count: int, groups: int) -> Releases:
    """Bounds the releases that include any one row if batches follow each other through shuffled epochs.

    A row occurs once per epoch. A batch that spans two epochs may contain it twice, unless the batch size divides
    the number of rows.
    """
    epochs = -(-steps * batch_size // count)
    if count % batch_size == 0:
        occurrences = 1
    elif batch_size % count == 0:
        occurrences = batch_size // count
    else:
        occurrences = (batch_size - 2) // count + 2
    # If a row occurs k times in a step: sum(k) = epochs and k <= occurrences, so sum(k^2) <= epochs * occurrences.
    return {groups * min(occurrences, epochs): epochs} if epochs else {}


def gaussian_epsilon(noise_multiplier: float, delta: float, releases: Releases) -> float:
    """Epsilon of the Gaussian mechanism, without amplification by sampling.

    Balle and Wang 2018 (arXiv:1805.06530), theorem 8. n composed Gaussian releases equal one release of sensitivity
    sqrt(n).
    """
    total = sum(k * steps for k, steps in releases.items())
    if not total:
        return 0.0
    with np.errstate(divide='ignore'):  # its search takes the logarithm of a probability that may round to zero
        return float(library().get_epsilon_gaussian(noise_multiplier / math.sqrt(total), delta))


def sampled_epsilon(
    noise_multiplier: float, probability: float, delta: float, failure: float = MAX_OVERFLOW_PROBABILITY
) -> Callable[[Releases], float]:
    """Epsilon as a function of the releases, if each step's batch is a Poisson sample.

    An upper bound by privacy loss distributions with pessimistic rounding (Koskela et al. 2020; Doroshenko et al.
    2022). k releases of one sample equal one release of sensitivity sqrt(k).

    Args:
      noise_multiplier: above zero.
      probability: that a sample includes a given row.
      delta: of the whole run.
      failure: probability per step that a batch overflows. An overflow matters only if the batch includes the row in
        question, which then displaces another one: with probability t <= failure * probability * steps in the whole
        run. Otherwise the row is added to an unchanged batch, as the analysis assumes. So delta exceeds the ideal
        one by at most e^epsilon t, which is subtracted from the given delta.
    """
    make = library().pld.privacy_loss_distribution.from_gaussian_mechanism

    @functools.cache
    def single(k: int):
        sigma = noise_multiplier / math.sqrt(k)
        # A tenth of the standard deviation of one step's privacy loss keeps the bound within one percent. Below
        # 1e-4 the grid would take minutes.
        deviation = probability * math.sqrt(math.expm1(min(sigma**-2, 50.0)))
        interval = min(1e-3, max(1e-4, 0.1 * deviation))
        return make(sigma, sampling_prob=probability, value_discretization_interval=interval)

    def epsilon(releases: Releases) -> float:
        parts = [single(k).self_compose(steps) for k, steps in releases.items()]
        if not parts:
            return 0.0
        whole = functools.reduce(lambda one, other: one.compose(other), parts)
        spent = 0.0
        lost = failure * probability * sum(releases.values())
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
    """Finds a noise multiplier with `epsilon(noise_multiplier)` at most `target`, and at most 2% below it.

    `epsilon` must decrease in its argument.

    Raises:
      SettingError: if no noise multiplier from 0.01 to 10,000 reaches the target.
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
        raise SettingError(f'epsilon={target}:', 'no noise multiplier from 0.01 to 10,000 reaches it')
    log_multiplier = brentq(excess, low, high, xtol=1e-3)
    while excess(log_multiplier) > 0:
        log_multiplier += 1e-3  # pyright: ignore[reportOperatorIssue]
    return math.exp(log_multiplier)  # pyright: ignore[reportArgumentType]
