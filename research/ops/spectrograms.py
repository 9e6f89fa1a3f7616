"""Spectrograms computed from samples on the device: normalized, and in training augmented and mixed."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.ops import audio, mixing, sound_augmentation
from research.ops.audio import Mel
from research.ops.sound_augmentation import Augmentation

SOUNDS_PER_CHUNK = 32  # per compiled call while computing statistics


class Spectrograms(NamedTuple):
    """Settings of the spectrograms of a model."""

    mel: Mel
    mean: Float[np.ndarray, 'bands'] | float  # of each band in the training split
    deviation: Float[np.ndarray, 'bands'] | float
    deltas: bool = False  # adds the slope of each band over time as a second channel
    augmentation: Augmentation = Augmentation()
    mixup: float = 0.0  # maximum share of another sound in training


def spectrograms(
    settings: Spectrograms, batch: Mapping[str, Any], train: bool
) -> Float[Array, 'batch bands frames channels']:
    """Normalized spectrograms of 'audio' [batch, samples]; training augments them by 'draw', uint32 [batch]."""
    samples = batch['audio']
    if train:
        samples = sound_augmentation.augment_samples(samples, batch['draw'], settings.augmentation)
    bands = (audio.log_mel(samples, settings.mel) - settings.mean) / settings.deviation
    channels = [bands, audio.deltas(bands)] if settings.deltas else [bands]
    values = jnp.stack(channels, axis=-1)
    if train:
        values = sound_augmentation.augment_spectrogram(values, batch['draw'], settings.augmentation)
    return jnp.swapaxes(values, 1, 2)


def with_spectrograms(settings: Spectrograms, classes: int, batch: Mapping[str, Any], train: bool) -> dict[str, Any]:
    """Adds 'spectrogram' to a batch; with mixup in training, 'label' becomes probabilities [batch, classes].

    mixup mixes the spectrogram and the label of each row with those of the next one.
    """
    batch = {**batch, 'spectrogram': spectrograms(settings, batch, train)}
    if not (settings.mixup and train):
        return batch
    share, partner = sound_augmentation.shares(batch['draw'], settings.mixup), mixing.partners(batch['mask'])
    label = jax.nn.one_hot(batch['label'], classes)
    label = share[:, None] * label + (1 - share[:, None]) * label[partner]
    return {**batch, 'spectrogram': sound_augmentation.mix(batch['spectrogram'], partner, share), 'label': label}


def band_moments(sounds: Iterable[Float[np.ndarray, 'samples']], mel: Mel) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each band over all frames of sounds of equal length, float64 [bands]."""
    log_mel = jax.jit(audio.log_mel, static_argnums=1)
    sums = np.zeros((2, mel.bands))
    frames = 0
    chunk = []

    def add():
        nonlocal sums, frames
        blank = [np.zeros_like(chunk[0])] * (SOUNDS_PER_CHUNK - len(chunk))  # one shape, one compilation
        values = np.asarray(log_mel(np.stack(chunk + blank), mel), np.float64)[: len(chunk)]
        sums += values.sum((0, 1)), (values**2).sum((0, 1))
        frames += values.shape[0] * values.shape[1]
        chunk.clear()

    for sound in sounds:
        chunk.append(sound)
        if len(chunk) == SOUNDS_PER_CHUNK:
            add()
    if chunk:
        add()
    mean, square = sums / frames
    return mean, np.sqrt(np.maximum(square - mean**2, 1e-8))
