"""Augmentation that a gradient goes through: what it does to a picture, by itself and in a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from research.errors import UserError
from research.ops.diff_augment import color, cutout, make_augment, translation

PICTURE = jnp.float32(np.random.default_rng(0).uniform(-1, 1, (16, 12, 3)))
KEYS = jax.random.split(jax.random.key(0), 40)


def test_color_is_an_affine_map_of_the_values_and_leaves_no_colour_in_a_grey_picture():
    compiled = jax.jit(color)
    for key in KEYS[:5]:
        brightness, saturation, contrast = np.float64(jax.random.uniform(key, (3,)))
        x = np.float64(PICTURE) + brightness - 0.5
        grey = x.mean(-1, keepdims=True)
        x = (x - grey) * 2 * saturation + grey
        x = (x - x.mean()) * (contrast + 0.5) + x.mean()
        np.testing.assert_allclose(compiled(key, PICTURE), x, atol=1e-5)
    one = np.asarray(compiled(KEYS[0], PICTURE[..., :1]))
    slope = np.polyfit(np.ravel(PICTURE[..., 0]), one.ravel(), 1)[0]
    assert slope == pytest.approx(float(jax.random.uniform(KEYS[0], (3,))[2]) + 0.5, abs=1e-4)


def test_translation_moves_by_whole_pixels_up_to_an_eighth_and_fills_with_zero():
    moves = {
        (down, across): scipy.ndimage.shift(np.asarray(PICTURE), (down, across, 0), order=0)
        for down in range(-2, 3)
        for across in range(-2, 3)
    }
    moved = np.asarray(jax.jit(jax.vmap(translation, (0, None)))(KEYS, PICTURE))
    found = {next(by for by, each in moves.items() if np.array_equal(each, picture)) for picture in moved}
    assert len(found) > 12 and {by[0] for by in found} == {-2, -1, 0, 1, 2}


def test_cutout_makes_one_hole_of_at_most_half_the_sides():
    holes = np.asarray(jax.jit(jax.vmap(cutout, (0, None)))(KEYS, jnp.ones((16, 12, 1))))[..., 0] == 0
    for hole in holes:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns)
        assert 4 <= len(rows) <= 8 and 3 <= len(columns) <= 6
    assert holes.any(0).all()


def test_augment_is_a_function_of_key_and_picture_through_which_gradients_flow():
    augment = jax.jit(make_augment(('color', 'translation', 'cutout')))
    first, again, other = (augment(key, PICTURE) for key in (KEYS[0], KEYS[0], KEYS[1]))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    gradient = np.asarray(jax.jit(jax.grad(lambda x: jnp.sum(augment(KEYS[0], x) ** 2)))(PICTURE))
    assert np.isfinite(gradient).all() and (gradient != 0).any()
    np.testing.assert_array_equal(make_augment(())(KEYS[0], PICTURE), PICTURE)


def test_an_unknown_change_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'cutout'"):
        make_augment(('cutot',))
