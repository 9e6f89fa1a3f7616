"""How good predicted numbers are: masked sums, and metrics from them; rank correlation from the pairs."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.ops.classification import MetricRow, ratio


def regression_sums(
    predicted: Float[Array, 'batch'], targets: Float[Array, 'batch'], mask: Float[Array, 'batch']
) -> dict[str, Array]:
    """Returns sums over the examples whose mask is 1: everything that `regression_metrics` needs.

    Both are best given in standard deviations from the training mean: then no sum cancels.
    """
    there = mask > 0
    predicted = jnp.where(there, predicted.astype(jnp.float32), 0.0)
    targets = jnp.where(there, targets.astype(jnp.float32), 0.0)
    return {
        'count': jnp.sum(mask),
        'square': jnp.sum((predicted - targets) ** 2),
        'absolute': jnp.sum(jnp.abs(predicted - targets)),
        'moments': jnp.stack(
            [
                jnp.sum(predicted), jnp.sum(targets), jnp.sum(predicted**2), jnp.sum(targets**2),
                jnp.sum(predicted * targets), jnp.sum(jnp.abs(targets)),
            ]
        ),
    }  # fmt: skip


def regression_metrics(sums: Mapping[str, np.ndarray], deviation: float) -> dict[str, MetricRow]:
    """Returns the metrics of `regression_sums`, beside the baseline that always says the training mean.

    Args:
      sums: of numbers in standard deviations from the training mean, summed over a whole split.
      deviation: of the training split, by which errors are given in the unit of the labels.
    """
    count = float(sums['count'])
    p, t, pp, tt, pt, absolute = np.asarray(sums['moments'], float) / max(count, 1)
    covariance, spread = pt - p * t, np.sqrt(max(pp - p * p, 0.0) * max(tt - t * t, 0.0))
    mean = 'always the training mean'
    square, error = (float(ratio(sums[name], count)) for name in ('square', 'absolute'))
    return {
        'mse': MetricRow(square * deviation**2, tt * deviation**2, 'lower', 'mean squared error', mean),
        'mae': MetricRow(error * deviation, absolute * deviation, 'lower', 'mean absolute error', mean),
        'pearson': MetricRow(float(ratio(covariance, spread)), about='correlation of predictions and labels'),
        'loss': MetricRow(square, tt, 'lower', 'squared error in training variances', mean),
    }


def ranks(values: Sequence[float]) -> Float[np.ndarray, 'count']:
    """Returns the rank of each value from 1, equal ones sharing their mean rank."""
    values = np.asarray(values, float)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def spearman(predicted: Sequence[float], targets: Sequence[float]) -> float:
    """Returns the rank correlation (Spearman 1904): Pearson's of the ranks; 0 where one side is constant."""
    first, second = ranks(predicted), ranks(targets)
    first, second = first - first.mean(), second - second.mean()
    return float(ratio(first @ second, np.sqrt((first @ first) * (second @ second))))
