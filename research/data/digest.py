"""A digest of the rows of a split: equal rows give equal digests in every process and on every machine."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.errors import UserError

MAX_ROWS, MAX_BYTES = 10_000, 256 << 20  # a larger split is sampled at random up to these limits


def digest_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Digests a split as {'rows': total, 'read': rows hashed, 'sha256': of those rows}.

    Splits up to `MAX_ROWS` and `MAX_BYTES` are read completely. Larger splits are sampled with a fixed seed, which
    detects a different data set under the same name and added rows, but not every change of a single row.
    """
    count = len(rows)
    words = np.random.Philox(key=[0, count]).random_raw(min(count, MAX_ROWS))
    order = np.argsort(words, kind='stable') if count <= MAX_ROWS else words % np.uint64(count)
    sha256, size, read = hashlib.sha256(str(count).encode()), 0, 0
    for index in order.tolist():
        try:
            parts = list(pieces(rows[index]))
        except UserError:  # a broken row, which training reports when it reads it
            parts = [b'broken']
        for part in parts:
            sha256.update(b'%d:' % len(part))
            sha256.update(part)
            size += len(part)
        read += 1
        if size > MAX_BYTES:
            break
    return {'rows': count, 'read': read, 'sha256': sha256.hexdigest()}


def pieces(value: Any):
    """Yields the bytes of a value, with nested values in a fixed order."""
    if isinstance(value, Mapping):
        for name in sorted(value, key=str):
            yield str(name).encode()
            yield from pieces(value[name])
    elif isinstance(value, (bytes, bytearray)):
        yield bytes(value)
    elif isinstance(value, str):
        yield value.encode('utf-8', 'surrogatepass')
    elif isinstance(value, (list, tuple)):
        yield b'list %d' % len(value)
        for item in value:
            yield from pieces(item)
    elif isinstance(value, (bool, int, float)) or value is None:
        yield repr(value).encode()
    elif isinstance(value, os.PathLike):
        yield os.fsencode(value)
    elif isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        yield f'{value.dtype} {value.shape}'.encode()
        yield np.ascontiguousarray(value).tobytes()
    else:
        yield type(value).__name__.encode()
