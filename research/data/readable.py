"""Values of any kind as a person reads them: cut texts, summed-up arrays, pictures in characters."""

from collections.abc import Mapping
from typing import Any

import numpy as np

SHADES = ' .:-=+*#%@'  # of a picture in text, dark to light
SHORT = 12  # numbers of a list that is shown as it is, such as the sides of a box


def readable(value: Any, limit: int = 400) -> Any:
    """Returns a value as JSON for people: text is cut, a picture drawn in characters, an array summed up."""
    if isinstance(value, bytes):
        value = value.decode('utf-8', 'replace')
    if isinstance(value, str):
        return value if len(value) <= limit else f'{value[:limit]} ... ({len(value):,} characters)'
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(name): readable(each, limit) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        if not all(isinstance(item, (int, float)) for item in value):
            return [readable(item, limit) for item in value[:8]]
        if len(value) <= SHORT:
            return list(value)
    array = np.asarray(value)
    if array.ndim == 0:
        return array.item()
    if array.ndim == 2 and array.dtype == np.uint8 or array.ndim == 3 and array.shape[-1] in (1, 3, 4):
        return f'{array_text(array)}\n{picture_text(array)}'
    return array_text(array)


def array_text(array: np.ndarray, count: int = 12) -> str:
    """Returns type, shape and first values (or the range, for many axes) of an array in one line."""
    shape = f'{array.dtype} [{", ".join(map(str, array.shape))}]' if array.ndim else str(array.dtype)
    if not array.size or array.dtype.kind not in 'biuf':
        return shape
    if array.ndim < 2:
        values = ' '.join(
            f'{value:.4g}' if array.dtype.kind == 'f' else str(value) for value in array.flat[:count]
        )
        return f'{shape}: {values}{" ..." if array.size > count else ""}'
    return f'{shape}: {array.min():.4g} to {array.max():.4g}, mean {array.mean():.4g}'


def picture_text(array: np.ndarray, width: int = 32) -> str:
    """Returns a picture [height, width] or [height, width, channels] in characters, two for each pixel."""
    grey = np.asarray(array, np.float32)
    grey = grey if grey.ndim == 2 else grey[..., :3].mean(-1)
    stride = -(-max(grey.shape) // width)
    grey = grey[::stride, ::stride]
    low, high = float(grey.min()), float(grey.max())
    levels = ((grey - low) / (high - low or 1.0) * (len(SHADES) - 1)).round().astype(int)
    return '\n'.join(''.join(SHADES[level] * 2 for level in row).rstrip() for row in levels)
