"""Pictures of what a generator has learned: interpolations between samples, and nearest training pictures."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from research.data.image.images import GREY, fit_image, grid

INTERPOLATIONS, STEPS = 8, 10  # rows and columns of the picture of interpolations
MAX_QUERIES = 10  # samples whose neighbours are shown
BLOCK_ROWS, MAX_ROWS = 2048, 60_000  # training rows read at a time, and in total


def pictures(
    classes: int,
    examples: Sequence[Any],
    source: Callable[[str], Sequence[Any]],
    shape: tuple[int, int, int],
    neighbours: int,
    answer: Callable[[Sequence[Any]], dict[str, np.ndarray]],
) -> dict[str, UInt8[np.ndarray, 'height_all width_all 3']]:
    """Draws interpolations between pairs of seeds and the nearest training pictures: a task's `gallery`.

    Args:
      classes: number of classes of a conditional generator; 0 for an unconditional one.
      examples: requests; the first `MAX_QUERIES` are sampled and compared with the training pictures.
      source: (split) -> its rows.
      shape: height, width and channels.
      neighbours: training pictures shown per sample; 0 omits that picture.
      answer: (requests) -> outputs with 'image'.
    """
    between = answer(between_requests(classes))['image']
    shown = {'interpolations': grid(between, STEPS, max(1, 48 // shape[0]))}
    if neighbours:
        drawn = answer(examples[:MAX_QUERIES])['image']
        shown['neighbours'] = neighbours_picture(drawn, source('train'), shape, neighbours)
    return shown


def between_requests(classes: int) -> list[dict[str, Any]]:
    """Requests that interpolate between pairs of seeds; if `classes` is positive, each pair has a label."""
    return [
        {'seed': 2 * row, 'to': 2 * row + 1, 'at': step / (STEPS - 1), **({'label': row % classes} if classes else {})}
        for row in range(INTERPOLATIONS)
        for step in range(STEPS)
    ]


def nearest(
    drawn: Float[np.ndarray, 'count height width channels'], rows: Sequence[Any], shape: tuple[int, int, int], keep: int
) -> tuple[Float[np.ndarray, 'count keep'], Int[np.ndarray, 'count keep']]:
    """Finds the training pictures nearest to each sample: (distances, row numbers), nearest first.

    Distances are Euclidean over pixels in [0, 1]. At most `MAX_ROWS` evenly spaced rows are compared.
    """
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).astype(int))
    points = drawn.reshape(len(drawn), -1).astype(np.float64)
    best, where = np.full((len(drawn), 0), np.inf), np.zeros((len(drawn), 0), int)
    for start in range(0, len(chosen), BLOCK_ROWS):
        part = chosen[start : start + BLOCK_ROWS]
        block = np.stack([fit_image(rows[int(row)]['image'], shape).ravel() for row in part]).astype(np.float64)
        square = (points**2).sum(1)[:, None] + (block**2).sum(1) - 2 * points @ block.T
        best = np.hstack([best, np.sqrt(np.maximum(square, 0))])
        where = np.hstack([where, np.tile(part, (len(drawn), 1))])
        order = np.argsort(best, axis=1, kind='stable')[:, :keep]
        best, where = np.take_along_axis(best, order, 1), np.take_along_axis(where, order, 1)
    return best, where


def neighbours_picture(
    drawn: Float[np.ndarray, 'count height width channels'], rows: Sequence[Any], shape: tuple[int, int, int], keep: int
) -> UInt8[np.ndarray, 'height_all width_all 3']:
    """Draws one row per sample: the framed sample, then its nearest training pictures."""
    distances, numbers = nearest(drawn, rows, shape, keep)
    pictures, captions, frames = [], [], []
    for picture, picture_distances, neighbours in zip(drawn, distances, numbers, strict=True):
        pictures += [picture, *(fit_image(rows[int(row)]['image'], shape) for row in neighbours)]
        captions += ['drawn', *(f'{distance:.2f}' for distance in picture_distances)]
        frames += [GREY] + [None] * len(neighbours)
    return grid(pictures, 1 + distances.shape[1], captions=captions, frames=frames)
