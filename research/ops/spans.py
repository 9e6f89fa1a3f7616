"""Spans of a row of tokens from the scores of their first and last tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.ops.losses import softmax_cross_entropy

EXCLUDED = -1e9  # the score of a position that no span may use; finite, so that sums of two are finite


def context_positions(types: Int[Array, 'batch tokens'], length: Int[Array, 'batch']) -> Bool[Array, 'batch tokens']:
    """Positions with a type above 0, without the end token of each row."""
    return (types > 0) & (jnp.arange(types.shape[1]) < length[:, None] - 1)


def masked_scores(
    scores: Float[Array, 'batch tokens 2'], valid: Bool[Array, 'batch tokens']
) -> Float[Array, 'batch tokens 2']:
    """Excludes all positions but the valid ones and the first, which stands for no answer; float32."""
    allowed = valid.at[:, 0].set(True)
    return jnp.where(allowed[..., None], scores.astype(jnp.float32), EXCLUDED)


def span_loss(
    scores: Float[Array, 'batch tokens 2'], start: Int[Array, 'batch'], end: Int[Array, 'batch']
) -> Float[Array, 'batch']:
    """Cross-entropy of the first token plus that of the last, in nats."""
    return softmax_cross_entropy(scores[..., 0], start) + softmax_cross_entropy(scores[..., 1], end)


def best_spans(
    scores: Float[Array, 'batch tokens 2'], valid: Bool[Array, 'batch tokens'], longest: int, count: int
) -> tuple[Float[Array, 'batch count'], Int[Array, 'batch count 2']]:
    """The spans with the highest sums of a start and an end score, in descending order.

    Args:
      scores: of first and last tokens.
      valid: positions that spans consist of; each row needs at least one.
      longest: maximum number of tokens in a span.
      count: number of spans; a row with fewer has spans with scores below `EXCLUDED` / 2.

    Returns:
      Their scores, and their first and last positions.
    """
    tokens = scores.shape[1]
    width = min(longest, tokens)
    start, end = (jnp.where(valid, scores[..., side].astype(jnp.float32), EXCLUDED) for side in (0, 1))
    later = jnp.pad(end, ((0, 0), (0, width - 1)), constant_values=EXCLUDED)
    ends = jnp.stack([later[:, offset : offset + tokens] for offset in range(width)], axis=-1)
    sums = (start[..., None] + ends).reshape(scores.shape[0], -1)
    best, index = jax.lax.top_k(sums, min(count, sums.shape[1]))
    first = index // width
    return best, jnp.stack([first, jnp.minimum(first + index % width, tokens - 1)], axis=-1).astype(jnp.int32)
