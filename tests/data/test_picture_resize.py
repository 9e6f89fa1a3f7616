"""MATLAB's bicubic resizing: exact weights, an independent implementation, and published figures of Set5 and Set14."""

import fractions

import numpy as np
import pytest
from PIL import Image

from research.data.image.luma import from_planes, luma, to_planes
from research.data.image.resize import resize, weights_of
from research.data.sets import set5_set14
from research.ops.image_quality import psnr

THIRD = fractions.Fraction(1, 3)
# Measured on these files; the mean PSNR of bicubic enlargement that the literature reports for both sets.
BICUBIC = {'set5': {2: 33.65, 3: 30.39, 4: 28.42}, 'set14': {2: 30.23, 3: 27.54, 4: 26.00}}


def test_weights_of_enlargement_are_those_computed_by_hand():
    # Keys 1981 with a = -0.5 at distances 1.25, 0.25, 0.75 and 1.75; row 5 lies 0.25 after pixel 2.
    np.testing.assert_allclose(weights_of(8, 2)[5], [0, -0.0703125, 0.8671875, 0.2265625, -0.0234375, 0, 0, 0])
    # Row 0 lies 0.25 before pixel 0: pixels -1 and -2 are mirrored to 0 and 1.
    np.testing.assert_allclose(weights_of(8, 2)[0], [0.8671875 + 0.2265625, -0.0703125 - 0.0234375, 0, 0, 0, 0, 0, 0])


def test_reduction_stretches_the_kernel():
    weights = weights_of(24, THIRD)
    assert (np.abs(weights[4]) > 1e-12).sum() > 6  # twelve pixels wide, not four
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(weights[3:5] @ np.arange(24.0), [10, 13])  # a ramp stays a ramp: centers of triples


def test_inside_it_equals_an_independent_implementation():
    values = np.random.default_rng(0).random((48, 60)).astype(np.float32)
    for factor in (THIRD, fractions.Fraction(1, 2), 2, 3):
        ours = resize(values, factor)
        height, width = ours.shape
        theirs = np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC))
        border = 8 if factor > 1 else 3  # Pillow treats borders otherwise
        inside = (slice(border, -border), slice(border, -border))
        np.testing.assert_allclose(ours[inside], theirs[inside], atol=2e-6)


def test_bytes_are_rounded_and_clipped_and_channels_kept():
    step = np.zeros((8, 8, 3), np.uint8)
    step[:, 4:] = 255
    large = resize(step, 2)
    assert large.dtype == np.uint8 and large.shape == (16, 16, 3)
    assert large.min() == 0 and large.max() == 255
    assert resize(step[:7, :8, 0], THIRD).shape == (3, 3)  # rounded up


def test_luma_is_that_of_matlab_or_of_jpeg():
    white, black = np.full((1, 1, 3), 255, np.uint8), np.zeros((1, 1, 3), np.uint8)
    assert (luma(white, 'studio').item(), luma(black, 'studio').item()) == (235, 16)
    assert (luma(white, 'full').item(), luma(black, 'full').item()) == (255, 0)
    green = np.array([[[0, 255, 0]]], np.uint8)
    assert (luma(green, 'studio').item(), luma(green, 'full').item()) == (145, 150)
    assert luma(np.full((2, 2, 1), 7, np.uint8), 'studio').tolist() == [[7, 7], [7, 7]]  # grey is used as it is


@pytest.mark.parametrize('levels', ['studio', 'full'])
def test_planes_give_the_picture_back(levels):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    np.testing.assert_allclose(from_planes(to_planes(image, levels), levels), image, atol=1e-9)


@pytest.mark.data
@pytest.mark.parametrize('name', BICUBIC)
def test_bicubic_enlargement_reaches_the_published_figures(data, name):
    rows = set5_set14.open(f'{data}/set5_set14', name).source('test')
    for factor, expected in BICUBIC[name].items():
        values = []
        for number in range(len(rows)):
            target = luma(rows[number]['image'], 'studio')
            height, width = (size - size % factor for size in target.shape)
            target = target[:height, :width]
            large = resize(resize(target, fractions.Fraction(1, factor)), factor)
            inside = (slice(factor, -factor), slice(factor, -factor))
            values.append(psnr(large[inside], target[inside]))
        assert round(float(np.mean(values)), 2) == expected, factor
