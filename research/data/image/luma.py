"""Brightness and colour as separate planes (ITU-R BT.601), and back.

'studio' is the range of MATLAB's `rgb2ycbcr`, 16 to 235 for the luma, which published results of super-resolution use;
'full' is that of JPEG files, 0 to 255.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped, UInt8

Range = Literal['studio', 'full']
FULL = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
STUDIO = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
MATRICES = {'studio': (STUDIO, np.array([16.0, 128, 128])), 'full': (FULL, np.array([0.0, 128, 128]))}


def to_planes(image: Shaped[np.ndarray, 'height width 3'], levels: Range) -> Float[np.ndarray, 'height width 3']:
    """Luma and two colour differences of an RGB picture, all from 0 to 255."""
    matrix, offset = MATRICES[levels]
    return image.astype(np.float64) @ matrix.T + offset


def from_planes(planes: Float[np.ndarray, 'height width 3'], levels: Range) -> Float[np.ndarray, 'height width 3']:
    """The RGB picture of luma and colour differences; values may leave 0 to 255."""
    matrix, offset = MATRICES[levels]
    return (planes - offset) @ np.linalg.inv(matrix).T


def luma(image: UInt8[np.ndarray, 'height width channels'], levels: Range) -> UInt8[np.ndarray, 'height width']:
    """The rounded luma of a colour picture; a grey picture is used as it is."""
    if image.shape[-1] == 1:
        return image[..., 0]
    return np.round(to_planes(image, levels)[..., 0]).astype(np.uint8)
