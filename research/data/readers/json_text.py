"""The one JSON parser for files that others wrote: rows of data, requests, and config files of published models.

Python's `json` accepts values that fail later and far away: nesting that exhausts the stack, numbers that no float
holds, halves of characters, null characters that end a file name, and keys that appear twice. Here each is refused
at once, with its place.
"""

import collections
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from research.data.readers.rows import Broken
from research.errors import UserError

DEPTH = 100  # levels of nesting
DIGITS = 400  # characters of a number; the shortest exact form of a float needs 767 at the very most, 17 as a rule
WHOLE = 100  # digits of a whole number
FILE_LIMIT = 1 << 28  # bytes of a JSON file that is read whole
STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
HALF = re.compile(r'\\u[dD][89a-fA-F]')


class NotJson(ValueError):
    """Why a text is not JSON that can be used."""


def parse_json(text: str, where: str, error: Callable[[str], Exception] = Broken) -> Any:
    """Returns the value of a JSON text.

    NaN stands for itself, as Python and pandas write it. Infinity, numbers that no float holds, duplicate keys, halves
    of characters and deep nesting are refused. A null character is one like others: only a path may not hold it.

    Args:
      text: the text; a byte order mark before it is dropped.
      where: the file and line, for messages.
      error: the type of error to raise.

    Raises:
      Broken: (or `error`) says where the text is not JSON.
    """
    text = text.removeprefix('\ufeff')
    try:
        check_depth(text)
        value = json.loads(
            text, parse_int=whole, parse_float=real, parse_constant=constant, object_pairs_hook=unique_keys
        )
        check_characters(text, value)
    except json.JSONDecodeError as problem:
        raise error(f'{where}: not JSON ({problem.msg} at character {problem.pos + 1})') from None
    except NotJson as problem:
        raise error(f'{where}: not usable as JSON ({problem})') from None
    except RecursionError:
        raise error(f'{where}: not usable as JSON (nested more than {DEPTH} levels deep)') from None
    return value


def parse_object(text: str, where: str, error: Callable[[str], Exception] = Broken) -> dict[str, Any]:
    """Returns a JSON object; raises as `parse_json` does, and for any other value."""
    value = parse_json(text, where, error)
    if not isinstance(value, dict):
        raise error(f'{where}: expected an object such as {{"text": "..."}}, got {short(value)}')
    return value


def read_json(file: Path, error: Callable[[str], Exception] = UserError) -> dict[str, Any]:
    """Returns the object in a JSON file of somebody else's.

    Raises:
      UserError: where it is missing, no regular file, larger than 256 MiB, not UTF-8, or not a JSON object.
    """
    try:
        if not file.is_file():
            reason = 'is not a regular file' if os.path.lexists(file) else 'does not exist'
            raise error(f'{file} {reason}')
        if file.stat().st_size > FILE_LIMIT:
            raise error(f'{file} has {file.stat().st_size:,} bytes; at most {FILE_LIMIT:,} are read as JSON')
        text = file.read_bytes().decode('utf-8-sig')
    except OSError as problem:
        raise error(f'{file}: cannot be read ({problem.strerror})') from None
    except UnicodeDecodeError as problem:
        raise error(f'{file}: not UTF-8 text (byte {problem.start + 1})') from None
    return parse_object(text, str(file), error)


def short(value: Any) -> str:
    """Returns the beginning of a value as text."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + '...'


def check_depth(text: str) -> None:
    """Raises `NotJson` for nesting beyond the limit; looks closer only where there are enough brackets for it."""
    if text.count('[') + text.count('{') <= DEPTH:
        return
    depth = 0
    for character in re.findall(r'[\[\]{}]', STRING.sub('', text)):
        depth += 1 if character in '[{' else -1
        if depth > DEPTH:
            raise NotJson(f'nested more than {DEPTH} levels deep')


def check_characters(text: str, value: Any) -> None:
    """Raises `NotJson` for halves of characters in any string or key."""
    if HALF.search(text) or not text.isascii():
        for each in strings(value):
            try:
                each.encode()
            except UnicodeEncodeError as problem:
                raise NotJson(f'half of a character at position {problem.start + 1} of a string') from None


def strings(value: Any) -> list[str]:
    """Returns all strings and keys in a value."""
    found, left = [], [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            found += item
            left += item.values()
        elif isinstance(item, list):
            left += item
    return found


def whole(digits: str) -> int:
    """Returns a whole number of at most 100 digits."""
    if len(digits) > WHOLE:
        raise NotJson(f'a number of {len(digits):,} digits, at most {WHOLE}')
    return int(digits)


def real(digits: str) -> float:
    """Returns a finite float."""
    if len(digits) > DIGITS:
        raise NotJson(f'a number of {len(digits):,} characters, at most {DIGITS}')
    value = float(digits)
    if not math.isfinite(value):
        raise NotJson(f'the number {digits[:20]} is too large')
    return value


def constant(name: str) -> float:
    """Returns NaN; refuses infinities."""
    if name != 'NaN':
        raise NotJson(f'{name} is not a number')
    return math.nan


def unique_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object; refuses a key that appears twice, of which Python would silently keep the last."""
    value = dict(items)
    if len(value) < len(items):
        counts = collections.Counter(name for name, _ in items)
        raise NotJson(f'the key {counts.most_common(1)[0][0][:40]!r} appears more than once')
    return value
