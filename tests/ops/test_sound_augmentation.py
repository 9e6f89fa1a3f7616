"""Augmentation: what it changes, within which bounds, and that a row's depends on its own number alone."""

import jax
import numpy as np
import pytest

from research.errors import SettingError
from research.ops import sound_augmentation as ops
from research.ops.sound_augmentation import Augmentation

EVERYTHING = Augmentation(shift=40, gain=6.0, noise=0.1, time_masks=2, time_mask=5, band_masks=1, band_mask=4)
DRAWS = np.array([7, 8, 2**32 - 1, 7], np.uint32)


@pytest.fixture(scope='module')
def sounds():
    rows = np.random.default_rng(0).normal(size=(3, 400)).astype(np.float32)
    return rows[[0, 1, 2, 0]]


def test_a_row_depends_on_its_number_and_not_on_its_batch(sounds):
    samples = jax.jit(ops.augment_samples, static_argnums=2)
    spectra = jax.jit(ops.augment_spectrogram, static_argnums=2)
    features = sounds.reshape(4, 20, 20, 1)
    for function, values in ((samples, sounds), (spectra, features)):
        every = np.asarray(function(values, DRAWS, EVERYTHING))
        np.testing.assert_array_equal(every, function(values, DRAWS, EVERYTHING))
        np.testing.assert_array_equal(every[0], every[3])  # the same sound with the same number
        for row in range(2):
            alone = function(values[row : row + 1], DRAWS[row : row + 1], EVERYTHING)
            np.testing.assert_allclose(every[row], alone[0], rtol=1e-5, atol=1e-6)
        assert not np.array_equal(every[0], function(values[:1], DRAWS[1:2], EVERYTHING)[0])
    share = ops.shares(DRAWS, 0.4)
    assert share[0] == share[3] != share[1] and 0.6 <= share.min() <= share.max() <= 1


def test_a_sound_is_moved_and_made_louder_within_bounds(sounds):
    draws = np.arange(64, dtype=np.uint32)
    impulse = np.zeros((64, 101), np.float32)
    impulse[:, 50] = 1
    moved = np.asarray(ops.augment_samples(impulse, draws, Augmentation(shift=20)))
    places = moved.argmax(1)
    assert (moved.sum(1) == 1).all() and 30 <= places.min() < 36 and 64 < places.max() <= 70
    louder = np.asarray(ops.augment_samples(impulse, draws, Augmentation(gain=6.0))).max(1)
    assert 10 ** (-6 / 20) <= louder.min() < 0.6 and 1.7 < louder.max() <= 10 ** (6 / 20)
    flat = np.ones((64, 2000), np.float32)
    spread = np.asarray(ops.augment_samples(flat, draws, Augmentation(noise=0.2))).std(1)
    assert spread.min() < 0.02 and 0.17 < spread.max() < 0.21
    np.testing.assert_array_equal(ops.augment_samples(sounds, DRAWS, Augmentation()), sounds)


def test_masks_hide_whole_stretches_of_at_most_their_width():
    features = np.ones((200, 30, 16, 2), np.float32)
    draws = np.arange(200, dtype=np.uint32)
    hidden = 1 - np.asarray(ops.augment_spectrogram(features, draws, Augmentation(time_masks=1, time_mask=8)))
    assert (hidden == hidden[:, :, :1, :1]).all()
    widths, starts = hidden[..., 0, 0].sum(1), hidden[..., 0, 0].argmax(1)
    assert set(widths) == set(range(9)) and starts.max() + 1 <= 30
    assert (np.abs(np.diff(hidden[..., 0, 0], axis=1)).sum(1) <= 2).all()  # one stretch
    hidden = 1 - np.asarray(ops.augment_spectrogram(features, draws, Augmentation(band_masks=2, band_mask=3)))
    assert (hidden == hidden[:, :1, :, :1]).all() and 3 < hidden[:, 0, :, 0].sum(1).max() <= 6


def test_mixing_is_with_the_partner():
    features = np.arange(4.0).reshape(4, 1, 1, 1)
    mixed = ops.mix(features, np.array([1, 2, 3, 0]), np.array([1.0, 0.75, 0.5, 1.0]))
    np.testing.assert_allclose(np.ravel(mixed), [0, 1.25, 2.5, 3])


def test_masks_that_do_not_fit_are_named():
    with pytest.raises(SettingError, match='^time_mask=31 or band_mask=0 does not fit into 30 frames and 16 bands'):
        Augmentation(time_mask=31).check(30, 16)
