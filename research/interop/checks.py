"""Checks of folders that others made: types and sizes in their JSON files, before anything is built from them."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from research.errors import UserError, describe, fits
from research.nn.transformer_settings import TransformerSettings

LARGEST = 2**31 - 1  # of any whole number
POSITIONS = 2**21  # that a model may read; tables of positions are computed for all of them
SIDE = 8192  # pixels along a picture


@contextlib.contextmanager
def damaged(file: Path) -> Iterator[None]:
    """Turns what goes wrong while a value of a JSON file is used into a message that names the file."""
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f'{file} has no {error.args[0]!r}') from None
    except (TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError, MemoryError) as error:
        raise UserError(f'{file} is damaged: a value has another type or size than is meant ({error})') from None


def check_settings(settings: Mapping[str, Any], tensors: int, file: Path) -> TransformerSettings:
    """Returns the settings that a config.json gives, checked against the types and by what its folder can hold.

    Args:
      settings: fields of `TransformerSettings`.
      tensors: how many there are: no model has more layers.
      file: for messages.

    Raises:
      UserError: for a value of a wrong type, one that is not finite, or a size that cannot be.
    """
    kinds = {field.name: field.type for field in dataclasses.fields(TransformerSettings)}
    for name, value in settings.items():
        if not fits(value, kinds[name]):
            raise UserError(f'{file}: the value for {name} must be {describe(kinds[name])}, got {value!r:.60}')
        numbers = value if isinstance(value, (list, tuple)) else (value,)
        for number in numbers:
            if isinstance(number, (int, float)) and not (math.isfinite(number) and abs(number) <= LARGEST):
                raise UserError(f'{file}: the value for {name} is {number:.6g}, which no model has')
    for name in ('layers', 'decoder_layers'):
        if settings.get(name, 0) > tensors:
            raise UserError(f'{file} asks for {settings[name]:,} {name}, and the folder holds {tensors:,} tensors')
    for name in ('length', 'relative_distance', 'relative_buckets'):
        if settings.get(name, 0) > POSITIONS:
            raise UserError(f'{file} asks for {settings[name]:,} positions ({name}); at most {POSITIONS:,} are read')
    with damaged(file):
        return TransformerSettings(**settings)


def check_picture(image: Mapping[str, Any], file: Path) -> None:
    """Raises a `UserError` for sizes of a picture that are no whole numbers above zero, or too large."""
    for name in ('size', 'patch', 'channels'):
        value = image[name]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= SIDE:
            wanted = f'a whole number from 1 to {SIDE}'
            raise UserError(f'{file}: the {name} of pictures must be {wanted}, got {value!r:.60}')
    if image['size'] % image['patch']:
        raise UserError(f'{file}: patches of {image["patch"]} pixels do not divide pictures of {image["size"]}')


def check_moments(values: Any, channels: int, file: Path) -> list[float]:
    """Returns the means or deviations of a preprocessor_config.json, one for each channel.

    Raises:
      UserError: where they are no finite numbers, or not as many as channels.
    """
    values = [values] * channels if isinstance(values, (int, float)) else values
    right = isinstance(values, list) and len(values) == channels and all(fits(each, float) for each in values)
    if not right or not all(map(math.isfinite, values)):
        raise UserError(f'{file}: expected {channels} numbers, one a channel, got {values!r:.60}')
    return values


def square(value: Any, name: str) -> Any:
    """Returns the side of a square that a config.json writes as 224, [224, 224] or {'height': 224, 'width': 224}.

    Raises:
      UserError: for a rectangle, which is not supported.
    """
    sides = value
    if isinstance(value, Mapping):
        sides = [value.get('height'), value.get('width')]
    if isinstance(sides, (list, tuple)):
        if len(sides) != 2 or sides[0] != sides[1]:
            raise UserError(f'config.json: {name}={value!r:.60} is no square, and only squares are supported')
        return sides[0]
    return sides
