"""mixup and CutMix against float64 by hand: partners, shares, boxes, targets; padding stays out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.ops.losses import soft_cross_entropy, softmax_cross_entropy
from research.ops.mixing import box, mix, partners

RNG = np.random.default_rng(0)
IMAGES = RNG.random((8, 6, 5, 2)).astype(np.float32)
TARGETS = np.eye(4, dtype=np.float32)[RNG.integers(0, 4, 8)]
MASK = np.float32([1, 1, 0, 1, 1, 0, 1, 1])
PARTNERS = [1, 3, 2, 4, 6, 5, 7, 0]  # by hand: the next real row; padding its own
KEYS = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), jnp.array([5, 1, 0, 7, 2, 0, 9, 4]))
mixed = functools.cache(lambda mixup, cutmix: jax.jit(functools.partial(mix, mixup=mixup, cutmix=cutmix)))
both = mixed(1.0, 1.0)


@pytest.mark.parametrize(('mask', 'expected'), [
    (MASK, PARTNERS), ([1, 1, 1], [1, 2, 0]), ([0, 0], [0, 1]), ([0, 1, 0], [0, 1, 2]),
])  # fmt: skip
def test_partners_are_a_permutation_of_the_real_rows(mask, expected):
    np.testing.assert_array_equal(partners(jnp.float32(mask)), expected)


def test_mixup_is_one_share_for_picture_and_target():
    images, targets = (np.asarray(each, np.float64) for each in mixed(0.4, 0.0)(IMAGES, TARGETS, MASK, KEYS))
    own, other = IMAGES.astype(np.float64), IMAGES[PARTNERS].astype(np.float64)
    difference = own - other
    for row in np.flatnonzero(MASK):
        share = ((images[row] - other[row]) * difference[row]).sum() / (difference[row] ** 2).sum()
        assert 0 <= share <= 1
        np.testing.assert_allclose(images[row], share * own[row] + (1 - share) * other[row], atol=1e-6)
        expected = share * TARGETS[row] + (1 - share) * TARGETS[PARTNERS[row]]
        np.testing.assert_allclose(targets[row], expected, atol=1e-5)
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(images[MASK == 0], IMAGES[MASK == 0], rtol=1e-6)


def test_cutmix_pastes_a_box_and_counts_its_pixels():
    images, targets = (np.asarray(each) for each in mixed(0.0, 1.0)(IMAGES, TARGETS, MASK, KEYS))
    shares = []
    for row in np.flatnonzero(MASK):
        inside = (images[row] != IMAGES[row]).all(-1)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if len(rows):
            assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        np.testing.assert_array_equal(images[row][inside], IMAGES[PARTNERS[row]][inside])
        share = 1 - inside.mean(dtype=np.float64)
        np.testing.assert_allclose(
            targets[row], share * TARGETS[row] + (1 - share) * TARGETS[PARTNERS[row]], atol=1e-6
        )
        shares.append(share)
    assert len(set(shares)) > 3 and min(shares) < 0.9
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)


def test_a_box_has_the_area_that_the_paper_asks_for():
    for share, seed in ((0.75, 0), (0.36, 1), (0.0, 2), (1.0, 3)):
        key = jax.random.key(seed)
        inside, outside = box(key, jnp.float32(share), 40, 60)
        middle = np.asarray(jax.random.uniform(key, (2,)), np.float64) * [40, 60]
        half = np.floor(np.array([40, 60]) * np.sqrt(1 - share)) / 2
        low, high = np.floor(np.maximum(middle - half, 0)), np.floor(np.minimum(middle + half, [40, 60]))
        expected = np.zeros((40, 60), bool)
        expected[int(low[0]) : int(high[0]), int(low[1]) : int(high[1])] = True
        np.testing.assert_array_equal(inside, expected)
        assert float(outside) == pytest.approx(1 - expected.mean(), abs=1e-6)


def test_with_both_each_row_has_one_of_the_two():
    images = np.tile(np.arange(8, dtype=np.float32)[:, None, None, None], (1, 6, 5, 2))
    kinds = []
    for seed in range(4):
        keys = jax.random.split(jax.random.key(seed), 8)
        found, targets = (np.asarray(each) for each in both(images, np.eye(8)[:, :4], np.ones(8), keys))
        kinds += [len(np.unique(np.round(each, 3))) for each in found]  # mixup: one value; CutMix: both rows' own
    assert set(kinds) == {1, 2} and 6 < kinds.count(2) < 26


def test_padding_is_invisible_and_a_row_s_draw_is_its_own():
    """Whatever padding rows hold, the real rows are the same; another row's number draws otherwise."""
    broken, real = IMAGES.copy(), MASK > 0
    broken[~real] = np.nan
    first, second = both(IMAGES, TARGETS, MASK, KEYS), both(broken, TARGETS, MASK, KEYS)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[real], other[real])
    turned = both(IMAGES, TARGETS, MASK, KEYS[::-1])
    assert not np.array_equal(first[0][real], turned[0][real])
    swapped = [1, 0, 2, 3, 4, 5, 6, 7]  # the first two rows change places: row 1 keeps its draw, and meets row 0
    moved = both(IMAGES[np.array(swapped)], TARGETS[np.array(swapped)], MASK, KEYS[np.array(swapped)])
    share = np.linalg.lstsq(TARGETS[[0, 1]].T, np.asarray(moved[1][0]), rcond=None)[0]
    np.testing.assert_allclose(share.sum(), 1, atol=1e-5)


def test_a_sharded_batch_is_mixed_as_on_one_device():
    single = both(IMAGES, TARGETS, MASK, KEYS)
    mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        placed = jax.device_put((IMAGES, TARGETS, MASK, KEYS), NamedSharding(mesh, PartitionSpec('data')))
        sharded = both(*placed)
    assert len(sharded[0].sharding.device_set) == 8
    for one, eight in zip(single, sharded, strict=True):
        np.testing.assert_allclose(one, eight, rtol=1e-6)


def test_soft_cross_entropy_is_that_of_float64():
    logits = RNG.normal(0, 3, (5, 4)).astype(np.float32)
    targets = RNG.dirichlet(np.ones(4), 5).astype(np.float32)
    log_probability = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    smoothed = 0.9 * targets.astype(np.float64) + 0.1 / 4
    np.testing.assert_allclose(
        soft_cross_entropy(logits, targets, 0.1), -(smoothed * log_probability).sum(-1), rtol=1e-5
    )
    labels = np.array([0, 3, 1, 2, 0])
    np.testing.assert_allclose(
        soft_cross_entropy(logits, np.eye(4)[labels], 0.2), softmax_cross_entropy(logits, labels, 0.2), rtol=1e-5
    )
