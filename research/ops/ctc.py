"""Connectionist temporal classification (Graves et al. 2006): the loss, and the best path, on the device.

Label 0 is the blank. A text of `count` labels needs `count` frames, and one more for each label that repeats the one
before it, because a blank must separate the two.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

BLANK = 0
SUBSAMPLING = 4  # frames of the input of an encoder per frame of its output


def shortened(frames: Any) -> Any:
    """Frames of the output of an encoder for frames of its input: halved twice, rounded up."""
    return (frames + SUBSAMPLING - 1) // SUBSAMPLING


def is_before(length: Int[Array, 'batch'], size: int) -> Bool[Array, 'batch size']:
    """True at the first `length` positions of each row."""
    return jnp.arange(size) < length[:, None]


def frames_needed(labels: Int[Array, 'batch labels'], count: Int[Array, 'batch']) -> Int[Array, 'batch']:
    """The fewest frames that a text fits into: its labels, and its repeated labels."""
    repeats = (labels[:, 1:] == labels[:, :-1]) & is_before(count, labels.shape[1])[:, 1:]
    return count + jnp.sum(repeats, axis=1)


def ctc_loss(
    logits: Float[Array, 'batch frames labels'],
    frames: Int[Array, 'batch'],
    labels: Int[Array, 'batch count'],
    count: Int[Array, 'batch'],
) -> Float[Array, 'batch']:
    """Negative log-probability of each text in nats, summed over all its alignments.

    A text that does not fit its frames has probability 0, and a loss of about 100,000 in place of infinity:
    compare `frames_needed` with `frames`.

    Args:
      logits: float32, of the blank and the labels.
      frames: valid frames of each row.
      labels: right-padded.
      count: labels of each row.
    """
    import optax  # not on a machine that only serves

    padded_frames = 1.0 - is_before(frames, logits.shape[1])
    padded_labels = 1.0 - is_before(count, labels.shape[1])
    return optax.ctc_loss(logits, padded_frames, labels, padded_labels, blank_id=BLANK)


def best_path(
    logits: Float[Array, 'batch frames labels'], frames: Int[Array, 'batch']
) -> tuple[Int[Array, 'batch frames'], Int[Array, 'batch']]:
    """The most probable label of each frame, without repeats and blanks: (right-padded labels, their number)."""
    size = logits.shape[1]
    best = jnp.argmax(logits, axis=-1)
    before = jnp.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=BLANK)
    kept = (best != before) & (best != BLANK) & is_before(frames, size)
    order = jnp.argsort(~kept, axis=1, stable=True)  # the kept frames first, in their order
    count = jnp.sum(kept, axis=1)
    return jnp.where(is_before(count, size), jnp.take_along_axis(best, order, axis=1), BLANK), count
