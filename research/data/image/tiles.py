"""Large pictures as overlapping tiles of one shape, and their results as one picture again.

A model whose outputs depend on at most `margin` pixels in each direction computes the same values on tiles as on the
whole picture: each tile is read with a margin around it, and only its inside is kept. Beyond the picture, pixels are
mirrored with the edge pixel repeated. One shape means one compilation for pictures of all sizes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped


class Tiling(NamedTuple):
    """Tiles of `side` pixels, each read with `margin` more pixels on every side; outputs are `scale` times larger."""

    side: int
    margin: int
    scale: int = 1

    @property
    def window(self) -> int:
        """The side of what a model reads for one tile."""
        return self.side + 2 * self.margin


def corners(tiling: Tiling, shape: Sequence[int]) -> list[tuple[int, int]]:
    """The upper left corners of the tiles of a picture, row by row, in pixels of the input."""
    height, width = shape[:2]
    return [(top, left) for top in range(0, height, tiling.side) for left in range(0, width, tiling.side)]


def cut(tiling: Tiling, image: Shaped[np.ndarray, 'height width']) -> list[Shaped[np.ndarray, 'window window']]:
    """The windows of all tiles, in the order of `corners`."""
    after = [tiling.margin + -size % tiling.side for size in image.shape]
    padded = np.pad(image, [(tiling.margin, extra) for extra in after], 'symmetric')
    return [
        padded[top : top + tiling.window, left : left + tiling.window] for top, left in corners(tiling, image.shape)
    ]


def cut_targets(
    tiling: Tiling, target: Float[np.ndarray, 'height width']
) -> list[Float[np.ndarray, 'window_out window_out']]:
    """The targets of all tiles, NaN where a pixel belongs to another tile or to none, in the order of `corners`."""
    side, margin, scale = tiling
    windows = []
    for top, left in corners(tiling, [size // scale for size in target.shape]):
        window = np.full((tiling.window * scale, tiling.window * scale), np.nan, np.float32)
        inside = target[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        start = margin * scale
        window[start : start + inside.shape[0], start : start + inside.shape[1]] = inside
        windows.append(window)
    return windows


def assemble(
    tiling: Tiling, windows: Sequence[Float[np.ndarray, 'window_out window_out']], shape: Sequence[int]
) -> Float[np.ndarray, 'height_out width_out']:
    """The whole picture of the outputs of its tiles; `shape` is that of the input."""
    side, margin, scale = tiling
    image = np.empty((shape[0] * scale, shape[1] * scale), np.float32)
    start, stop = margin * scale, (margin + side) * scale
    for (top, left), window in zip(corners(tiling, shape), windows, strict=True):
        part = image[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        part[:] = window[start:stop, start:stop][: part.shape[0], : part.shape[1]]
    return image
