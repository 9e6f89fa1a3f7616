"""The IDX format of MNIST and its successors: one array of numbers per file.

Format: http://yann.lecun.com/exdb/mnist: two zero bytes, a type, the number of axes, their sizes (big-endian
32-bit), then the values (big-endian).
"""

import functools
import math
from collections.abc import Mapping

import numpy as np

from research.data.readers.archives import Entry, find, read_bytes
from research.data.readers.rows import Row, Rows, row_name
from research.errors import UserError

TYPES = {0x08: '>u1', 0x09: '>i1', 0x0B: '>i2', 0x0C: '>i4', 0x0D: '>f4', 0x0E: '>f8'}


def read_array(entry: Entry) -> np.ndarray:
    """Reads the array of an IDX file.

    Raises:
      UserError: for an invalid header, or a number of values that does not match it.
    """
    data = read_bytes(entry)
    if len(data) < 4 or data[:2] != b'\0\0' or data[2] not in TYPES or not data[3]:
        raise UserError(f'{entry.name}: not an IDX file (it starts with {data[:4].hex(" ") or "nothing"})')
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise UserError(f'{entry.name}: broken IDX file: {len(data):,} bytes, shorter than its {start:,}-byte header')
    shape = tuple(np.frombuffer(data[4:start], '>u4').tolist())
    dtype = np.dtype(TYPES[data[2]])
    needed = start + math.prod(shape) * dtype.itemsize
    if len(data) != needed:
        raise UserError(
            f'{entry.name}: broken IDX file: {len(data):,} bytes, but its header, {list(shape)} of '
            f'{dtype.name}, requires {needed:,}'
        )
    values = np.frombuffer(data, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder('='), copy=False)


def labels_beside(name: str) -> str:
    """The file name of the labels of MNIST-like images, or '' if it does not follow the convention."""
    labels_name = name.replace('images-idx3', 'labels-idx1').replace('images.idx3', 'labels.idx1')
    return labels_name if labels_name != name else ''


def read_idx(parts: Mapping[str, list[Entry]], setting: str) -> Rows:
    """Rows with one field per array; pictures get an axis for their single channel.

    Args:
      parts: {field: its file}. For a single file, its labels are looked up in the same folder.
      setting: 'config.data.train', for messages.

    Raises:
      UserError: if the arrays differ in length, or a field has several files.
    """
    for field, entries in parts.items():
        if len(entries) > 1:
            names = ', '.join(entry.name for entry in entries[:3]) + (', ...' if len(entries) > 3 else '')
            raise UserError(f'{setting}: {len(entries)} IDX files for {field!r} ({names}), but one is read: name it')
    files = {field: entries[0] for field, entries in parts.items()}
    beside = labels_beside(next(iter(files.values())).name)
    if len(files) == 1 and beside:
        files = {'image': next(iter(files.values())), 'label': find((beside,), setting)[0]}
    arrays = {field: read_array(entry) for field, entry in files.items()}
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ' and '.join(f'{files[field].name} has {len(array):,}' for field, array in arrays.items())
        raise UserError(f'every picture needs one label, but {lengths}')
    if 'image' in arrays and arrays['image'].ndim == 3:
        arrays['image'] = arrays['image'][..., None]
    first = next(iter(files.values()))
    return array_rows(arrays, first.name)


def array_rows(arrays: Mapping[str, np.ndarray], name: str) -> Rows:
    """The rows of arrays with one leading axis; scalars become Python numbers."""
    count = len(next(iter(arrays.values())))
    label = functools.partial(array_value, arrays['label']) if 'label' in arrays else None
    return Rows(count, functools.partial(array_row, arrays), functools.partial(row_name, name), None, label)


def array_value(array: np.ndarray, number: int):
    value = array[number]
    return value.item() if np.ndim(value) == 0 and isinstance(value, np.generic) else value


def array_row(arrays: Mapping[str, np.ndarray], number: int) -> Row:
    return {name: array_value(array, number) for name, array in arrays.items()}
