"""Several short examples in one row: a plan made once, by first fit, so that little of a batch is padding."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int, Integer

OPEN = 256  # rows that are still being filled; more find little more room and cost time


def first_fit(sizes: Int[np.ndarray, 'examples sides'], capacity: int) -> list[list[int]]:
    """Returns the examples of each row: each goes into the first open row that has room on every side.

    Where `OPEN` rows are open the fullest is closed, so that time is linear in the number of examples.

    Args:
      sizes: tokens of each example on each side (source and target, or one side alone), at most `capacity`.
      capacity: tokens of a row on each side.
    """
    rows: list[list[int]] = []
    room = np.zeros((0, sizes.shape[1]), np.int64)
    numbers = np.zeros(0, np.int64)  # of the open rows
    for example, size in enumerate(sizes):
        fits = np.flatnonzero((room >= size).all(axis=1))
        if len(fits):
            place = fits[0]
        else:
            if len(numbers) == OPEN:
                kept = np.delete(np.arange(OPEN), np.argmin(room.min(axis=1)))
                room, numbers = room[kept], numbers[kept]
            place = len(numbers)
            room = np.vstack([room, np.full((1, sizes.shape[1]), capacity)])
            numbers = np.append(numbers, len(rows))
            rows.append([])
        room[place] -= size
        rows[numbers[place]].append(example)
    return rows


def padding_share(sizes: Int[np.ndarray, 'examples sides'], rows: int, capacity: int) -> float:
    """Returns the share of the positions of `rows` packed rows that hold no token, over all sides together."""
    return 1 - float(np.sum(sizes)) / (rows * capacity * sizes.shape[1]) if rows else 0.0


def pack(texts: Sequence[np.ndarray], length: int) -> tuple[Int[np.ndarray, 'length'], Int[np.ndarray, 'length']]:
    """Returns texts one after the other, zero-padded, and the segment of each token: 1, 2, ..., 0 for padding."""
    tokens, segments = np.zeros(length, np.int32), np.zeros(length, np.int32)
    start = 0
    for number, text in enumerate(texts, 1):
        tokens[start : start + len(text)] = text
        segments[start : start + len(text)] = number
        start += len(text)
    return tokens, segments


class Ragged(Sequence):
    """Texts of tokens of different lengths, stored as one stream and where each starts."""

    def __init__(self, stream: Integer[np.ndarray, 'tokens'], starts: Int[np.ndarray, 'texts_and_one']):
        self.stream, self.starts = stream, starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> Int[np.ndarray, 'tokens']:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return np.asarray(self.stream[self.starts[number] : self.starts[number + 1]], np.int32)


def flatten(texts: Sequence[Sequence[int]], kind: type) -> tuple[np.ndarray, np.ndarray]:
    """Returns the stream and the starts of `Ragged`; tokens have the type `kind`."""
    starts = np.concatenate([[0], np.cumsum([len(text) for text in texts], dtype=np.int64)])
    stream = np.concatenate([np.asarray(text, kind) for text in texts]) if len(texts) else np.zeros(0, kind)
    return stream, starts


class PackedRows(Sequence):
    """Rows {side: [text, ...]} of the examples that the plan puts together.

    Args of the class:
      sides: {'source': texts, 'target': texts}, in the order of the plan.
      starts: [rows + 1], the first example of each row.
    """

    def __init__(self, sides: Mapping[str, Ragged], starts: Int[np.ndarray, 'rows_and_one']):
        self.sides, self.starts = sides, starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> dict[str, list[np.ndarray]]:
        if not 0 <= number < len(self):
            raise IndexError(number)
        examples = range(int(self.starts[number]), int(self.starts[number + 1]))
        return {name: [texts[example] for example in examples] for name, texts in self.sides.items()}
