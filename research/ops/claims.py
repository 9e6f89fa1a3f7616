"""Log-probabilities of answers, and answers as targets: the parts of `Task.score` and `Task.claim`.

A score is in nats, one number per row. Unlike a loss it has no label smoothing or class weights. A claim has the shape
and type of a row's encoded target, so the claim of an output can be scored like a target.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.ops.losses import sigmoid_cross_entropy, softmax_cross_entropy


def label_score(logits: Float[Array, 'batch classes'], labels: Int[Array, 'batch']) -> Float[Array, 'batch']:
    """Computes log softmax(logits)[label]."""
    return -softmax_cross_entropy(logits, labels)


def multi_label_score(
    scores: Float[Array, 'batch labels'], labels: Float[Array, 'batch labels']
) -> Float[Array, 'batch']:
    """Log-probability of a set of labels, 1.0 for each given one, from the log-odds of each label."""
    return -jnp.sum(sigmoid_cross_entropy(scores, labels), axis=-1)


def number_score(predicted: Float[Array, 'batch'], numbers: Float[Array, 'batch']) -> Float[Array, 'batch']:
    """Log-density of numbers given the predicted ones, up to a constant; both standardized.

    The density is normal with the variance of the training numbers, so the score is at most 0.
    """
    return -jnp.square(predicted.astype(jnp.float32) - numbers) / 2


def token_score(
    logits: Float[Array, 'batch length vocabulary'],
    targets: Int[Array, 'batch length'],
    mask: Float[Array, 'batch length'],
) -> Float[Array, 'batch']:
    """Log-probability of a row's tokens, summed over those whose mask is 1."""
    return -jnp.sum(softmax_cross_entropy(logits, targets) * mask, axis=-1)


def claim_label(logits: Float[Array, 'batch classes']) -> Int[Array, 'batch']:
    """Most probable class of each row, int32."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def claim_labels(probability: Float[Array, 'batch labels'], threshold: float = 0.5) -> Float[Array, 'batch labels']:
    """1.0 for each label whose probability is above `threshold`, else 0.0."""
    return (probability > threshold).astype(jnp.float32)
