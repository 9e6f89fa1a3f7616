"""Output heads: loss, metrics and answers as functions of a model's scores.

One class (`single`), any number of labels (`multi`) or a number (`regression`). Tasks of all input types use one of
these for their output; `research/families/supervised.py` builds the rest of the task.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.ops.claims import claim_label, claim_labels, label_score, multi_label_score, number_score
from research.ops.classification import MetricRow, classification_metrics, classification_sums
from research.ops.losses import sigmoid_cross_entropy, soft_cross_entropy, softmax_cross_entropy
from research.ops.multi_label import multi_label_metrics, multi_label_sums
from research.ops.regression import regression_metrics, regression_sums


class OutputHead(NamedTuple):
    """Functions of scores [batch, units]. `decode` and `metrics` run on the host, all others on the device."""

    units: int  # number of scores per example
    loss: Callable[[Array, Array], Float[Array, 'batch']]  # (scores, labels) -> loss of each example
    logs: Callable[[Array, Array, Array], dict[str, Array]]  # (scores, labels, mask) -> sums for the progress line
    answer: Callable[[Array], dict[str, Array]]  # scores -> outputs, among them 'logits'
    sums: Callable[[Array, Array, Array], dict[str, Array]]  # (scores, labels, mask)
    metrics: Callable[[Mapping[str, np.ndarray]], dict[str, MetricRow]]
    decode: Callable[[Mapping[str, np.ndarray]], Any]  # outputs of one example -> JSON-able answer
    score: Callable[[Array, Array], Float[Array, 'batch']]  # (scores, labels) -> log-probability of the labels
    claim: Callable[[Mapping[str, Array]], Array]  # outputs -> predicted labels


def decode_softmax(classes: Sequence[str], top: int) -> Callable[[Mapping[str, np.ndarray]], dict[str, Any]]:
    """Creates a decoder from 'probability' [classes] of one example to the `top` most probable classes."""

    def decode(outputs):
        probability = np.asarray(outputs['probability'], np.float64)
        best = np.argsort(-probability, kind='stable')[:top]
        ranked = [{'label': classes[k], 'probability': round(float(probability[k]), 6)} for k in best]
        return {**ranked[0], 'top': ranked}

    return decode


def single(
    classes: Sequence[str], counts: Sequence[int], smoothing: float = 0.0, top: int = 0, one_unit: bool = False
) -> OutputHead:
    """One class per example; labels are int32 [batch], or in training probabilities [batch, classes].

    Args:
      classes: their names.
      counts: training examples per class.
      smoothing: label smoothing.
      top: also measure whether the label is among this many most probable classes; 0: min(5, classes - 1).
        Answers list these classes, at least two.
      one_unit: two classes from one score z, the log-odds of the second: the softmax of (0, z) is the sigmoid of z,
        with the same cross-entropy.
    """
    top = top or min(5, len(classes) - 1)
    measured_top = top if top > 1 else 0

    def logits_of(scores):
        return jnp.concatenate([jnp.zeros_like(scores), scores], axis=-1) if one_unit else scores

    def loss(scores, labels):
        cross_entropy = softmax_cross_entropy if labels.ndim == 1 else soft_cross_entropy
        return cross_entropy(logits_of(scores), labels, smoothing)

    def logs(scores, labels, mask):
        predicted = jnp.argmax(logits_of(scores), axis=-1)
        if labels.ndim == 1:
            right = predicted == labels
        else:
            right = jnp.take_along_axis(labels, predicted[:, None], axis=-1)[:, 0]
        return {'accuracy': jnp.sum(right * mask)}

    def answer(scores):
        logits = logits_of(scores)
        return {'logits': logits, 'probability': jax.nn.softmax(logits)}

    return OutputHead(
        units=1 if one_unit else len(classes),
        loss=loss,
        logs=logs,
        answer=answer,
        sums=lambda scores, labels, mask: classification_sums(logits_of(scores), labels, mask, measured_top),
        metrics=lambda sums: classification_metrics(sums, counts, measured_top),
        decode=decode_softmax(classes, max(top, 2)),
        score=lambda scores, labels: label_score(logits_of(scores), labels),
        claim=lambda outputs: claim_label(outputs['logits']),
    )


def multi(
    classes: Sequence[str], counts: Sequence[int], size: int, smoothing: float = 0.0, threshold: float = 0.5
) -> OutputHead:
    """Any number of labels per example; labels are float32 [batch, classes], 1.0 for given labels.

    Args:
      classes: their names.
      counts: training examples per label.
      size: number of training examples.
      smoothing: label smoothing.
      threshold: labels with a higher probability are predicted.
    """

    def loss(scores, labels):
        return jnp.mean(sigmoid_cross_entropy(scores, labels, smoothing), axis=-1)

    def logs(scores, labels, mask):
        right = (jax.nn.sigmoid(scores) > threshold) == (labels > 0.5)
        return {'accuracy': jnp.sum(jnp.mean(right.astype(jnp.float32), axis=-1) * mask)}

    def decode(outputs):
        probability = np.asarray(outputs['probability'], np.float64)
        given = [classes[k] for k in np.argsort(-probability, kind='stable') if probability[k] > threshold]
        by_name = {name: round(float(value), 6) for name, value in zip(classes, probability, strict=True)}
        return {'labels': given, 'probability': by_name}

    return OutputHead(
        units=len(classes),
        loss=loss,
        logs=logs,
        answer=lambda scores: {'logits': scores, 'probability': jax.nn.sigmoid(scores)},
        sums=lambda scores, labels, mask: multi_label_sums(scores, labels, mask, threshold),
        metrics=lambda sums: multi_label_metrics(sums, counts, size),
        decode=decode,
        score=multi_label_score,
        claim=lambda outputs: claim_labels(outputs['probability'], threshold),
    )


def regression(mean: float, deviation: float) -> OutputHead:
    """A number per example; labels are float32 [batch], which the model predicts standardized.

    Args:
      mean: of the training labels.
      deviation: of the training labels.
    """

    def standard(labels):
        return (labels - mean) / deviation

    def logs(scores, labels, mask):
        return {'error': jnp.sum(jnp.abs(scores[:, 0] - standard(labels)) * deviation * mask)}

    return OutputHead(
        units=1,
        loss=lambda scores, labels: (scores[:, 0] - standard(labels)) ** 2,
        logs=logs,
        answer=lambda scores: {'logits': scores, 'value': scores[:, 0] * deviation + mean},
        sums=lambda scores, labels, mask: regression_sums(scores[:, 0], standard(labels), mask),
        metrics=lambda sums: regression_metrics(sums, deviation),
        decode=lambda outputs: {'value': float(outputs['value'])},
        score=lambda scores, labels: number_score(scores[:, 0], standard(labels)),
        claim=lambda outputs: outputs['value'],
    )
