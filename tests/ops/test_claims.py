"""Scores are log-probabilities, by NumPy in float64, and claims have the shape of targets."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

from research.ops import claims, heads

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(4, 3)).astype(np.float32) * 5
LABELS = np.array([2, 0, 1, 1], np.int32)
FLAGS = RANDOM.integers(0, 2, (4, 3)).astype(np.float32)


def test_label_score():
    expected = log_softmax(LOGITS.astype(np.float64), axis=-1)[np.arange(4), LABELS]
    np.testing.assert_allclose(claims.label_score(LOGITS, LABELS), expected, rtol=1e-5)
    far = claims.label_score(jnp.array([[1e4, -1e4]]), jnp.array([1]))
    assert np.isfinite(far).all()


def test_multi_label_score_is_that_of_the_whole_set():
    probability = expit(LOGITS.astype(np.float64))
    expected = np.log(np.where(FLAGS > 0, probability, 1 - probability)).sum(-1)
    np.testing.assert_allclose(claims.multi_label_score(LOGITS, FLAGS), expected, rtol=1e-5)


def test_token_score_counts_what_the_mask_shows():
    logits = RANDOM.normal(size=(2, 5, 7)).astype(np.float32)
    tokens, mask = RANDOM.integers(0, 7, (2, 5)), np.array([[1, 1, 0, 0, 0], [0, 1, 1, 1, 1]], np.float32)
    chosen = np.take_along_axis(log_softmax(logits.astype(np.float64), -1), tokens[..., None], -1)[..., 0]
    np.testing.assert_allclose(claims.token_score(logits, tokens, mask), (chosen * mask).sum(-1), rtol=1e-5)


@pytest.mark.parametrize('one_unit', [False, True])
def test_a_class_is_scored_without_smoothing_and_claimed_by_its_number(one_unit):
    target = heads.single(['no', 'yes'], [3, 3], smoothing=0.3, one_unit=one_unit)
    scores = LOGITS[:, : target.units]
    logits = np.concatenate([np.zeros((4, 1)), scores], 1) if one_unit else scores
    claim = target.claim(target.answer(jnp.asarray(scores)))
    np.testing.assert_array_equal(claim, logits.argmax(-1))
    assert claim.dtype == np.int32
    expected = log_softmax(logits.astype(np.float64), -1).max(-1)
    np.testing.assert_allclose(target.score(scores, claim), expected, rtol=1e-4)


def test_labels_are_claimed_above_the_threshold():
    target = heads.multi(['a', 'b', 'c'], [1, 1, 1], 4, threshold=0.3)
    claim = target.claim(target.answer(jnp.asarray(LOGITS)))
    np.testing.assert_array_equal(claim, (expit(LOGITS) > 0.3).astype(np.float32))
    assert claim.dtype == np.float32
    np.testing.assert_allclose(target.score(LOGITS, claim), claims.multi_label_score(LOGITS, claim))


def test_a_number_is_likeliest_where_it_is_claimed():
    target = heads.regression(10.0, 4.0)
    scores = LOGITS[:, :1]
    claim = target.claim(target.answer(jnp.asarray(scores)))
    np.testing.assert_allclose(claim, 10 + 4 * scores[:, 0], rtol=1e-6)
    np.testing.assert_allclose(target.score(scores, claim), 0, atol=1e-6)
    np.testing.assert_allclose(target.score(scores, claim + 4), -0.5, rtol=1e-5)  # one deviation away
