"""Metrics of multi-label classifiers: masked sums, and metrics from them."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.ops.classification import MetricRow, ratio
from research.ops.losses import sigmoid_cross_entropy


def multi_label_sums(
    logits: Float[Array, 'batch labels'],
    targets: Float[Array, 'batch labels'],
    mask: Float[Array, 'batch'],
    threshold: float = 0.5,
) -> dict[str, Array]:
    """Computes sums over the examples whose mask is 1, the input of `multi_label_metrics`.

    Args:
      logits: log-odds of each label; those of padding may have any value.
      targets: 1 for each label that an example has.
      mask: 1 for a real example, 0 for padding.
      threshold: labels with a higher probability are predicted.

    Returns:
      'hit', 'given' and 'true' [labels] (predicted and true, predicted, true), 'nll' (nats, summed over labels),
      'exact' (examples whose labels are all correct), 'count'.
    """
    logits = jnp.where(mask[:, None] > 0, logits.astype(jnp.float32), 0.0)
    targets = jnp.where(mask[:, None] > 0, targets.astype(jnp.float32), 0.0)
    given = (logits > np.log(threshold / (1 - threshold))).astype(jnp.float32)
    weight = mask.astype(jnp.float32)[:, None]
    return {
        'count': jnp.sum(mask),
        'nll': jnp.sum(sigmoid_cross_entropy(logits, targets) * weight),
        'exact': jnp.sum(jnp.all(given == targets, axis=-1) * mask),
        'hit': jnp.sum(given * targets * weight, axis=0),
        'given': jnp.sum(given * weight, axis=0),
        'true': jnp.sum(targets * weight, axis=0),
    }


def means(hit: np.ndarray, given: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Computes precision, recall and F1 over all decisions ('micro') and as means over labels ('macro')."""
    fractions = {'precision': (hit, given), 'recall': (hit, true), 'f1': (2 * hit, given + true)}
    values = {}
    for name, (numerator, denominator) in fractions.items():
        values[f'{name}_micro'] = float(ratio(numerator.sum(), denominator.sum()))
        values[f'{name}_macro'] = float(ratio(numerator, denominator).mean())
    return values


def multi_label_metrics(
    sums: Mapping[str, np.ndarray], train_counts: Sequence[float], train_size: float
) -> dict[str, MetricRow]:
    """Computes metrics from `multi_label_sums`, with baselines that know only the training counts.

    0 / 0 counts as 0, as scikit-learn's `zero_division=0`; macro means are over all labels.

    Args:
      sums: summed over a whole split.
      train_counts: training examples with each label.
      train_size: training examples.
    """
    hit, given, true = (np.asarray(sums[name], float) for name in ('hit', 'given', 'true'))
    count = float(sums['count'])
    labels = len(hit)
    # Add-one smoothing: a label that all or no training rows have must not be certain or impossible.
    prior = (np.asarray(train_counts, float) + 1) / (train_size + 2)
    trivial_loss = -(true @ np.log(prior) + (count - true) @ np.log1p(-prior)) / max(count * labels, 1)
    wrong = given.sum() + true.sum() - 2 * hit.sum()
    majority = prior > 0.5
    trivial_wrong = np.where(majority, count - true, true).sum()
    all_labels = means(true, np.full(labels, count), true)
    always, commonest = 'always every label', 'each label as in the majority of training rows'
    metrics = {
        'f1_micro': MetricRow(0.0, about='F1 over all decisions together'),
        'f1_macro': MetricRow(0.0, about='F1, mean over the labels'),
        'precision_micro': MetricRow(0.0, about='share of predicted labels that are correct'),
        'precision_macro': MetricRow(0.0, about='share of predicted labels that are correct, mean over the labels'),
        'recall_micro': MetricRow(0.0, about='share of true labels that are predicted'),
        'recall_macro': MetricRow(0.0, about='share of true labels that are predicted, mean over the labels'),
    }
    values = means(hit, given, true)
    metrics = {
        name: row._replace(value=values[name], baseline=all_labels[name], baseline_about=always)
        for name, row in metrics.items()
    }
    cells = max(count * labels, 1)
    exact = float(ratio(sums['exact'], count))
    metrics['exact'] = MetricRow(exact, about='share of examples whose labels are all correct')
    metrics['hamming'] = MetricRow(
        float(wrong / cells), float(trivial_wrong / cells), 'lower',
        'share of wrong decisions, over all examples and labels', commonest,
    )  # fmt: skip
    metrics['loss'] = MetricRow(
        float(sums['nll']) / cells, float(trivial_loss), 'lower', 'cross-entropy in nats per label',
        'label frequencies of the training split',
    )  # fmt: skip
    per_label = ratio(2 * hit, given + true).tolist()
    return metrics | {'f1_per_class': MetricRow(per_label, about='F1, per label')}
