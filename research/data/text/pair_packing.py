"""Packs several short examples into a row by first fit, planned once, to reduce padding."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int, Integer

MAX_OPEN_ROWS = 256  # rows still being filled; more save little space and cost time


def first_fit(sizes: Int[np.ndarray, 'examples sides'], capacity: int) -> list[list[int]]:
    """Assigns each example to the first open row with room on every side; returns the examples of each row.

    With `MAX_OPEN_ROWS` open rows the fullest is closed, so the time is linear in the number of examples.

    Args:
      sizes: tokens of each example on each side (source and target, or only one side), at most `capacity`.
      capacity: tokens of a row on each side.
    """
    rows: list[list[int]] = []
    room = np.zeros((0, sizes.shape[1]), np.int64)
    numbers = np.zeros(0, np.int64)  # of the open rows
    for example, size in enumerate(sizes):
        fits = np.flatnonzero((room >= size).all(axis=1))
        if len(fits):
            open_row = fits[0]
        else:
            if len(numbers) == MAX_OPEN_ROWS:
                kept = np.delete(np.arange(MAX_OPEN_ROWS), np.argmin(room.min(axis=1)))
                room, numbers = room[kept], numbers[kept]
            open_row = len(numbers)
            room = np.vstack([room, np.full((1, sizes.shape[1]), capacity)])
            numbers = np.append(numbers, len(rows))
            rows.append([])
        room[open_row] -= size
        rows[numbers[open_row]].append(example)
    return rows


def padding_share(sizes: Int[np.ndarray, 'examples sides'], rows: int, capacity: int) -> float:
    """Share of positions of packed rows without a token, over all sides."""
    return 1 - float(np.sum(sizes)) / (rows * capacity * sizes.shape[1]) if rows else 0.0


def pack(texts: Sequence[np.ndarray], length: int) -> tuple[Int[np.ndarray, 'length'], Int[np.ndarray, 'length']]:
    """Concatenates texts, zero-padded, with the segment of each token: 1, 2, ..., 0 for padding."""
    tokens, segments = np.zeros(length, np.int32), np.zeros(length, np.int32)
    start = 0
    for number, text in enumerate(texts, 1):
        tokens[start : start + len(text)] = text
        segments[start : start + len(text)] = number
        start += len(text)
    return tokens, segments


class Ragged(Sequence):
    """Token sequences of different lengths, stored as one stream with start offsets."""

    def __init__(self, stream: Integer[np.ndarray, 'tokens'], starts: Int[np.ndarray, 'texts_and_one']):
        self.stream, self.starts = stream, starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> Int[np.ndarray, 'tokens']:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return np.asarray(self.stream[self.starts[number] : self.starts[number + 1]], np.int32)


def flatten(texts: Sequence[Sequence[int]], dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """The stream and the starts of `Ragged`, with tokens of type `dtype`."""
    starts = np.concatenate([[0], np.cumsum([len(text) for text in texts], dtype=np.int64)])
    stream = np.concatenate([np.asarray(text, dtype) for text in texts]) if len(texts) else np.zeros(0, dtype)
    return stream, starts


class PackedRows(Sequence):
    """Rows {side: [text, ...]} of packed examples.

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
