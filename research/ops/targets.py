"""What labels are, as functions of a model's scores: its loss, its sums and metrics, and its answer.

One class, any number of labels, or a number: a task that reads any input takes one of these for its output.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.ops.claims import claim_label, claim_labels, label_score, multi_label_score, number_score
from research.ops.classification import MetricRow, classification_metrics, classification_sums
from research.ops.losses import sigmoid_cross_entropy, softmax_cross_entropy
from research.ops.multi_label import multi_label_metrics, multi_label_sums
from research.ops.regression import regression_metrics, regression_sums


class Target(NamedTuple):
    """How scores [batch, units] are learnt, measured and answered."""

    units: int  # scores that the model gives
    values: Callable[[Array, Array], Float[Array, 'batch']]  # (scores, labels) -> loss of each example
    logs: Callable[[Array, Array, Array], dict[str, Array]]  # (scores, labels, mask) -> sums for the progress line
    answer: Callable[[Array], dict[str, Array]]  # scores -> outputs, among them 'logits'
    sums: Callable[[Array, Array, Array], dict[str, Array]]  # (scores, labels, mask)
    metrics: Callable[[Mapping[str, np.ndarray]], dict[str, MetricRow]]
    decode: Callable[[Mapping[str, np.ndarray]], Any]  # outputs of one example -> for a person
    score: Callable[[Array, Array], Float[Array, 'batch']]  # (scores, labels) -> log-probability of the labels
    claim: Callable[[Mapping[str, Array]], Array]  # outputs -> the answer as labels


def single(
    classes: Sequence[str], counts: Sequence[int], smoothing: float = 0.0, top: int = 0, one_unit: bool = False
) -> Target:
    """Returns the target of one class for each example, labels int32 [batch].

    Args:
      classes: their names.
      counts: training examples of each.
      smoothing: of the labels.
      top: also count labels among so many most probable classes; 0 for min(5, classes - 1).
      one_unit: two classes from one score z, the log-odds of the second: the softmax of (0, z) is the sigmoid
        of z, and their cross-entropies are one.
    """
    top = top or min(5, len(classes) - 1)

    def logits_of(scores):
        return jnp.concatenate([jnp.zeros_like(scores), scores], axis=-1) if one_unit else scores

    def logs(scores, labels, mask):
        return {'accuracy': jnp.sum((jnp.argmax(logits_of(scores), axis=-1) == labels) * mask)}

    def answer(scores):
        logits = logits_of(scores)
        return {'logits': logits, 'probability': jax.nn.softmax(logits)}

    def decode(outputs):
        probability = np.asarray(outputs['probability'], np.float64)
        best = np.argsort(-probability, kind='stable')[: max(top, 2)]
        ranked = [{'label': classes[k], 'probability': round(float(probability[k]), 6)} for k in best]
        return {**ranked[0], 'top': ranked}

    counted = top if top > 1 else 0
    return Target(
        1 if one_unit else len(classes),
        lambda scores, labels: softmax_cross_entropy(logits_of(scores), labels, smoothing),
        logs,
        answer,
        lambda scores, labels, mask: classification_sums(logits_of(scores), labels, mask, counted),
        lambda sums: classification_metrics(sums, counts, counted),
        decode,
        lambda scores, labels: label_score(logits_of(scores), labels),
        lambda outputs: claim_label(outputs['logits']),
    )


def multi(
    classes: Sequence[str], counts: Sequence[int], size: int, smoothing: float = 0.0, threshold: float = 0.5
) -> Target:
    """Returns the target of any number of labels for each example, labels float32 [batch, classes].

    Args:
      classes: their names.
      counts: training examples with each.
      size: training examples.
      smoothing: of the labels.
      threshold: a label is given where its probability is above it.
    """

    def values(scores, labels):
        return jnp.mean(sigmoid_cross_entropy(scores, labels, smoothing), axis=-1)

    def logs(scores, labels, mask):
        right = (jax.nn.sigmoid(scores) > threshold) == (labels > 0.5)
        return {'accuracy': jnp.sum(jnp.mean(right.astype(jnp.float32), axis=-1) * mask)}

    def decode(outputs):
        probability = np.asarray(outputs['probability'], np.float64)
        found = [classes[k] for k in np.argsort(-probability, kind='stable') if probability[k] > threshold]
        each = {name: round(float(value), 6) for name, value in zip(classes, probability, strict=True)}
        return {'labels': found, 'probability': each}

    return Target(
        len(classes),
        values,
        logs,
        lambda scores: {'logits': scores, 'probability': jax.nn.sigmoid(scores)},
        lambda scores, labels, mask: multi_label_sums(scores, labels, mask, threshold),
        lambda sums: multi_label_metrics(sums, counts, size),
        decode,
        multi_label_score,
        lambda outputs: claim_labels(outputs['probability'], threshold),
    )


def regression(mean: float, deviation: float) -> Target:
    """Returns the target of a number, labels float32 [batch]; the model learns it standardized.

    Args:
      mean: of the training labels.
      deviation: of the training labels.
    """

    def standard(labels):
        return (labels - mean) / deviation

    return Target(
        1,
        lambda scores, labels: (scores[:, 0] - standard(labels)) ** 2,
        lambda scores, labels, mask: {'error': jnp.sum(jnp.abs(scores[:, 0] - standard(labels)) * deviation * mask)},
        lambda scores: {'logits': scores, 'value': scores[:, 0] * deviation + mean},
        lambda scores, labels, mask: regression_sums(scores[:, 0], standard(labels), mask),
        lambda sums: regression_metrics(sums, deviation),
        lambda outputs: {'value': float(outputs['value'])},
        lambda scores, labels: number_score(scores[:, 0], standard(labels)),
        lambda outputs: outputs['value'],
    )
