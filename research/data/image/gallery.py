"""Pictures of what a generator has learnt: the way between two draws, and the training pictures nearest to some."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from research.data.image.images import GREY, fit_image, grid

ROWS, STEPS = 8, 10  # of the picture of interpolations
DRAWN = 10  # pictures whose neighbours are shown
BLOCK, MOST = 2048, 60_000  # training rows read at a time, and in all


def pictures(
    classes: int,
    examples: Sequence[Any],
    source: Callable[[str], Sequence[Any]],
    shape: tuple[int, int, int],
    neighbours: int,
    answer: Callable[[Sequence[Any]], dict[str, np.ndarray]],
) -> dict[str, UInt8[np.ndarray, 'height_all width_all 3']]:
    """Returns pictures between two seeds, and the training pictures nearest to some: a task's `gallery`.

    Args:
      classes: how many labels a generator is told; 0 where it is told none.
      examples: requests; the first `DRAWN` are drawn and held against the training pictures.
      source: (split) -> its rows.
      shape: height, width and channels.
      neighbours: training pictures shown for each drawn one; with 0 there is no such picture.
      answer: (requests) -> outputs, of which 'image' is shown.
    """
    between = answer(between_requests(classes))['image']
    shown = {'interpolations': grid(between, STEPS, max(1, 48 // shape[0]))}
    if neighbours:
        drawn = answer(examples[:DRAWN])['image']
        shown['neighbours'] = neighbours_picture(drawn, source('train'), shape, neighbours)
    return shown


def between_requests(classes: int) -> list[dict[str, Any]]:
    """Returns the requests of `ROWS` ways from one seed to another; with `classes` above 0 each way has a label."""
    return [
        {'seed': 2 * row, 'to': 2 * row + 1, 'at': step / (STEPS - 1), **({'label': row % classes} if classes else {})}
        for row in range(ROWS)
        for step in range(STEPS)
    ]


def nearest(
    drawn: Float[np.ndarray, 'count height width channels'], rows: Sequence[Any], shape: tuple[int, int, int], keep: int
) -> tuple[Float[np.ndarray, 'count keep'], Int[np.ndarray, 'count keep']]:
    """Returns (distances, row numbers) of the training pictures nearest to each drawn one, nearest first.

    Distances are Euclidean over all pixels in 0 to 1. Of more than `MOST` rows, so many evenly spread ones are
    looked at.
    """
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST)).astype(int))
    points = drawn.reshape(len(drawn), -1).astype(np.float64)
    best, where = np.full((len(drawn), 0), np.inf), np.zeros((len(drawn), 0), int)
    for start in range(0, len(chosen), BLOCK):
        part = chosen[start : start + BLOCK]
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
    """Returns one row for each drawn picture, in a frame, then the training pictures nearest to it."""
    distances, numbers = nearest(drawn, rows, shape, keep)
    pictures, captions, frames = [], [], []
    for picture, far, found in zip(drawn, distances, numbers, strict=True):
        pictures += [picture, *(fit_image(rows[int(row)]['image'], shape) for row in found)]
        captions += ['drawn', *(f'{each:.2f}' for each in far)]
        frames += [GREY] + [None] * len(found)
    return grid(pictures, 1 + distances.shape[1], captions=captions, frames=frames)
