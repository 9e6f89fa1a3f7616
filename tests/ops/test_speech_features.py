"""Features of utterances: no valid frame depends on the padding, and masks lie in the utterance."""

import jax.numpy as jnp
import numpy as np
import pytest

from research.ops import audio
from research.ops.audio import Mel
from research.ops.sound_augmentation import UtteranceMasks, mask_utterances
from research.ops.speech_features import SpeechFeatures, speech_features

MEL = Mel(8000, window=25.0, hop=10.0, bands=8)
PLAIN = UtteranceMasks()


def batch_of(sound, samples):
    padded = np.pad(sound, (0, samples - len(sound)))
    draw = np.zeros(1, np.uint32)
    return {'audio': jnp.float32(padded[None]), 'frames': jnp.array([MEL.frames(len(sound))]), 'draw': draw}


@pytest.mark.parametrize('masks', [PLAIN, UtteranceMasks(2, 0.2, 1, 3)])
@pytest.mark.slow
def test_valid_frames_do_not_depend_on_the_padding(masks):
    sound = np.random.default_rng(0).normal(size=1234) / 4
    settings = SpeechFeatures(MEL, 2, masks)
    count = MEL.frames(len(sound))
    values = [np.asarray(speech_features(settings, batch_of(sound, size), True)) for size in (1234, 1599, 4000)]
    for longer in values[1:]:
        np.testing.assert_allclose(longer[:, :count], values[0], atol=2e-5)
        assert not longer[:, count:].any()


def test_every_band_is_standardized_over_its_utterance():
    features = 5 + 3 * np.random.default_rng(0).normal(size=(2, 30, 4)).astype(np.float32)
    batch = {'features': features, 'frames': jnp.array([30, 11])}
    values = np.asarray(speech_features(SpeechFeatures(None, 0, PLAIN), batch, False))
    for row, frames in ((0, 30), (1, 11)):
        np.testing.assert_allclose(values[row, :frames].mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(values[row, :frames].std(axis=0), 1, atol=1e-4)
    silent = speech_features(SpeechFeatures(None, 1, PLAIN), {**batch, 'features': jnp.ones((2, 30, 4))}, False)
    assert not np.asarray(silent).any()


def test_slopes_are_those_of_the_utterance_alone():
    features = np.random.default_rng(0).normal(size=(1, 20, 3)).astype(np.float32)
    batch = {'features': features, 'frames': jnp.array([20])}
    whole = np.asarray(speech_features(SpeechFeatures(None, 1, PLAIN), batch, False))
    bands = whole.reshape(1, 20, 3, 2)
    np.testing.assert_allclose(bands[..., 1], audio.deltas(bands[..., 0]), atol=1e-6)


def test_masks_lie_in_the_utterance_and_are_at_most_its_share():
    rows, frames = 200, 50
    lengths = jnp.full(rows, 20)
    draws = np.arange(rows).astype(np.uint32)
    masked = np.asarray(mask_utterances(jnp.ones((rows, frames, 6, 2)), lengths, draws, UtteranceMasks(1, 0.2, 0, 0)))
    hidden = masked[:, :, 0, 0] == 0
    assert not hidden[:, 20:].any() and hidden.sum(axis=1).max() == 4 and hidden[:, :20].any(axis=0).all()
    masked = np.asarray(mask_utterances(jnp.ones((rows, frames, 6, 2)), lengths, draws, UtteranceMasks(0, 0.2, 1, 3)))
    assert {(row[0, :, 0] == 0).sum() for row in masked} == {0, 1, 2, 3}
    assert (masked[..., 0] == masked[..., 1]).all()
