"""How close a restored picture is to the truth: PSNR and SSIM, per picture and on the host."""

import numpy as np
from jaxtyping import Float

SIGMA, RADIUS = 1.5, 5  # of the Gaussian window of SSIM, 11 pixels wide
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(image: Float[np.ndarray, 'height width'], target: Float[np.ndarray, 'height width']) -> float:
    """The peak signal-to-noise ratio in dB of values from 0 to 255; infinite for equal pictures."""
    error = np.mean((image.astype(np.float64) - target.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float('inf')


def ssim(image: Float[np.ndarray, 'height width'], target: Float[np.ndarray, 'height width']) -> float:
    """The structural similarity of values from 0 to 255, at most 1.

    Wang et al. 2004 (IEEE Transactions on Image Processing 13(4)), eq. 13, with their Gaussian window of 11 x 11
    pixels; the mean over all positions of the window inside the picture. A smaller picture is mirrored at its borders.
    """
    import scipy.ndimage

    image, target = image.astype(np.float64), target.astype(np.float64)
    offsets = np.arange(-RADIUS, RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * SIGMA**2))
    window /= window.sum()

    def smoothed(values: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            values = scipy.ndimage.correlate1d(values, window, axis, mode='reflect')
        inside = tuple(slice(RADIUS, -RADIUS) if size > 2 * RADIUS else slice(None) for size in values.shape)
        return values[inside]

    mean, target_mean = smoothed(image), smoothed(target)
    variance = smoothed(image**2) - mean**2
    target_variance = smoothed(target**2) - target_mean**2
    covariance = smoothed(image * target) - mean * target_mean
    luminance = (2 * mean * target_mean + C1) / (mean**2 + target_mean**2 + C1)
    return float(np.mean(luminance * (2 * covariance + C2) / (variance + target_variance + C2)))
