"""The vision Transformer: where its patches are cut, and pictures that do not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import UserError
from research.nn.transformer_settings import TransformerSettings
from research.nn.vision_transformer import VisionTransformer

SETTINGS = TransformerSettings(
    vocabulary=1, length=7, width=8, layers=1, heads=2, causal=False, positions='learned', scan=True
)


def test_without_positions_whole_patches_may_change_places():
    model = VisionTransformer(dataclasses.replace(SETTINGS, positions='none'), patch=2, classes=3)
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 2)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    assert set(variables['params']) == {'patch_embedding', 'class_embedding', 'blocks', 'final_norm', 'head'}
    patches, shifted = images.copy(), images.copy()
    patches[:, :2, :2], patches[:, 2:, 4:] = images[:, 2:, 4:], images[:, :2, :2]
    shifted[:, :2, :2], shifted[:, 1:3, 4:] = images[:, 1:3, 4:], images[:, :2, :2]
    run = jax.jit(model.apply)
    logits = run(variables, images)
    assert logits.shape == (2, 3) and logits.dtype == jnp.float32
    np.testing.assert_allclose(run(variables, patches), logits, atol=1e-5)
    assert not np.allclose(run(variables, shifted), logits, atol=1e-3)


def test_pictures_that_do_not_fit_are_refused():
    model = VisionTransformer(SETTINGS, patch=2)
    for shape in ((1, 4, 5, 1), (1, 4, 4, 1)):
        with pytest.raises(UserError, match='are not 6 patches of 2x2'):
            jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
