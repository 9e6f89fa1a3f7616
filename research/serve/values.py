"""JSON to requests and answers to JSON: pictures and sounds travel as base64."""

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.core.task import Input
from research.data.outputs import Picture, Sound, png, replaced, wav
from research.errors import nearest
from research.serve.errors import RequestError

FILES = ('image', 'audio')  # kinds of input that are the content of a file


def read_inputs(inputs: Mapping[str, Input], values: Mapping[str, Any], where: str = 'inputs') -> dict[str, Any]:
    """The fields of a request as `Hosted.answer` takes them, from JSON.

    Raises:
      RequestError: names the invalid field.
    """
    for name in values:
        if name not in inputs:
            short = name[:80]  # a request may have names of any length
            raise RequestError(400, f'{where}.{short} is unknown; {nearest(short, inputs)}', f'{where}.{short}')
    return {
        name: read_value(inputs[name], value, f'{where}.{name}') for name, value in values.items() if value is not None
    }


def read_value(field: Input, value: Any, where: str) -> Any:
    """One field of a request from JSON."""
    if field.kind in FILES:
        return read_pixels(value, where) if isinstance(value, list) else read_base64(value, where)
    if field.kind in ('text', 'sequence') and not isinstance(value, str):
        raise RequestError(400, f'{where} must be a text', where)
    if field.kind == 'array':
        return read_array(value, where)
    if field.kind == 'number' and (isinstance(value, bool) or not isinstance(value, (int, float, str))):
        raise RequestError(400, f'{where} must be a number', where)
    if field.kind == 'list':
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise RequestError(400, f'{where} must be a list of objects', where)
        return [read_inputs(field.items, item, f'{where}[{number}]') for number, item in enumerate(value)]
    return value


def read_base64(value: Any, where: str) -> bytes:
    """The content of a file: base64, a data URL, or an object {'base64': ...} or, of TF Serving, {'b64': ...}."""
    text = value.get('base64', value.get('b64')) if isinstance(value, Mapping) else value
    if not isinstance(text, str):
        raise RequestError(400, f'{where} must be a file as base64, or an object {{"base64": "..."}}', where)
    if text.startswith('data:'):
        head, comma, text = text.partition(',')
        if not comma or not head.endswith(';base64'):
            raise RequestError(400, f'{where}: a data URL must be "data:TYPE;base64,..."', where)
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(
            400, f'{where} is not base64: give the content of the file, not its name (standard alphabet, padded)', where
        ) from None
    if not content:
        raise RequestError(400, f'{where} is empty', where)
    return content


def read_pixels(value: Any, where: str) -> np.ndarray:
    """A picture or samples as numbers in lists: whole numbers stay whole, because pixels of 0 to 255 mean 0 to 1."""
    array = read_array(value, where)
    exact = np.asarray(value)
    return exact if exact.dtype.kind == 'i' else array


def read_array(value: Any, where: str) -> np.ndarray:
    """An array of finite numbers from nested lists."""
    try:
        with np.errstate(over='ignore'):
            array = np.asarray(value, np.float32) if isinstance(value, list) else None
    except (ValueError, TypeError, OverflowError):
        array = None
    if array is None or not np.isfinite(array).all():
        raise RequestError(400, f'{where} must be numbers in lists of equal lengths', where)
    return array


def to_json(answer: Any) -> Any:
    """An answer as JSON values; numbers that JSON lacks (NaN, infinity) become null."""
    return plain(replaced(answer, encoded, ''))


def encoded(kind: str, value: Any, where: str) -> dict[str, Any]:
    """A picture or a sound of an answer as an object with its file in base64."""
    del where
    if isinstance(value, Picture):
        pixels = np.asarray(value.pixels)
        file = {'type': 'image', 'media_type': 'image/png', 'base64': text_of(png(pixels))}
        return {**file, 'width': int(pixels.shape[1]), 'height': int(pixels.shape[0])}
    assert isinstance(value, Sound), kind
    seconds = round(len(value.samples) / value.rate, 3)
    return {'type': 'audio', 'media_type': 'audio/wav', 'base64': text_of(wav(value)), 'seconds': seconds}


def text_of(content: bytes) -> str:
    return base64.b64encode(content).decode('ascii')


def plain(value: Any) -> Any:
    """NumPy values as Python's, and numbers that JSON lacks as None."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.decode('utf-8', 'replace') if isinstance(value, bytes) else value


def input_json(field: Input, value: Any) -> Any:
    """A value of a request as JSON: the reverse of `read_value`."""
    if field.kind in FILES:
        content = value if isinstance(value, bytes) else file_of(field, value)
        if content is None:
            return None
        return {'base64': text_of(content), 'media_type': media_type(content)}
    if field.kind == 'list' and isinstance(value, (list, tuple)):
        return [{name: input_json(field.items[name], part) for name, part in item.items()} for item in value]
    return plain(value)


def file_of(field: Input, value: Any) -> bytes | None:
    """A picture array as a PNG file; None for samples, whose rate is unknown."""
    array = np.asarray(value)
    if field.kind == 'image' and array.ndim in (2, 3):
        return png(array)
    return None


def media_type(content: bytes) -> str:
    """The media type of a picture or a sound by its first bytes."""
    starts = {b'\x89PNG': 'image/png', b'\xff\xd8\xff': 'image/jpeg', b'GIF8': 'image/gif', b'fLaC': 'audio/flac'}
    if content[:4] == b'RIFF':
        return 'audio/wav' if content[8:12] == b'WAVE' else 'image/webp'
    return next((kind for start, kind in starts.items() if content.startswith(start)), 'application/octet-stream')


def sound_file(samples: Any, rate: int) -> bytes:
    """Samples in [-1, 1] as a WAV file."""
    return wav(Sound(np.asarray(samples, np.float32), rate))
