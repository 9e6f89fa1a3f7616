"""Augmentations against hand-written references, and as functions of (seed, epoch, index)."""

import types

import numpy as np
import pytest

from research.data.batches import Row, encode_rows
from research.data.image import augmentations
from research.data.image.augmentations import OPERATIONS, Augmentations, augment
from research.data.image.images import fit_image

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (9, 12, 3)).astype(np.uint8)
GREY = (RNG.integers(0, 256, (8, 8, 1)) / 255).astype(np.float32)
ALL = Augmentations(resized_crop=0.3, shift=1, flip=True, operations=2, magnitude=8.0, erase=0.5)


def generator(*seeds):
    return np.random.default_rng(seeds)


def test_what_is_done_depends_on_seed_epoch_and_index_alone():
    rows = [{'image': COLOUR}] * 4

    def encode(raw, rng=None):
        return {'image': augment(raw['image'], (8, 8, 3), ALL, rng)}

    def batch(seed, epoch, order=range(4)):
        return encode_rows(rows, encode, [Row(index, epoch, True) for index in order], seed)['image']

    first = batch(1, 0)
    assert first.dtype == np.float32 and 0 <= first.min() and first.max() <= 1
    np.testing.assert_array_equal(first[::-1], batch(1, 0, [3, 2, 1, 0]))
    for other in (batch(2, 0), batch(1, 1)):
        assert not np.array_equal(first, other)
    assert len({each.tobytes() for each in first}) == 4


def test_nothing_is_done_where_nothing_is_asked_for():
    np.testing.assert_array_equal(augment(COLOUR, (9, 12, 3), Augmentations(), None), fit_image(COLOUR, (9, 12, 3)))


def test_half_are_mirrored():
    flipped = [augment(GREY, (8, 8, 1), Augmentations(flip=True), generator(seed)) for seed in range(200)]
    number = sum(np.array_equal(each, GREY[:, ::-1]) for each in flipped)
    assert 70 < number < 130 and number + sum(np.array_equal(each, GREY) for each in flipped) == 200


def test_a_resized_crop_is_a_box_of_the_allowed_area_and_shape():
    numbers = np.arange(40 * 50).reshape(40, 50)
    areas, ratios = [], []
    for seed in range(300):
        crop = augmentations.random_crop(numbers, generator(seed), 0.3)
        rows, columns = crop.shape
        top, left = divmod(int(crop[0, 0]), 50)
        np.testing.assert_array_equal(crop, numbers[top : top + rows, left : left + columns])
        areas.append(rows * columns / 2000)
        ratios.append(columns / rows)
    assert 0.28 < min(areas) < 0.35 and 0.9 < max(areas) <= 1
    assert 0.7 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.4
    narrow = augmentations.random_crop(np.arange(100).reshape(2, 50), generator(0), 1.0)
    np.testing.assert_array_equal(narrow, np.arange(100).reshape(2, 50)[:, 23:26])  # 4:3 in the centre
    assert augment(COLOUR, (6, 6, 3), Augmentations(resized_crop=0.5), generator(1)).shape == (6, 6, 3)


def test_a_centre_crop_is_the_middle_square():
    numbers = np.arange(8 * 16).reshape(8, 16)
    np.testing.assert_array_equal(augmentations.center_crop(numbers, 0.5), numbers[2:6, 6:10])
    assert augmentations.center_crop(numbers, 1.0).shape == (8, 8)


def test_erasing_puts_noise_into_one_box():
    seen = []
    for seed in range(200):
        image = np.full((20, 30, 3), 2.0, np.float32)
        erased = augmentations.erase(image, generator(seed))
        inside = (erased != 2).all(-1)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        assert (image == 2).all()
        if not inside.any():
            continue
        assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert erased[inside].min() >= 0 and erased[inside].max() < 1 and len(np.unique(erased[inside])) > 3
        seen.append((inside.mean(), len(rows) / len(columns)))
    areas, ratios = np.array(seen).T
    assert len(seen) > 190 and 0.015 < areas.min() < 0.05 and 0.33 < areas.max() < 0.42
    assert 0.25 < ratios.min() < 0.6 and 1.8 < ratios.max() < 3.6
    calls = [augment(GREY, (8, 8, 1), Augmentations(erase=0.25), generator(seed)) for seed in range(200)]
    assert 30 < sum(not np.array_equal(each, GREY) for each in calls) < 70


