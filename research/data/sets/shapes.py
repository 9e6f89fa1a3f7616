"""Generated pictures of shaded shapes, of different sizes: always available, for tests and first tries.

Source: generated from a seed. Licence: that of the project. Splits: of each six pictures, one is for testing and one
for validation.
"""

import functools
from typing import Annotated, Literal

import numpy as np
from jaxtyping import UInt8

from research.data.dataset import DataSet
from research.data.readers.rows import Rows
from research.errors import Count, Range, choose

SPLIT_PERIOD = 6  # of this many pictures, one is for testing and one for validation


def drawing(seed: int, number: int, side: int, channels: int) -> UInt8[np.ndarray, 'height width channels']:
    """A picture with a shaded background, discs, and stripes: a pure function of its arguments.

    Args:
      seed: of the set.
      number: of the picture.
      side: largest side in pixels; the sides are three quarters of it or more.
      channels: 1 or 3.
    """
    draw = np.random.default_rng((seed, number))
    height, width = draw.integers(3 * side // 4, side + 1, 2)
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    slope = draw.uniform(-1, 1, (2, channels)) * 60 / side
    image = draw.uniform(60, 190, channels) + rows[..., None] * slope[0] + columns[..., None] * slope[1]
    for _ in range(int(draw.integers(3, 6))):
        center, radius = draw.uniform(0, side, 2), draw.uniform(side / 12, side / 4)
        inside = np.hypot(rows - center[0], columns - center[1]) < radius
        stripes = 40 * np.sin((rows * draw.normal() + columns * draw.normal()) * draw.uniform(0.3, 1.2))
        shade = draw.uniform(0, 255, channels) + stripes[..., None] * (draw.random() < 0.5)
        image = np.where(inside[..., None], shade, image)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def open(
    examples: Annotated[int, Range(SPLIT_PERIOD)] = 96,
    side: Annotated[int, Range(8)] = 64,
    channels: Literal[1, 3] = 3,
    seed: Count = 0,
) -> DataSet:
    """Opens the set; a row is {'image': uint8 [height, width, channels]}.

    Args:
      examples: pictures of all splits together, 6 or more.
      side: their largest side in pixels, 8 or more.
      channels: 1 (grey) or 3.
      seed: of the pictures.
    """
    remainders = {'train': range(2, SPLIT_PERIOD), 'validation': (1,), 'test': (0,)}

    @functools.cache
    def source(split: str) -> Rows:
        chosen = choose(split, remainders, 'split')
        numbers = [number for number in range(examples) if number % SPLIT_PERIOD in chosen]
        drawn = functools.cache(lambda row: drawing(seed, numbers[row], side, channels))
        return Rows(len(numbers), lambda row: {'image': drawn(row)}, lambda row: f'drawing {numbers[row]}')

    return DataSet(source, 'shaded shapes, generated from a seed', fields=('image',))
