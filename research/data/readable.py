"""Readable forms of values: truncated texts, array summaries, pictures in characters."""

from collections.abc import Mapping
from typing import Any

import numpy as np

SHADES = ' .:-=+*#%@'  # dark to light
MAX_LISTED_NUMBERS = 12  # longer lists are summarized


def readable(value: Any, limit: int = 400) -> Any:
    """A JSON-compatible, readable form of a value: truncates text, draws pictures, summarizes arrays."""
    if isinstance(value, bytes):
        value = value.decode('utf-8', 'replace')
    if isinstance(value, str):
        return value if len(value) <= limit else f'{value[:limit]} ... ({len(value):,} characters)'
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(name): readable(item, limit) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        if not all(isinstance(item, (int, float)) for item in value):
            return [readable(item, limit) for item in value[:8]]
        if len(value) <= MAX_LISTED_NUMBERS:
            return list(value)
    array = np.asarray(value)
    if array.ndim == 0:
        return array.item()
    if array.ndim == 2 and array.dtype == np.uint8 or array.ndim == 3 and array.shape[-1] in (1, 3, 4):
        return f'{array_text(array)}\n{picture_text(array)}'
    return array_text(array)


def array_text(array: np.ndarray, count: int = 12) -> str:
    """Type, shape and first values of an array in one line; the range if it has several axes."""
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
    """Draws a picture [height, width] or [height, width, channels], two characters per pixel."""
    grey = np.asarray(array, np.float32)
    grey = grey if grey.ndim == 2 else grey[..., :3].mean(-1)
    stride = -(-max(grey.shape) // width)
    grey = grey[::stride, ::stride]
    low, high = float(grey.min()), float(grey.max())
    levels = ((grey - low) / (high - low or 1.0) * (len(SHADES) - 1)).round().astype(int)
    return '\n'.join(''.join(SHADES[level] * 2 for level in row).rstrip() for row in levels)
