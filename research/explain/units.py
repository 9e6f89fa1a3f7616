"""The units of a request: the words, patches, columns or windows that a person would name in an explanation.

A unit is left out of the request itself, before `Task.encode`, so tokenizers, crops and resampling act as in serving.
What stands in its place depends on the kind of the input:

    text             nothing; '_', an unknown word, where no word is left
    sequence         as many letters N: any base
    image            the mean colour of the picture
    audio            silence
    number, category the value of another request, or nothing: the task's own missing value
    list             nothing
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from research.core.task import Input, Raw
from research.data.audio.sounds import check_rate, mono
from research.data.image.images import check_image, read_image
from research.data.readers.folders import read_sound
from research.errors import UserError

PATCHES = 4  # along each side of a picture
WINDOWS = 8  # of a sound or a sequence
UNKNOWN_WORD, ANY_BASE = '_', 'N'
MARK = re.compile(r'\[[A-Z]+\]|<\w+>')  # '[MASK]', '<extra_id_0>': a question that the model answers, not a unit
# A Chinese or Japanese character is a word of its own: such texts have no blanks.
WORD = re.compile(r'(?:[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+)\s*')


class Units(NamedTuple):
    """The units of one request."""

    names: list[str]
    keep: Callable[..., dict[str, Any]]  # (kept: Bool[units], other: Raw | None = None) -> the request with those alone


class Part(NamedTuple):
    """The units of one field of a request."""

    names: list[str]
    keep: Callable[[Bool[np.ndarray, 'units'], Raw | None], dict[str, Any]]  # -> the fields that change; None: dropped


def units(inputs: Mapping[str, Input], raw: Raw, patches: int = PATCHES, windows: int = WINDOWS) -> Units:
    """Returns the units of a request and the function that makes the request with some of them.

    `keep` of all units gives a request that is encoded as `raw` is. `other`, a second request, stands in for the
    background of columns: the interventional Shapley value leaves a column out by taking the other's value.

    Args:
      inputs: the fields that the task reads (`Task.inputs`).
      raw: a request, or a row of a split; fields that are no inputs, such as its label, are kept.
      patches: along each side of a picture, at most its pixels.
      windows: of a sound or a sequence, at most its samples or letters.

    Raises:
      UserError: when the request holds no unit (a row of token ids), or a field that is not of its kind.
    """
    makers = {
        'text': lambda name, value: text_part(name, value, many(inputs, 'text')),
        'sequence': lambda name, value: sequence_part(name, value, windows),
        'image': lambda name, value: image_part(name, value, patches),
        'audio': lambda name, value: audio_part(name, value, raw.get('rate'), windows),
        'number': column_part,
        'category': column_part,
        'list': list_part,
    }
    sound = many(inputs, 'audio') > 0
    parts = [
        makers[field.kind](name, raw[name])
        for name, field in inputs.items()
        if raw.get(name) is not None and field.kind in makers and not (sound and name == 'rate')
    ]
    names = [name for part in parts for name in part.names]
    if not names:
        fields = ', '.join(f'{name} ({field.kind})' for name, field in inputs.items()) or 'nothing'
        raise UserError(
            f'the request has no unit that could be left out: the task reads {fields}, it holds {list(raw)}'
        )

    def keep(kept: Sequence[bool], other: Raw | None = None) -> dict[str, Any]:
        chosen = np.asarray(kept, bool)
        if chosen.shape != (len(names),):
            raise ValueError(f'kept must be {len(names)} booleans, one for each unit, got shape {chosen.shape}')
        request, start = dict(raw), 0
        for part in parts:
            request |= part.keep(chosen[start : start + len(part.names)], other)
            start += len(part.names)
        return {name: value for name, value in request.items() if value is not None}

    return Units(names, keep)


def many(inputs: Mapping[str, Input], kind: str) -> int:
    """Returns how many fields of a kind a task reads."""
    return sum(field.kind == kind for field in inputs.values())


def text_part(field: str, value: Any, fields: int) -> Part:
    """Words of a text, each with the blanks after it; with the name of the field where there are several."""
    if not isinstance(value, str):
        raise UserError(f'{field!r} must be a text, got {type(value).__name__}')
    pieces = [(match.group(), False) for match in WORD.finditer(value)]
    for mark in MARK.finditer(value):  # a mark may touch the words around it
        pieces = [part for piece in pieces for part in without_mark(piece, mark.group())]
    blank = value[: len(value) - len(value.lstrip())]
    words = [text for text, fixed in pieces if not fixed]

    def keep(kept: Bool[np.ndarray, 'units'], other: Raw | None) -> dict[str, Any]:
        del other  # its words stand elsewhere
        if kept.all():
            return {field: value}
        left = iter(kept)
        text = blank + ''.join(text for text, fixed in pieces if fixed or next(left))
        return {field: text if text.strip() else UNKNOWN_WORD}

    prefix = f'{field}: ' if fields > 1 else ''
    return Part([prefix + word.strip() for word in words], keep)


def without_mark(piece: tuple[str, bool], mark: str) -> list[tuple[str, bool]]:
    """Splits a piece (text, whether it always stays) around the first occurrence of a mark, which always stays."""
    text, fixed = piece
    if fixed or mark not in text:
        return [piece]
    before, after = text.split(mark, 1)
    blanks = after[: len(after) - len(after.lstrip())]
    around = [(before, False), (mark + blanks, True), (after[len(blanks) :], False)]
    return [part for part in around if part[0]]


def sequence_part(field: str, value: Any, windows: int) -> Part:
    """Windows of a sequence of letters; what is missing becomes N, so that the rest stays where it is."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f'{field!r} must be a sequence of letters, got {value!r:.40}')
    letters = ''.join(value.split())
    edges = edges_of(len(letters), windows)

    def keep(kept: Bool[np.ndarray, 'units'], other: Raw | None) -> dict[str, Any]:
        del other
        spans = zip(kept, itertools.pairwise(edges), strict=True)
        return {field: ''.join(letters[a:b] if there else ANY_BASE * (b - a) for there, (a, b) in spans)}

    return Part([f'letters {a + 1} to {b}' for a, b in itertools.pairwise(edges)], keep)


