"""Packs documents into rows of one length: several short ones per row, a long one in pieces.

Rows have the piece of each token as a segment, so attention does not cross document boundaries.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer


def cut(stream: Integer[np.ndarray, 'tokens'], end: int, length: int) -> Integer[np.ndarray, 'pieces 2']:
    """(start, size) of pieces with at most `length` input tokens and as many targets, shifted by one.

    The stream begins with `end`, and every document is followed by one. A piece reads stream[start : start + size] and
    predicts stream[start + 1 : start + size + 1]. The first piece of a document reads the end of the previous one, so
    every token is predicted once. No piece has tokens of two documents.
    """
    ends = np.flatnonzero(np.asarray(stream) == end)
    pieces = [
        (start, min(length, stop - start))
        for first, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        for start in range(first, stop, length)
    ]
    return np.array(pieces, np.int64).reshape(-1, 2)


def pack(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Packs pieces into rows whose sizes sum to at most `length`: best fit, largest first.

    Rows are sorted by their first piece, and the pieces of a row by their number.
    """
    free: list[list[int]] = [[] for _ in range(length + 1)]  # rows by free space
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
    """Rows {'tokens', 'targets', 'segments'} [length] and 'length', the number of tokens without padding.

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
        segments, position = np.full(self.length, -1, np.int32), 0
        for number, piece in enumerate(self.rows[index]):
            start, size = self.pieces[piece].tolist()
            row['tokens'][position : position + size] = self.stream[start : start + size]
            row['targets'][position : position + size] = self.stream[start + 1 : start + size + 1]
            segments[position : position + size] = number
            position += size
        return {**row, 'segments': segments, 'length': np.int32(position)}  # pyright: ignore[reportReturnType]

    def padding(self) -> float:
        """Share of positions without a token."""
        return 1 - self.pieces[:, 1].sum() / max(len(self.rows) * self.length, 1)
