"""Documents packed into rows of one length: several short ones in a row, a long one in pieces.

A row knows which piece each token belongs to, so that attention does not cross from one document to another.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer


def cut(stream: Integer[np.ndarray, 'tokens'], end: int, length: int) -> Integer[np.ndarray, 'pieces 2']:
    """Returns (start, size) of pieces with at most `length` tokens to read and as many, one later, to predict.

    The stream begins with `end`, and every document is followed by one. A piece reads
    stream[start : start + size] and predicts stream[start + 1 : start + size + 1]; the first of a document reads
    the end of the one before, so every token is predicted once. No piece holds tokens of two documents.
    """
    ends = np.flatnonzero(np.asarray(stream) == end)
    pieces = [
        (start, min(length, stop - start))
        for first, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        for start in range(first, stop, length)
    ]
    return np.array(pieces, np.int64).reshape(-1, 2)


def pack(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Returns rows of piece numbers, each with sizes that sum to `length` at most: best fit, largest first.

    Rows are ordered by their first piece, and the pieces of a row by their number.
    """
    free: list[list[int]] = [[] for _ in range(length + 1)]  # rows by what is left in them
    rows: list[list[int]] = []
    for piece in sorted(range(len(sizes)), key=lambda piece: (-sizes[piece], piece)):
        size = sizes[piece]
        left = next((left for left in range(size, length) if free[left]), length)
        if left == length:
            rows.append([])
            free[length].append(len(rows) - 1)
        row = free[left].pop()
        rows[row].append(piece)
        free[left - size].append(row)
    return sorted(sorted(row) for row in rows)


class Packed(Sequence):
    """Rows {'tokens', 'targets', 'segments'} [length] and 'length', the tokens that are no padding.

    'segments' counts the pieces of a row from 0; padding belongs to segment -1.
    """

    def __init__(self, stream: Integer[np.ndarray, 'tokens'], end: int, length: int):
        self.length = length
        self.stream = np.concatenate([np.array([end], stream.dtype), stream])
        self.pieces = cut(self.stream, end, length)
        self.rows = pack(self.pieces[:, 1].tolist(), length)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = {name: np.zeros(self.length, np.int32) for name in ('tokens', 'targets')}
        segments, place = np.full(self.length, -1, np.int32), 0
        for number, piece in enumerate(self.rows[index]):
            start, size = self.pieces[piece].tolist()
            row['tokens'][place : place + size] = self.stream[start : start + size]
            row['targets'][place : place + size] = self.stream[start + 1 : start + size + 1]
            segments[place : place + size] = number
            place += size
        return {**row, 'segments': segments, 'length': np.int32(place)}  # pyright: ignore[reportReturnType]

    def padding(self) -> float:
        """Returns the share of all places that no token fills."""
        return 1 - self.pieces[:, 1].sum() / max(len(self.rows) * self.length, 1)
