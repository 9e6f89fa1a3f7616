"""Features of utterances of different lengths on the device; no valid frame depends on the padding."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.ops import audio
from research.ops.audio import Mel
from research.ops.ctc import is_before
from research.ops.sound_augmentation import UtteranceMasks, mask_utterances


class SpeechFeatures(NamedTuple):
    """Settings of the features of a model."""

    mel: Mel | None  # None: rows have stored features
    deltas: int  # 0: none, 1: slopes over time, 2: also their slopes
    masks: UtteranceMasks  # in training


def speech_features(
    settings: SpeechFeatures, batch: Mapping[str, Any], train: bool
) -> Float[Array, 'batch frames features']:
    """Log-mel bands of 'audio' [batch, samples], or 'features' [batch, frames, bands]; 0 beyond 'frames' [batch].

    Every band has mean 0 and variance 1 over the frames of its utterance. Training masks intervals and bands by 'draw'.
    """
    frames = batch['frames']
    bands = audio.log_mel(batch['audio'], settings.mel) if settings.mel else batch['features']
    channels = [standardized(bands, frames)]
    for _ in range(settings.deltas):
        channels.append(audio.deltas(extended(channels[-1], frames)))
    valid = is_before(frames, bands.shape[1])[..., None]
    values = jnp.stack(channels, axis=-1) * valid[..., None]
    if train:
        values = mask_utterances(values, frames, batch['draw'], settings.masks)
    return values.reshape(*values.shape[:2], -1)


def standardized(
    bands: Float[Array, 'batch frames bands'], frames: Int[Array, 'batch']
) -> Float[Array, 'batch frames bands']:
    """Subtracts the mean of each band over its utterance and divides by the standard deviation."""
    valid = is_before(frames, bands.shape[1])[..., None]
    count = jnp.maximum(frames, 1)[:, None, None]
    centred = (bands - jnp.sum(bands * valid, axis=1, keepdims=True) / count) * valid
    deviation = jnp.sqrt(jnp.sum(centred**2, axis=1, keepdims=True) / count)
    return centred / jnp.maximum(deviation, 1e-3)  # a band of silence stays 0


def extended(values: Float[Array, 'batch frames bands'], frames: Int[Array, 'batch']) -> Array:
    """Repeats the last valid frame through the padding, as `deltas` does beyond the ends."""
    last = jnp.take_along_axis(values, jnp.maximum(frames - 1, 0)[:, None, None], axis=1)
    return jnp.where(is_before(frames, values.shape[1])[..., None], values, last)
