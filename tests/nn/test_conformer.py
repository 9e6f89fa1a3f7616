"""Encoders of utterances: the logits of one do not depend on its batch mates or its bucket."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core.task import Context
from research.errors import UserError
from research.models.speech import speech_model
from research.nn.conformer import strided_windows
from research.ops.ctc import shortened

SHAPE = {'width': 16, 'layers': 2, 'heads': 2, 'hidden_width': 32}
CONTEXT = Context(jax.random.key(0), np.int32(0), False)


@pytest.mark.parametrize('name', ['conformer', 'transformer'])
@pytest.mark.slow
def test_logits_do_not_depend_on_batch_mates_or_padding(name):
    model = speech_model({'name': name, **SHAPE}, 5, 3, 64)
    variables = jax.jit(model.init)(jax.random.key(1))
    draw = np.random.default_rng(0)
    row = draw.normal(size=(21, 3)).astype(np.float32)

    def logits(frames, mates, padding):
        batch = np.full((1 + mates, frames, 3), padding, np.float32)
        batch[:, :21] = draw.normal(size=(1 + mates, 21, 3))
        batch[0, :21] = row
        lengths = np.array([21, *draw.integers(1, frames, size=mates)], np.int32)
        return apply(variables, {'features': batch, 'frames': lengths})

    apply = jax.jit(lambda variables, batch: model.apply(variables, batch, CONTEXT)[0])
    alone = logits(21, 0, 0.0)
    assert alone.shape == (1, shortened(21), 5) and alone.dtype == jnp.float32
    for frames, mates, padding in ((22, 0, 0.0), (40, 3, 7.0), (64, 2, -50.0)):
        np.testing.assert_allclose(logits(frames, mates, padding)[0, : shortened(21)], alone[0], atol=2e-5)


@pytest.mark.slow
def test_a_conformer_sees_frames_through_its_convolution():
    """Without attention, an output frame depends on a window of the input and on nothing else."""
    model = speech_model({'name': 'conformer', **SHAPE, 'layers': 1, 'kernel': 3, 'window': 1}, 5, 3, 64)
    variables = jax.jit(model.init)(jax.random.key(1))
    features = np.random.default_rng(0).normal(size=(1, 64, 3)).astype(np.float32)

    @jax.jit
    def outputs(values):
        return model.apply(variables, {'features': values, 'frames': np.array([64])}, CONTEXT)[0][0]

    changed = features.copy()
    changed[0, 32] += 1.0
    moved = np.abs(outputs(changed) - outputs(features)).max(axis=-1) > 1e-6
    assert moved[8] and moved[7] and moved[9] and not moved[:6].any() and not moved[11:].any()


def test_strided_windows_are_a_convolution_of_stride_two():
    x = np.random.default_rng(0).normal(size=(1, 7, 2)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(3, 2, 4)).astype(np.float32)
    expected = jax.lax.conv_general_dilated(x, kernel, (2,), [(1, 1)], dimension_numbers=('NHC', 'HIO', 'NHC'))
    np.testing.assert_allclose(strided_windows(x) @ kernel.reshape(6, 4), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('settings', 'message'), [({'kernel': 4}, 'odd'), ({'positions': 'learned'}, 'rotary'), ({'widht': 3}, 'width')]
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        speech_model({'name': 'conformer', **SHAPE, **settings}, 5, 3, 64)


def test_too_many_frames_are_refused():
    model = speech_model({'name': 'conformer', **SHAPE}, 5, 3, 8)
    with pytest.raises(UserError, match='3 positions'):
        model.apply(model.init(jax.random.key(0)), {'features': np.zeros((1, 9, 3)), 'frames': np.array([9])}, CONTEXT)
