"""Metrics of regression: masked sums, and metrics from them; rank correlation from the values."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.ops.classification import MetricRow, ratio


def regression_sums(
    predicted: Float[Array, 'batch'], targets: Float[Array, 'batch'], mask: Float[Array, 'batch']
) -> dict[str, Array]:
    """Computes sums over the examples whose mask is 1, the input of `regression_metrics`.

    Standardize predictions and targets by the training labels, to avoid cancellation.
    """
    valid = mask > 0
    predicted = jnp.where(valid, predicted.astype(jnp.float32), 0.0)
    targets = jnp.where(valid, targets.astype(jnp.float32), 0.0)
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
    """Computes metrics from `regression_sums`, with a baseline that always predicts the training mean.

    Args:
      sums: of standardized numbers, summed over a whole split.
      deviation: standard deviation of the training labels, which converts errors to their unit.
    """
    count = float(sums['count'])
    p, t, pp, tt, pt, absolute = np.asarray(sums['moments'], float) / max(count, 1)
    covariance = pt - p * t
    spread = np.sqrt(max(pp - p * p, 0.0) * max(tt - t * t, 0.0))
    mean = 'always the training mean'
    square, error = (float(ratio(sums[name], count)) for name in ('square', 'absolute'))
    return {
        'mse': MetricRow(square * deviation**2, tt * deviation**2, 'lower', 'mean squared error', mean),
        'mae': MetricRow(error * deviation, absolute * deviation, 'lower', 'mean absolute error', mean),
        'pearson': MetricRow(float(ratio(covariance, spread)), about='correlation of predictions and labels'),
        'loss': MetricRow(square, tt, 'lower', 'mean squared error over the variance of the training labels', mean),
    }


def ranks(values: Sequence[float] | np.ndarray) -> Float[np.ndarray, 'count']:
    """Ranks values from 1; ties share their mean rank."""
    values = np.asarray(values, float)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def spearman(predicted: Sequence[float], targets: Sequence[float]) -> float:
    """Rank correlation (Spearman 1904): Pearson's correlation of the ranks; 0 if one side is constant."""
    first, second = ranks(predicted), ranks(targets)
    first, second = first - first.mean(), second - second.mean()
    return float(ratio(first @ second, np.sqrt((first @ first) * (second @ second))))