def whole(values):
    """Returns [0, 1] as 0 to 255."""
    return np.round(values[..., 0].astype(np.float64) * 255)


def blended(degenerate, levels, factor):
    """Returns the blend of two pictures as Pillow rounds it."""
    return np.clip(degenerate + (levels - degenerate) * factor, 0, 255)


@pytest.mark.parametrize('name', OPERATIONS)
def test_each_operation_of_randaugment_is_what_its_name_says(name, monkeypatch):
    """At strength 0.5, forwards, beside the same in NumPy; resampled ones by what they leave where."""
    monkeypatch.setattr(augmentations, 'OPERATIONS', {name: OPERATIONS[name]})
    forwards = types.SimpleNamespace(integers=lambda count: 0, random=lambda: 0.0)

    def done(image, magnitude=5.0):
        return whole(augmentations.rand_augment(image, forwards, 1, magnitude))

    levels, strength = whole(GREY), 0.5
    smoothed = levels.copy()
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    for y in range(1, 7):
        for x in range(1, 7):
            smoothed[y, x] = np.round((levels[y - 1 : y + 2, x - 1 : x + 2] * kernel).sum())
    low, high = levels.min(), levels.max()
    expected = {
        'identity': levels,
        'auto_contrast': (levels - low) * 255 / (high - low),
        'solarize': np.where(levels < 128, levels, 255 - levels),
        'color': levels,  # grey has none
        'posterize': levels // 4 * 4,
        'contrast': blended(np.round(levels.mean()), levels, 1 + 0.9 * strength),
        'brightness': blended(0, levels, 1 + 0.9 * strength),
        'sharpness': blended(smoothed, levels, 1 + 0.9 * strength),
    }
    if name in expected:
        np.testing.assert_allclose(done(GREY), expected[name], atol=1.01)
    elif name == 'equalize':
        dark = (RNG.random((40, 40, 1)) ** 2 * 255).round().astype(np.float32) / 255
        numbers = np.bincount(whole(dark).astype(int).ravel(), minlength=256)
        step = (numbers.sum() - numbers[numbers > 0][-1]) // 255
        table = (step // 2 + np.cumsum(numbers) - numbers) // step  # levels as far apart as their pixels are many
        np.testing.assert_array_equal(done(dark), np.minimum(table, 255)[whole(dark).astype(int)])
    else:
        moved_as_it_should(name, done, strength)
    still = done(GREY, 0.0)
    if name not in ('auto_contrast', 'equalize'):  # those have no strength
        np.testing.assert_allclose(still, levels, atol=1.01)


def moved_as_it_should(name, done, strength):
    """Checks where a bright column or row in the middle of a dark picture of 33x33 goes."""
    line = np.zeros((33, 33, 1), np.float32)
    across = name in ('shear_y', 'translate_y')
    line[(16, slice(None)) if across else (slice(None), 16)] = 1
    found = done(line).T if across else done(line)  # rows of `found`: along the line
    place = (found * np.arange(33)).sum(1) / np.maximum(found.sum(1), 1)
    along = np.arange(33) - 16
    shift = {
        'translate_x': 0 * along - strength * 150 / 331 * 33,
        'shear_x': -0.3 * strength * np.arange(33),
        'rotate': np.tan(np.radians(30 * strength)) * along,
    }[name.replace('_y', '_x')]
    np.testing.assert_allclose(place[8:25], 16 + shift[8:25], atol=0.6)


def test_colours_and_signs(monkeypatch):
    monkeypatch.setattr(augmentations, 'OPERATIONS', {'color': OPERATIONS['color']})
    image = fit_image(COLOUR, (9, 12, 3))
    strong = {augmentations.rand_augment(image, generator(seed), 1, 10.0).std(-1).mean() for seed in range(20)}
    assert len(strong) == 2 and min(strong) < image.std(-1).mean() < max(strong)  # nearly grey, or more vivid
