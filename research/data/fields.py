"""Validation of numbers in requests."""

from typing import Any

import numpy as np

from research.errors import UserError


def whole_number(value: Any, name: str, low: int, high: int) -> np.int32:
    """Validates an integer of a request and returns it as int32; raises UserError outside low to high."""
    try:
        number = int(value)
        fits = number == float(value) and low <= number <= high
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise UserError(f'{name} must be a whole number from {low} to {high}, got {value!r}')
    return np.int32(number)


def share(value: Any, name: str) -> np.float32:
    """Validates a fraction of a request from 0 to 1 and returns it as float32; raises UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise UserError(f'{name} must be a number from 0 to 1, got {value!r}')
    return np.float32(value)
