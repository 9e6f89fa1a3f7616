"""How good a model is that gives an example any number of labels: masked sums, and metrics from them."""

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
    """Returns sums over the examples whose mask is 1: everything that `multi_label_metrics` needs.

    Args:
      logits: log-odds of each label; those of padding may be anything.
      targets: 1 for each label that an example has.
      mask: 1 for a real example, 0 for padding.
      threshold: a label is given where its probability is above it.

    Returns:
      'hit', 'given' and 'true' [labels] (both, predicted, there), 'nll' (nats, summed over labels), 'exact'
      (examples with every label right), 'count'.
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
    """Returns precision, recall and F1 over all decisions ('micro') and as means over labels ('macro')."""
    each = {'precision': (hit, given), 'recall': (hit, true), 'f1': (2 * hit, given + true)}
    found = {}
    for name, (top, bottom) in each.items():
        found[f'{name}_micro'] = float(ratio(top.sum(), bottom.sum()))
        found[f'{name}_macro'] = float(ratio(top, bottom).mean())
    return found


def multi_label_metrics(
    sums: Mapping[str, np.ndarray], train_counts: Sequence[float], train_size: float
) -> dict[str, MetricRow]:
    """Returns the metrics of `multi_label_sums`, beside baselines that know only the training counts.

    0 / 0 counts as 0, as scikit-learn's `zero_division=0`; macro means are over all labels.

    Args:
      sums: summed over a whole split.
      train_counts: training examples with each label.
      train_size: training examples.
    """
    hit, given, true = (np.asarray(sums[name], float) for name in ('hit', 'given', 'true'))
    count, labels = float(sums['count']), len(hit)
    # One is added to each count, so that a label all or none of the training rows have is never impossible.
    prior = (np.asarray(train_counts, float) + 1) / (train_size + 2)
    trivial_loss = -(true @ np.log(prior) + (count - true) @ np.log1p(-prior)) / max(count * labels, 1)
    wrong = given.sum() + true.sum() - 2 * hit.sum()
    usual = prior > 0.5
    trivial_wrong = np.where(usual, count - true, true).sum()
    every = means(true, np.full(labels, count), true)
    always, commonest = 'always every label', 'each label as in most training rows'
    metrics = {
        'f1_micro': MetricRow(0.0, about='F1 over all decisions together'),
        'f1_macro': MetricRow(0.0, about='F1, mean over the labels'),
        'precision_micro': MetricRow(0.0, about='right share of the labels given'),
        'precision_macro': MetricRow(0.0, about='right share of the labels given, mean over the labels'),
        'recall_micro': MetricRow(0.0, about='found share of the labels there'),
        'recall_macro': MetricRow(0.0, about='found share of the labels there, mean over the labels'),
    }
    found = means(hit, given, true)
    metrics = {
        name: each._replace(value=found[name], baseline=every[name], baseline_about=always)
        for name, each in metrics.items()
    }
    cells = max(count * labels, 1)
    metrics['exact'] = MetricRow(float(ratio(sums['exact'], count)), about='share with every label right')
    metrics['hamming'] = MetricRow(
        float(wrong / cells), float(trivial_wrong / cells), 'lower', 'share of single decisions that are wrong',
        commonest,
    )  # fmt: skip
    metrics['loss'] = MetricRow(
        float(sums['nll']) / cells, float(trivial_loss), 'lower', 'cross-entropy, nats a label',
        'label frequencies of the training split',
    )  # fmt: skip
    per_label = ratio(2 * hit, given + true).tolist()
    return metrics | {'f1_per_class': MetricRow(per_label, about='F1, label by label')}
