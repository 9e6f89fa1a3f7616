"""How the report shows a JSON value: text, fields, boxes, and the pictures and sounds saved beside it."""

import base64
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from research.report.html import number, words
from research.units import bytes_text

PNG = b'\x89PNG\r\n\x1a\n'
WAV = b'RIFF'
SMALL = 160  # pixels; a picture below this size is enlarged
LARGEST = 4 * 1024**2  # bytes of a picture or sound of an answer; the report names a larger one instead


class Picture(NamedTuple):
    """A PNG inside the page; `enlarged` keeps its pixels square."""

    source: str
    description: str
    width: int
    height: int
    enlarged: bool


class BoxRow(NamedTuple):
    """A box in a picture: its label, score and sides in pixels as text."""

    label: str
    score: str
    sides: Sequence[str]


class Shown(NamedTuple):
    """A value for the template; `kind` names its type.

    'text' and 'code': str. 'fields': [(name, Shown)]. 'lines': [str]. 'items': [Shown]. 'picture': `Picture`.
    'sound': a data URI. 'boxes': [`BoxRow`]. 'note': a sentence in place of a file that is not shown.
    """

    kind: str
    content: Any


def shown(value: Any, folder: epath.Path | None = None) -> Shown:
    """Arranges a JSON value for the page.

    Args:
      value: may contain what `save` and `plain` of `research.data.outputs` make of pictures and sounds.
      folder: where its files are; without one they are named.
    """
    if is_file(value):
        return _file(value['kind'], value['file'], folder)
    if is_boxes(value):
        return Shown('boxes', [_box(box) for box in value])
    if is_described(value):
        rate = f' at {number(value["rate"])} Hz' if 'rate' in value else ''
        return Shown('code', f'{value["kind"]}, {" × ".join(map(number, value["shape"]))}{rate}')
    if isinstance(value, str) and ('\n' in value or len(value) > 40):
        return Shown('text', value)
    if isinstance(value, dict):
        return Shown('fields', [(words(name), shown(item, folder)) for name, item in value.items()])
    if isinstance(value, list) and any(True for _ in media(value)):
        return Shown('items', [shown(item, folder) for item in value])
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return Shown('lines', [inline(item) for item in value])
    return Shown('code', inline(value))


def inline(value: Any) -> str:
    """Writes a JSON value in one line."""
    if isinstance(value, dict):
        return ', '.join(f'{words(name)} {inline(item)}' for name, item in value.items())
    if isinstance(value, list):
        return ', '.join(map(inline, value)) or '(none)'
    return number(value) if isinstance(value, float) else ('(none)' if value in (None, '') else str(value))


def is_file(value: Any) -> bool:
    """Checks whether a value names a saved picture or sound."""
    return (
        isinstance(value, dict) and set(value) == {'kind', 'file'} and value['kind'] in ('picture', 'sound')
        and isinstance(value['file'], str)
    )  # fmt: skip


def is_described(value: Any) -> bool:
    """Checks whether a value describes a picture or sound that was not saved."""
    return (
        isinstance(value, dict) and set(value) in ({'kind', 'shape'}, {'kind', 'shape', 'rate'})
        and value['kind'] in ('picture', 'sound') and isinstance(value['shape'], list)
    )  # fmt: skip


def is_boxes(value: Any) -> bool:
    """Checks whether a value is a list of boxes with label and score."""
    return isinstance(value, list) and bool(value) and all(
        isinstance(box, dict) and set(box) == {'box', 'label', 'score'} and isinstance(box['box'], list)
        and len(box['box']) == 4 for box in value
    )  # fmt: skip


def media(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yields the pictures, sounds and boxes inside a value."""
    if is_file(value):
        yield value
    elif is_boxes(value):
        yield from value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from media(item)


def media_bytes(value: Any, folder: epath.Path) -> int:
    """Adds up the sizes of the files that `shown` puts into the page for a value."""
    files = [folder / item['file'] for item in media(value) if is_file(item) and is_plain(item['file'])]
    return sum(size for size in (file.stat().length for file in files if file.exists()) if size <= LARGEST)


def is_plain(name: str) -> bool:
    """Checks whether a file name stays inside its folder."""
    return name not in ('', '.', '..') and pathlib.PurePosixPath(name).name == name and '\\' not in name


def data_uri(data: bytes, kind: str) -> str:
    """Encodes a file for the page; `kind` is its media type."""
    return f'data:{kind};base64,{base64.b64encode(data).decode()}'


def picture(data: bytes, description: str, enlarge: int = 1) -> Picture | None:
    """Makes a picture of the bytes of a PNG, `enlarge` times as large; None for other bytes."""
    # After its signature of 8 bytes, a PNG has the IHDR chunk, with width and height at byte 16.
    width, height = (int.from_bytes(data[at : at + 4], 'big') for at in (16, 20))
    if not data.startswith(PNG) or not width or not height:
        return None
    longest = max(width, height)
    factor = max(1, min(enlarge, SMALL // longest))
    return Picture(data_uri(data, 'image/png'), description, width * factor, height * factor, longest < 600)


def _file(kind: str, name: str, folder: epath.Path | None) -> Shown:
    """Shows a file of `folder`, or a note that explains why not."""
    file = folder / name if folder is not None and is_plain(name) else None
    if file is None or not file.is_file():
        return Shown('note', f'{kind} {name}: there is no such file.')
    size = file.stat().length
    if size > LARGEST:
        return Shown('note', f'{kind} {name} ({bytes_text(size)}) is too large for this page.')
    data = file.read_bytes()
    if kind == 'sound':
        if data.startswith(WAV):
            return Shown('sound', data_uri(data, 'audio/wav'))
    elif made := picture(data, name, enlarge=SMALL):
        return Shown('picture', made)
    return Shown('note', f'{kind} {name} could not be read.')


def _box(box: Mapping[str, Any]) -> BoxRow:
    return BoxRow(inline(box['label']), inline(box['score']), [inline(side) for side in box['box']])
