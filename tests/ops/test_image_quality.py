"""PSNR and SSIM against their definitions."""

import numpy as np
import pytest

from research.ops.image_quality import psnr, ssim


def test_psnr_is_that_computed_by_hand():
    image = np.zeros((4, 4))
    assert abs(psnr(image, image + 1) - 48.1308036) < 1e-6  # 20 log10(255)
    assert psnr(image, image) == float('inf')


def ssim_by_definition(image, target):
    """Wang et al. 2004, eq. 13: every window in turn, with weights that sum to one."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(image.shape[0] - 10):
        for left in range(image.shape[1] - 10):
            x, y = (picture[top : top + 11, left : left + 11] for picture in (image, target))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            variance_x, variance_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            numerator = (2 * mean_x * mean_y + 6.5025) * (2 * covariance + 58.5225)
            values.append(numerator / ((mean_x**2 + mean_y**2 + 6.5025) * (variance_x + variance_y + 58.5225)))
    return np.mean(values)


def test_ssim_is_the_definition():
    draw = np.random.default_rng(0)
    target = draw.uniform(0, 255, (17, 14))
    image = np.clip(target + draw.normal(0, 30, target.shape), 0, 255)
    np.testing.assert_allclose(ssim(image, target), ssim_by_definition(image, target), rtol=1e-10)
    assert abs(ssim(target, target) - 1) < 1e-12
    assert 0 < ssim(image[:6, :6], target[:6, :6]) < 1  # smaller than the window


def test_both_are_those_of_scikit_image():
    metrics = pytest.importorskip('skimage.metrics')
    rng = np.random.default_rng(3)
    for shape in ((64, 48), (33, 90)):
        target = rng.integers(0, 256, shape).astype(np.float64)
        image = np.clip(0.7 * target + rng.normal(0, 20, shape), 0, 255)
        np.testing.assert_allclose(
            psnr(image, target), metrics.peak_signal_noise_ratio(target, image, data_range=255)
        )
        ours = metrics.structural_similarity(
            target, image, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        np.testing.assert_allclose(ssim(image, target), ours, rtol=1e-9)
