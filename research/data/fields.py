"""Numbers in requests, checked."""

from typing import Any

import numpy as np

from research.errors import UserError


def whole_number(value: Any, name: str, low: int, high: int) -> np.int32:
    """Returns a request's number as int32; a `UserError` where it is not a whole one in range."""
    try:
        number = int(value)
        fits = number == float(value) and low <= number <= high
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise UserError(f'{name} must be a whole number from {low} to {high}, got {value!r}')
    return np.int32(number)


def share(value: Any, name: str) -> np.float32:
    """Returns a request's number from 0 to 1 as float32; a `UserError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise UserError(f'{name} must be a number from 0 to 1, got {value!r}')
    return np.float32(value)
