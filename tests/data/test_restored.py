"""Degraded pictures, patches and tiles on the host."""

import numpy as np
import pytest

from research.data.dataset import open_dataset
from research.data.image import restored, tiles
from research.data.image.degradation import Degradation, central_patch, compressed, degrade, random_patch
from research.data.sets import shapes, train400
from research.errors import UserError

NOISE, BICUBIC, JPEG = Degradation('noise', 25.0), Degradation('bicubic', 3.0), Degradation('jpeg', 10.0)


def grey(number=0, side=64):
    """A generated grey picture."""
    return shapes.drawing(0, number, side, 1)[..., 0]


class Chosen:
    """A random generator that gives chosen whole numbers, then zeros."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def integers(self, high, size=None):
        if size is None:
            return min(self.numbers.pop(0), high - 1)
        return np.array([min(self.numbers.pop(0), high - 1) for _ in range(size)])

    def standard_normal(self, shape, dtype):
        return np.zeros(shape, dtype)


def test_noise_is_neither_clipped_nor_rounded():
    clean = np.full((200, 200), 255, np.uint8)
    noisy = degrade(NOISE, clean, 25.0, np.random.default_rng(0))
    assert noisy.max() > 1.3 and noisy.dtype == np.float32
    assert abs(float(np.std(noisy)) * 255 - 25) < 0.3


def test_noise_of_evaluation_depends_on_seed_split_and_number_alone():
    row = {'target': grey()[..., None], 'key': (2, 7)}
    first = restored.degraded(NOISE, 0, row).planes[0]
    np.testing.assert_array_equal(first, restored.degraded(NOISE, 0, dict(row)).planes[0])
    for seed, key in ((1, (2, 7)), (0, (1, 7)), (0, (2, 8))):
        assert np.abs(restored.degraded(NOISE, seed, {**row, 'key': key}).planes[0] - first).max() > 0.05


@pytest.mark.parametrize('made', [NOISE, BICUBIC, JPEG], ids=lambda made: made.name)
def test_a_patch_is_cut_from_the_degraded_surroundings(made):
    clean = grey(side=96)
    low, target, _ = random_patch(made, clean, 12, Chosen(3, 6, 0, 5, 2))
    context = made.context
    down, right = (8 + 5, 8 + 2) if made is JPEG else (context, context)
    np.testing.assert_array_equal(target, clean[3 + down : 15 + down, 6 + right : 18 + right])
    assert low.shape == (12 // made.scale, 12 // made.scale)
    if made is BICUBIC:  # the same pixels as of the whole picture
        whole = degrade(made, clean[: 96 // 4 * 3, : 96 // 4 * 3], 3.0, None)
        top, left = (3 + context) // 3, (6 + context) // 3
        np.testing.assert_array_equal(low, whole[top : top + 4, left : left + 4])
    if made is JPEG:  # differs from the truth, and not by compressing the patch alone
        assert np.abs(low * 255 - target).max() > 1
        assert np.abs(low - compressed(np.ascontiguousarray(target), 10) / 255).max() > 0.01


def test_patches_are_turned_in_eight_ways():
    clean = np.arange(16, dtype=np.uint8).reshape(4, 4)
    seen = {random_patch(NOISE, clean, 4, Chosen(0, 0, turn))[1].tobytes() for turn in range(8)}
    assert len(seen) == 8


def test_a_small_picture_is_mirrored():
    clean = np.arange(20, dtype=np.uint8).reshape(4, 5)
    _, target, _ = random_patch(NOISE, clean, 8, Chosen(0, 0, 0))
    np.testing.assert_array_equal(target[:4, :5], clean)
    np.testing.assert_array_equal(target[4], target[3])
    assert central_patch(clean, 8).shape == (8, 8)


def test_blind_training_draws_the_strength():
    blind = Degradation('noise', 25.0, (5.0, 50.0))
    strengths = [random_patch(blind, grey(), 16, np.random.default_rng(seed))[2] for seed in range(30)]
    assert min(strengths) < 15 and max(strengths) > 40 and len(set(strengths)) == 30


@pytest.mark.parametrize('shape', [(8, 8), (9, 20), (3, 5), (31, 16)])
def test_tiles_cover_each_pixel_once(shape):
    tiling = tiles.Tiling(8, 4, 3)
    low = np.random.default_rng(0).random(shape).astype(np.float32)
    large = np.repeat(np.repeat(low, 3, 0), 3, 1)
    windows, targets = tiles.cut(tiling, low), tiles.cut_targets(tiling, large)
    assert {window.shape for window in windows} == {(16, 16)} and len(windows) == len(targets)
    enlarged = [np.repeat(np.repeat(window, 3, 0), 3, 1) for window in windows]
    np.testing.assert_array_equal(tiles.assemble(tiling, enlarged, shape), large)
    assert sum(np.isfinite(target).sum() for target in targets) == large.size
    for window, target in zip(enlarged, targets, strict=True):
        counts = np.isfinite(target)
        np.testing.assert_array_equal(window[counts], target[counts])


def test_colours_of_a_request_come_back():
    image = shapes.drawing(0, 1, 32, 3)
    planes, recompose = restored.to_restore(image, NOISE)
    assert len(planes) == 3
    np.testing.assert_allclose(recompose(planes) * 255, image, atol=1e-3)
    planes, recompose = restored.to_restore(image, JPEG)
    assert len(planes) == 1
    np.testing.assert_allclose(recompose(planes) * 255, image, atol=1e-3)
    planes, recompose = restored.to_restore(image, BICUBIC)
    height, width, _ = image.shape
    assert recompose([np.zeros((3 * height, 3 * width), np.float32)]).shape == (3 * height, 3 * width, 3)


def test_bad_pictures_are_refused():
    with pytest.raises(UserError, match='drawing 3: the picture is smaller than 3 pixels'):
        restored.clean_target(np.zeros((2, 9), np.uint8), BICUBIC, 'drawing 3')
    with pytest.raises(UserError, match="no 'image'"):
        restored.degraded(NOISE, 0, {})
    with pytest.raises(UserError, match='is text'):
        restored.degraded(NOISE, 0, {'image': 'photo.png'})
    image = np.zeros((8, 8), np.uint8)
    with pytest.raises(UserError, match='sigma must be a number from 0 to 255'):
        restored.degraded(NOISE, 0, {'image': image, 'sigma': 'strong'})
    with pytest.raises(UserError, match='quality must be a number from 1 to 95'):
        restored.degraded(JPEG, 0, {'image': image, 'quality': 0})
    assert restored.degraded(NOISE, 0, {'image': image, 'sigma': '15'}).strength == 15  # as in a table
    with pytest.raises(UserError, match='config.data.examples must be 6 or more, got 2'):
        open_dataset({'name': 'shapes', 'examples': 2})
    with pytest.raises(UserError, match='is unknown'):
        train400.open(test='set13')
    with pytest.raises(UserError, match='a test split is'):
        train400.open(test='train')


@pytest.mark.data
def test_noisy_set12_has_the_published_psnr(data):
    rows = train400.open(f'{data}/train400_gray').source('test')
    values = []
    for number in range(len(rows)):
        target = restored.clean_target(rows[number]['image'], NOISE, '')
        noisy = restored.degraded(NOISE, 0, {'target': target, 'key': (2, number)}).planes[0]
        values.append(restored.quality(noisy, target[..., 0], NOISE)[0])
    assert len(values) == 12 and round(float(np.mean(values)), 2) == 20.17  # clipped noise gives 20.48


@pytest.mark.data
def test_splits_of_train400(data):
    counts = {
        test: [len(train400.open(f'{data}/train400_gray', test).source(split)) for split in ('train', 'validation')]
        for test in ('set12', 'classic5')
    }
    assert counts == {'set12': [380, 20], 'classic5': [380, 20]}
    rows = train400.open(f'{data}/train400_gray', 'classic5').source('test')
    assert len(rows) == 5 and rows[0]['image'].shape == (512, 512, 1)
    names = {split: {rows.where(n) for n in range(len(rows))} for split in ('train', 'validation')
             for rows in [train400.open(f'{data}/train400_gray').source(split)]}  # fmt: skip
    assert not names['train'] & names['validation']