def image_part(field: str, value: Any, patches: int) -> Part:
    """Patches of a picture; what is missing has the picture's mean colour, or the other picture's pixels."""
    image = opened(value)
    rows, columns = (edges_of(size, patches) for size in image.shape[:2])
    boxes = [(slice(a, b), slice(c, d)) for a, b in itertools.pairwise(rows) for c, d in itertools.pairwise(columns)]
    mean = image.mean(axis=(0, 1), dtype=np.float64).astype(image.dtype)

    def keep(kept: Bool[np.ndarray, 'units'], other: Raw | None) -> dict[str, Any]:
        if kept.all():
            return {field: value}
        ground = np.broadcast_to(mean, image.shape)
        if other is not None and other.get(field) is not None:
            ground = opened(other[field])
            if ground.shape != image.shape or ground.dtype != image.dtype:
                raise UserError(
                    f'{field!r}: the other picture is {ground.dtype} {list(ground.shape)}, this one {image.dtype} '
                    f'{list(image.shape)}: take one of the same size'
                )
        changed = image.copy()
        for there, box in zip(kept, boxes, strict=True):
            if not there:
                changed[box] = ground[box]
        return {field: changed}

    down, across = len(rows) - 1, len(columns) - 1
    return Part([f'row {i + 1}, column {j + 1}' for i in range(down) for j in range(across)], keep)


def opened(value: Any) -> np.ndarray:
    """Returns the picture of a field, the bytes of a file or numbers, as an array."""
    return read_image(value) if isinstance(value, bytes) else check_image(value)


def audio_part(field: str, value: Any, rate: Any, windows: int) -> Part:
    """Windows of a sound in seconds; what is missing is silence, or the other sound's samples at the same rate."""
    samples, rate = heard(field, value, rate)
    edges = edges_of(len(samples), windows)

    def keep(kept: Bool[np.ndarray, 'units'], other: Raw | None) -> dict[str, Any]:
        if kept.all():
            return {field: value}
        ground = np.zeros_like(samples)
        if other is not None and other.get(field) is not None:
            theirs, their_rate = heard(field, other[field], other.get('rate'))
            if their_rate != rate:
                raise UserError(f'{field!r}: the other sound has {their_rate} samples a second, this one {rate}')
            ground[: len(theirs)] = theirs[: len(samples)]
        there = np.repeat(kept, np.diff(edges))
        return {field: np.where(there, samples, ground), 'rate': rate}

    return Part([f'{a / rate:.2f} to {b / rate:.2f} s' for a, b in itertools.pairwise(edges)], keep)


def heard(field: str, value: Any, rate: Any) -> tuple[np.ndarray, int]:
    """Returns a sound, the bytes of a file or numbers, as one channel of samples and their rate."""
    if isinstance(value, bytes):
        row = read_sound(value, 'the sound')
        value, rate = row['audio'], row['rate']
    if rate is None:
        raise UserError(f"the request has {field!r} as samples but no 'rate': say how many there are in a second")
    return mono(value), check_rate(rate)


def column_part(field: str, value: Any) -> Part:
    """One column of a table; what is missing takes the other's value."""

    def keep(kept: Bool[np.ndarray, 'units'], other: Raw | None) -> dict[str, Any]:
        return {field: value if kept[0] else None if other is None else other.get(field)}

    return Part([field], keep)


def list_part(field: str, value: Any) -> Part:
    """The items of a list."""
    items = list(value)

    def keep(kept: Bool[np.ndarray, 'units'], other: Raw | None) -> dict[str, Any]:
        del other
        return {field: [item for item, there in zip(items, kept, strict=True) if there]}

    return Part([f'{field} {number}' for number in range(1, len(items) + 1)], keep)


def edges_of(size: int, count: int) -> list[int]:
    """Returns where `count` windows that differ by one at most begin and end; fewer where there is less."""
    return np.linspace(0, size, min(count, size) + 1).round().astype(int).tolist()
