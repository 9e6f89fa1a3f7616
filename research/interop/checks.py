"""Validates types and sizes in the JSON files of model folders before anything is built from them."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from research.errors import UserError, describe, fits
from research.nn.transformer_settings import TransformerSettings

MAX_NUMBER = 2**31 - 1
MAX_POSITIONS = 2**21  # position tables are computed for all of them
MAX_SIDE = 8192  # pixels


@contextlib.contextmanager
def damaged(file: Path) -> Iterator[None]:
    """Converts errors while using a value of a JSON file into a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f'{file} has no {error.args[0]!r}') from None
    except (TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError, MemoryError) as error:
        raise UserError(f'{file} is damaged: a value has an unexpected type or size ({error})') from None


def check_settings(settings: Mapping[str, Any], tensors: int, file: Path) -> TransformerSettings:
    """Validates the settings from a config.json by type and by what its folder contains.

    Args:
      settings: fields of `TransformerSettings`.
      tensors: number of tensors, an upper bound of the layers.
      file: for messages.

    Raises:
      UserError: for a wrong type, a value that is not finite, or an impossible size.
    """
    kinds = {field.name: field.type for field in dataclasses.fields(TransformerSettings)}
    for name, value in settings.items():
        if not fits(value, kinds[name]):
            raise UserError(f'{file}: the value for {name} must be {describe(kinds[name])}, got {value!r:.60}')
        numbers = value if isinstance(value, (list, tuple)) else (value,)
        for number in numbers:
            if isinstance(number, (int, float)) and not (math.isfinite(number) and abs(number) <= MAX_NUMBER):
                raise UserError(f'{file}: the value for {name} is {number:.6g}, which no model has')
    for name in ('layers', 'decoder_layers'):
        if settings.get(name, 0) > tensors:
            raise UserError(f'{file} asks for {settings[name]:,} {name}, and the folder holds {tensors:,} tensors')
    for name in ('length', 'relative_distance', 'relative_buckets'):
        if settings.get(name, 0) > MAX_POSITIONS:
            raise UserError(f'{file} asks for {settings[name]:,} positions ({name}); the limit is {MAX_POSITIONS:,}')
    with damaged(file):
        return TransformerSettings(**settings)


def check_picture(image: Mapping[str, Any], file: Path) -> None:
    """Raises UserError for picture sizes that are not positive integers, or too large."""
    for name in ('size', 'patch', 'channels'):
        value = image[name]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_SIDE:
            wanted = f'a whole number from 1 to {MAX_SIDE}'
            raise UserError(f'{file}: the {name} of pictures must be {wanted}, got {value!r:.60}')
    if image['size'] % image['patch']:
        raise UserError(f'{file}: patches of {image["patch"]} pixels do not divide pictures of {image["size"]}')


def check_moments(values: Any, channels: int, file: Path) -> list[float]:
    """Validates the means or deviations of a preprocessor_config.json, one per channel.

    Raises:
      UserError: unless there is one finite number per channel.
    """
    values = [values] * channels if isinstance(values, (int, float)) else values
    right = isinstance(values, list) and len(values) == channels and all(fits(value, float) for value in values)
    if not right or not all(map(math.isfinite, values)):
        raise UserError(f'{file}: expected {channels} numbers, one a channel, got {values!r:.60}')
    return values


def square(value: Any, name: str) -> Any:
    """The side of a square, written as 224, [224, 224] or {'height': 224, 'width': 224}.

    Raises:
      UserError: for a rectangle, which is not supported.
    """
    sides = value
    if isinstance(value, Mapping):
        sides = [value.get('height'), value.get('width')]
    if isinstance(sides, (list, tuple)):
        if len(sides) != 2 or sides[0] != sides[1]:
            raise UserError(f'config.json: {name}={value!r:.60} is not a square, and only squares are supported')
        return sides[0]
    return sides
