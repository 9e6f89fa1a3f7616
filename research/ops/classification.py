"""Metrics of classifiers: masked sums on the device, metrics from the sums on the host.

All metrics are computed from one confusion matrix, a calibration table and two sums, so they do not depend on the
batch size or the number of devices.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from research.ops.losses import softmax_cross_entropy

CALIBRATION_BINS = 15  # of the calibration error, as in Guo et al. 2017
DESCRIPTIONS = {
    'precision': 'share of the predictions of a class that are correct',
    'recall': 'share of the examples of a class that are predicted correctly',
    'f1': 'harmonic mean of precision and recall',
}


class MetricRow(NamedTuple):
    """A metric's value, the value of a trivial baseline (None without one), and a description of both."""

    value: float | list
    baseline: float | None = None
    better: str = 'higher'
    about: str = ''
    baseline_about: str = ''


def classification_sums(
    logits: Float[Array, 'batch classes'],
    labels: Int[Array, 'batch'],
    mask: Float[Array, 'batch'],
    top: int = 0,
) -> dict[str, Array]:
    """Computes sums over the examples whose mask is 1, the input of `classification_metrics`.

    Args:
      logits: unnormalised log-probabilities.
      labels: the true classes.
      mask: 1 for a real example, 0 for padding, whose logits may have any value, even NaN.
      top: also count labels among the `top` largest logits; 0: do not.

    Returns:
      'confusion' [classes, classes] (row: true, column: predicted), 'calibration' [15, 3] (per bin of
      confidence: examples, summed confidence, correct ones), 'nll' (nats), 'top', 'count'.
    """
    logits, mask = logits.astype(jnp.float32), mask.astype(jnp.float32)
    logits = jnp.where(mask[:, None] > 0, logits, 0.0)
    labels = jnp.where(mask > 0, labels, 0)
    classes = jnp.arange(logits.shape[-1])
    predicted = jnp.argmax(logits, axis=-1)
    true_one_hot = (labels[:, None] == classes) * mask[:, None]
    sums = {
        'count': jnp.sum(mask),
        'nll': jnp.sum(softmax_cross_entropy(logits, labels) * mask),
        'confusion': true_one_hot.T @ (predicted[:, None] == classes).astype(jnp.float32),
    }
    confidence = jnp.max(jax.nn.softmax(logits), axis=-1)
    # Equal-width bins, open below and closed above: Guo et al. 2017 (arXiv:1706.04599), section 2.
    bins = jnp.clip(jnp.ceil(confidence * CALIBRATION_BINS).astype(jnp.int32) - 1, 0, CALIBRATION_BINS - 1)
    in_bin = (bins[:, None] == jnp.arange(CALIBRATION_BINS)) * mask[:, None]
    correct = (predicted == labels).astype(jnp.float32)
    columns = jnp.stack([jnp.ones_like(confidence), confidence, correct], axis=1)
    sums['calibration'] = jnp.einsum('bi,bj->ij', in_bin, columns, precision='highest')
    if top:
        of_label = jnp.take_along_axis(logits, labels[:, None], axis=-1)
        # Ties rank by class number, as argmax does; written so that a NaN is never a hit.
        above = jnp.sum(~(logits <= of_label), axis=-1) + jnp.sum(
            (logits == of_label) & (classes < labels[:, None]), axis=-1
        )
        sums['top'] = jnp.sum((above < top) * mask)
    return sums


def ratio(numerator, denominator) -> np.ndarray:
    """Computes numerator / denominator, with 0 / 0 = 0 like scikit-learn's zero_division=0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)


def scores(confusion: Float[np.ndarray, 'classes classes']) -> dict[str, np.ndarray]:
    """Computes accuracy and, per class, precision, recall and F1; rows of the matrix are true classes."""
    hits, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    return {
        'accuracy': ratio(hits.sum(), confusion.sum()),
        'precision': ratio(hits, predicted),
        'recall': ratio(hits, true),
        'f1': ratio(2 * hits, true + predicted),
    }


def calibration_error(table: Float[np.ndarray, 'bins 3']) -> float:
    """Expected calibration error: |accuracy - confidence|, averaged over bins weighted by their examples."""
    count, confidence, correct = np.asarray(table, float).T
    return float(ratio(np.abs(correct - confidence).sum(), count.sum()))


def classification_metrics(
    sums: Mapping[str, np.ndarray], train_counts: Sequence[float] | np.ndarray, top: int = 0
) -> dict[str, MetricRow]:
    """Computes metrics from `classification_sums`, with a baseline that knows only the training counts.

    Macro means are over the classes that occur in this split or are predicted, as scikit-learn's
    `average='macro'` without `labels`.

    Args:
      sums: summed over a whole split.
      train_counts: examples per class in the training split.
      top: as given to `classification_sums`.
    """
    confusion = np.asarray(sums['confusion'], float)
    count = float(sums['count'])
    train_counts = np.asarray(train_counts, float)
    true = confusion.sum(1)
    order = np.argsort(-train_counts, kind='stable')
    constant = np.zeros_like(confusion)
    constant[:, order[0]] = true
    actual, trivial = scores(confusion), scores(constant)
    always = 'always the commonest class of the training split'
    # Add-one smoothing: a class missing from training must not make the baseline infinite.
    prior = (train_counts + 1) / (train_counts + 1).sum()
    metrics = {
        'accuracy': MetricRow(float(actual['accuracy']), float(trivial['accuracy']),
                              about='share of correct predictions', baseline_about=always),
        'loss': MetricRow(float(ratio(sums['nll'], count)), float(-ratio(true @ np.log(prior), count)), 'lower',
                        'cross-entropy in nats per example', 'class frequencies of the training split'),
    }  # fmt: skip
    if top:
        metrics[f'top_{top}'] = MetricRow(
            float(ratio(sums['top'], count)),
            float(ratio(true[order[:top]].sum(), count)),
            about=f'share whose class is among the {top} most probable',
            baseline_about=f'always the {top} commonest classes of the training split',
        )
    present, trivial_present = (matrix.sum(0) + matrix.sum(1) > 0 for matrix in (confusion, constant))
    for name, about in DESCRIPTIONS.items():
        metrics[name] = MetricRow(
            float(actual[name][present].mean()),
            float(trivial[name][trivial_present].mean()),
            about=f'{about}, mean over {present.sum()} classes',
            baseline_about=always,
        )
        metrics[f'{name}_per_class'] = MetricRow(actual[name].tolist(), about=f'{about}, per class')
    about = f'expected calibration error, {CALIBRATION_BINS} bins: mean distance of confidence and accuracy'
    metrics['calibration_error'] = MetricRow(
        calibration_error(sums['calibration']), better='lower', about=about
    )
    about = 'examples; row: true class, column: predicted class'
    metrics['confusion'] = MetricRow(confusion.astype(int).tolist(), better='', about=about)
    return metrics
