"""The JSON parser for all files from outside: rows of data, requests, and configs of published models.

Python's `json` accepts values that fail later and elsewhere: nesting that exhausts the stack, numbers beyond the range
of floats, lone surrogates, and duplicate keys. This parser rejects them immediately and names the location.
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

MAX_DEPTH = 100  # levels of nesting
MAX_FLOAT_CHARACTERS = 400  # exact decimal forms of floats usually need 17 digits, 767 at most
MAX_INTEGER_DIGITS = 100
MAX_FILE_BYTES = 1 << 28
STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
SURROGATE = re.compile(r'\\u[dD][89a-fA-F]')


class NotJson(ValueError):
    """A text that is not usable as JSON; the message is the reason."""


def parse_json(text: str, where: str, error: Callable[[str], Exception] = Broken) -> Any:
    """Parses a JSON text.

    Accepts NaN, as Python and pandas write it. Rejects infinity, numbers beyond the range of floats, duplicate keys,
    lone surrogates and deep nesting. Null characters are allowed; only paths must not contain them.

    Args:
      text: the text; a byte order mark before it is dropped.
      where: the file and line, for messages.
      error: the type of error to raise.

    Raises:
      Broken: (or `error`) with the position of the error.
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
        raise error(f'{where}: not usable as JSON (nested more than {MAX_DEPTH} levels deep)') from None
    return value


def parse_object(text: str, where: str, error: Callable[[str], Exception] = Broken) -> dict[str, Any]:
    """Parses a JSON object; raises as `parse_json`, and for any other value."""
    value = parse_json(text, where, error)
    if not isinstance(value, dict):
        raise error(f'{where}: expected an object such as {{"text": "..."}}, got {short(value)}')
    return value


def read_json(file: Path, error: Callable[[str], Exception] = UserError) -> dict[str, Any]:
    """Reads the object in a JSON file from outside.

    Raises:
      UserError: if it is missing, not a regular file, larger than 256 MiB, not UTF-8, or not a JSON object.
    """
    try:
        if not file.is_file():
            reason = 'is not a regular file' if os.path.lexists(file) else 'does not exist'
            raise error(f'{file} {reason}')
        if file.stat().st_size > MAX_FILE_BYTES:
            raise error(f'{file} has {file.stat().st_size:,} bytes; at most {MAX_FILE_BYTES:,} are read as JSON')
        text = file.read_bytes().decode('utf-8-sig')
    except OSError as problem:
        raise error(f'{file}: cannot be read ({problem.strerror})') from None
    except UnicodeDecodeError as problem:
        raise error(f'{file}: not UTF-8 text (byte {problem.start + 1})') from None
    return parse_object(text, str(file), error)


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + '...'


def check_depth(text: str) -> None:
    """Raises `NotJson` for nesting beyond the limit; parses only texts with enough brackets for it."""
    if text.count('[') + text.count('{') <= MAX_DEPTH:
        return
    depth = 0
    for character in re.findall(r'[\[\]{}]', STRING.sub('', text)):
        depth += 1 if character in '[{' else -1
        if depth > MAX_DEPTH:
            raise NotJson(f'nested more than {MAX_DEPTH} levels deep')


def check_characters(text: str, value: Any) -> None:
    """Raises `NotJson` for lone surrogates in a string or key."""
    if SURROGATE.search(text) or not text.isascii():
        for string in strings(value):
            try:
                string.encode()
            except UnicodeEncodeError as problem:
                raise NotJson(f'half of a character at position {problem.start + 1} of a string') from None


def strings(value: Any) -> list[str]:
    """All strings and keys in a value."""
    texts, pending = [], [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, dict):
            texts += item
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return texts


def whole(digits: str) -> int:
    """Parses an integer of at most 100 digits."""
    if len(digits) > MAX_INTEGER_DIGITS:
        raise NotJson(f'a number of {len(digits):,} digits, at most {MAX_INTEGER_DIGITS}')
    return int(digits)


def real(digits: str) -> float:
    """Parses a finite float."""
    if len(digits) > MAX_FLOAT_CHARACTERS:
        raise NotJson(f'a number of {len(digits):,} characters, at most {MAX_FLOAT_CHARACTERS}')
    value = float(digits)
    if not math.isfinite(value):
        raise NotJson(f'the number {digits[:20]} is too large')
    return value


def constant(name: str) -> float:
    """Accepts NaN; rejects infinities."""
    if name != 'NaN':
        raise NotJson(f'{name} is not a number')
    return math.nan


def unique_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds an object; rejects duplicate keys, of which Python would silently keep the last."""
    value = dict(items)
    if len(value) < len(items):
        counts = collections.Counter(name for name, _ in items)
        raise NotJson(f'the key {counts.most_common(1)[0][0][:40]!r} appears more than once')
    return value
