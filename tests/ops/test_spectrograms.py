"""Spectrograms of a model: moments of bands whatever the chunks, and sounds mixed with their labels."""

import jax.numpy as jnp
import numpy as np

from research.ops import audio, mixing, sound_augmentation
from research.ops.audio import Mel
from research.ops.spectrograms import SOUNDS_PER_CHUNK, Spectrograms, band_moments, spectrograms, with_spectrograms

MEL = Mel(8000, bands=12)


def sounds(count):
    return np.random.default_rng(0).normal(size=(count, 1600)).astype(np.float32)


def batch_of(count):
    draw, mask = np.arange(count, dtype=np.uint32), np.ones(count, np.float32)
    return {'audio': sounds(count), 'draw': draw, 'label': draw.astype(np.int32) % 3, 'mask': mask}


def test_moments_of_bands_are_those_of_all_frames():
    samples = sounds(SOUNDS_PER_CHUNK + 3)
    mean, deviation = band_moments(iter(samples), MEL)
    frames = np.asarray(audio.log_mel(samples, MEL), np.float64).reshape(-1, 12)
    np.testing.assert_allclose(mean, frames.mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation, frames.std(0), rtol=1e-4)


def test_spectrograms_are_standardized_with_slopes_as_a_second_channel():
    settings = Spectrograms(MEL, np.float32(2), np.float32(3), deltas=True)
    values = spectrograms(settings, batch_of(2), False)
    bands = (audio.log_mel(sounds(2), MEL) - 2) / 3
    np.testing.assert_allclose(values[..., 0], jnp.swapaxes(bands, 1, 2), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(values[..., 1], jnp.swapaxes(audio.deltas(bands), 1, 2), rtol=1e-4, atol=1e-5)


def test_mixed_sounds_have_mixed_labels_in_training_alone():
    batch, settings = batch_of(4), Spectrograms(MEL, 0.0, 1.0, mixup=0.5)
    plain = with_spectrograms(settings, 3, batch, False)
    np.testing.assert_array_equal(plain['label'], batch['label'])
    mixed = with_spectrograms(settings, 3, batch, True)
    share = np.asarray(sound_augmentation.shares(batch['draw'], 0.5))
    one_hot, partner = np.eye(3)[batch['label']], np.asarray(mixing.partners(batch['mask']))
    expected = share[:, None] * one_hot + (1 - share[:, None]) * one_hot[partner]
    np.testing.assert_allclose(mixed['label'], expected, rtol=1e-5)
    assert (share >= 0.5).all() and not np.allclose(mixed['spectrogram'], plain['spectrogram'])
    without = with_spectrograms(settings._replace(mixup=0.0), 3, batch, True)
    np.testing.assert_array_equal(without['label'], batch['label'])
