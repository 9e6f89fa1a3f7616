"""Limits of the values in a request, checked before anything large is decoded."""

import io
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from research.core.task import Input
from research.data.formats import PILLOW
from research.data.readers.fields import normal
from research.serve.errors import RequestError

MAX_PIXELS = 16 * 10**6  # of a picture in a request; a phone takes 12 million
LARGE_PIXELS = 4 * 10**6  # more are decoded one request after another
MAX_NUMBERS = 4 * 10**6  # in a list of numbers
MAX_DEPTH, MAX_VALUES = 32, 100_000  # of JSON
MAX_DIGITS = 40  # of a number in JSON
MAX_TEXT = 200_000  # characters: the tokenizer takes less than a second
STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def check_fields(inputs: Mapping[str, Input], raw: Mapping[str, Any]) -> int:
    """Checks the values of a request against the limits of its fields; returns the pixels of its pictures.

    Raises:
      RequestError: names the field and the limit.
    """
    fields = ((name, value, inputs.get(normal(name))) for name, value in raw.items())
    return sum(check_value(name, value, field) for name, value, field in fields if field is not None)


def check_value(name: str, value: Any, field: Input) -> int:
    """Checks one field, the items of a list one by one; returns the pixels of a picture."""
    where = f'inputs.{name}'
    if field.kind in ('image', 'audio') and isinstance(value, str):
        raise RequestError(400, f'{name}: expected the content of a file, base64 in JSON, not a text or a path', where)
    if field.kind == 'image' and isinstance(value, bytes):
        return check_picture(name, value)
    if field.kind in ('text', 'sequence') and isinstance(value, str):
        check_text(name, value, field)
    elif isinstance(value, np.ndarray):
        if value.size > MAX_NUMBERS:
            raise RequestError(413, f'{name}: {value.size:,} numbers; at most {MAX_NUMBERS:,} are read', where)
    elif field.kind == 'list' and isinstance(value, (list, tuple)):
        for item in value[: field.limit or None]:
            if isinstance(item, Mapping):
                for key, part in item.items():
                    if key in field.items:
                        check_value(f'{name}.{key}', part, field.items[key])
    return 0


def check_text(name: str, text: str, field: Input) -> None:
    """Checks the length of a text before it is tokenized."""
    limit = min(field.limit or MAX_TEXT, MAX_TEXT)
    if len(text) > limit:
        reason = f'{name}: the text has {len(text):,} characters; at most {limit:,} are read'
        raise RequestError(413, reason, f'inputs.{name}')


def check_picture(name: str, content: bytes) -> int:
    """Checks the size that the header of a picture states, before its pixels are decoded; returns it in pixels."""
    where = f'inputs.{name}'
    try:
        with Image.open(io.BytesIO(content), formats=PILLOW) as picture:
            pixels = picture.width * picture.height
            stated = f'{picture.width} x {picture.height}'
    except Image.DecompressionBombError:
        raise RequestError(413, f'{name}: more than {MAX_PIXELS:,} pixels, the most that are read', where) from None
    except Exception:  # Pillow's readers raise all kinds of errors
        reason = f'{name}: not a picture that can be read (PNG, JPEG, WebP, GIF, BMP, TIFF, PPM)'
        raise RequestError(400, reason, where) from None
    if pixels > MAX_PIXELS:
        raise RequestError(413, f'{name}: {stated} pixels; at most {MAX_PIXELS:,} pixels are read', where)
    return pixels


def parse_json(body: bytes) -> Any:
    """Parses the JSON of a request.

    Rejects what would fail later and elsewhere: deep nesting, too many values, NaN and infinity, numbers beyond the
    range of floats, lone surrogates, and duplicate keys.

    Raises:
      RequestError: 400, or 413 for too many values.
    """
    check_structure(body)
    try:
        text = body.decode('utf-8')
        value = json.loads(text, parse_int=whole, parse_float=real, parse_constant=not_finite, object_pairs_hook=unique)
        json.dumps(value, ensure_ascii=False).encode() if b'\\u' in body else None  # lone surrogates fail here
    except UnicodeEncodeError:
        raise RequestError(400, 'the JSON contains half of a character (a lone surrogate)') from None
    except UnicodeDecodeError as error:
        raise RequestError(400, f'the body is not UTF-8 text (byte {error.start + 1})') from None
    except json.JSONDecodeError as error:
        raise RequestError(400, f'the body is not JSON: {error.msg} at character {error.pos + 1}') from None
    except RecursionError:
        raise RequestError(400, f'the JSON is nested more than {MAX_DEPTH} levels deep') from None
    return value


def check_structure(body: bytes) -> None:
    """Checks the depth and the number of values of a JSON text without parsing it."""
    if sum(map(body.count, (b'[', b'{'))) <= MAX_DEPTH and body.count(b',') < MAX_VALUES:
        return
    outside = STRINGS.sub(b'', body)
    if outside.count(b',') + outside.count(b'[') + outside.count(b'{') > MAX_VALUES:
        raise RequestError(
            413, f'the JSON has more than {MAX_VALUES:,} values; send pictures and sounds as base64, and large arrays '
            'by the binary protocol (/v2)'
        )  # fmt: skip
    depth = 0
    for bracket in re.findall(rb'[\[\]{}]', outside):
        depth += 1 if bracket in b'[{' else -1
        if depth > MAX_DEPTH:
            raise RequestError(400, f'the JSON is nested more than {MAX_DEPTH} levels deep')


def whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise RequestError(400, f'the JSON has a number of {len(digits):,} digits; at most {MAX_DIGITS} are read')
    return int(digits)


def real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise RequestError(400, f'the number {digits[:20]} is too large')
    return value


def not_finite(name: str) -> float:
    raise RequestError(400, f'{name} is not a number of JSON')


def unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON without duplicate keys, of which Python would keep the last."""
    value = dict(items)
    if len(value) < len(items):
        raise RequestError(400, 'a key appears more than once in an object of the JSON')
    return value
