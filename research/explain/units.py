"""Interpretable units of a request: words, patches, columns or windows that explanations refer to.

Units are removed from the request itself, before `Task.encode`, so that tokenization, cropping and resampling run as in
serving. The replacement depends on the kind of input:

    text             removed; '_' (an unknown word) if no word is left
    sequence         the same number of letters N (any base)
    image            the mean color of the image
    audio            silence
    number, category the value of another request, or removed (a missing value)
    list             removed
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

PATCHES_PER_SIDE = 4  # of an image
WINDOW_COUNT = 8  # of a sound or a sequence
UNKNOWN_WORD, ANY_BASE = '_', 'N'
MARK = re.compile(r'\[[A-Z]+\]|<\w+>')  # '[MASK]', '<extra_id_0>': what the model predicts, never removed
# Chinese and Japanese text has no spaces: each character is a word.
WORD = re.compile(r'(?:[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+)\s*')


class Units(NamedTuple):
    """The units of one request."""

    names: list[str]
    keep: Callable[..., dict[str, Any]]  # (kept: Bool[units], other: Raw | None = None) -> the request


class Part(NamedTuple):
    """The units of one field of a request."""

    names: list[str]
    keep: Callable[[Bool[np.ndarray, 'units'], Raw | None], dict[str, Any]]  # -> changed fields; None removes a field


def units(inputs: Mapping[str, Input], raw: Raw, patches: int = PATCHES_PER_SIDE, windows: int = WINDOW_COUNT) -> Units:
    """Splits a request into units and builds the function that keeps some of them.

    Keeping all units gives a request that encodes like `raw`. A second request `other` provides background values: the
    interventional Shapley value removes a column by taking the value of `other`.

    Args:
      inputs: the fields that the task reads (`Task.inputs`).
      raw: a request, or a row of a split; other fields, such as its label, are kept.
      patches: patches per side of an image, at most one per pixel.
      windows: windows of a sound or a sequence, at most one per sample or letter.

    Raises:
      UserError: if the request has no units (a row of token ids), or a field has the wrong type.
    """
    makers = {
        'text': lambda name, value: text_part(name, value, count_inputs(inputs, 'text')),
        'sequence': lambda name, value: sequence_part(name, value, windows),
        'image': lambda name, value: image_part(name, value, patches),
        'audio': lambda name, value: audio_part(name, value, raw.get('rate'), windows),
        'number': column_part,
        'category': column_part,
        'list': list_part,
    }
    sound = count_inputs(inputs, 'audio') > 0
    parts = [
        makers[field.kind](name, raw[name])
        for name, field in inputs.items()
        if raw.get(name) is not None and field.kind in makers and not (sound and name == 'rate')
    ]
    names = [name for part in parts for name in part.names]
    if not names:
        fields = ', '.join(f'{name} ({field.kind})' for name, field in inputs.items()) or 'nothing'
        raise UserError(
            f'the request has no unit to remove: the task reads {fields}, the request has {list(raw)}'
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


def count_inputs(inputs: Mapping[str, Input], kind: str) -> int:
    return sum(field.kind == kind for field in inputs.values())


def text_part(field: str, value: Any, fields: int) -> Part:
    """Splits a text into words with their trailing spaces; names include the field if there are several."""
    if not isinstance(value, str):
        raise UserError(f'{field!r} must be a text, got {type(value).__name__}')
    pieces = [(match.group(), False) for match in WORD.finditer(value)]
    for mark in MARK.finditer(value):  # marks may touch adjacent words
        pieces = [part for piece in pieces for part in without_mark(piece, mark.group())]
    blank = value[: len(value) - len(value.lstrip())]
    removable = [text for text, fixed in pieces if not fixed]

    def keep(kept: Bool[np.ndarray, 'units'], other: Raw | None) -> dict[str, Any]:
        del other  # words have no counterpart in another text
        if kept.all():
            return {field: value}
        left = iter(kept)
        text = blank + ''.join(text for text, fixed in pieces if fixed or next(left))
        return {field: text if text.strip() else UNKNOWN_WORD}

    prefix = f'{field}: ' if fields > 1 else ''
    return Part([prefix + word.strip() for word in removable], keep)


def without_mark(piece: tuple[str, bool], mark: str) -> list[tuple[str, bool]]:
    """Splits a piece (text, fixed) around the first occurrence of a mark; fixed pieces are never removed."""
    text, fixed = piece
    if fixed or mark not in text:
        return [piece]
    before, after = text.split(mark, 1)
    blanks = after[: len(after) - len(after.lstrip())]
    around = [(before, False), (mark + blanks, True), (after[len(blanks) :], False)]
    return [part for part in around if part[0]]


def sequence_part(field: str, value: Any, windows: int) -> Part:
    """Splits a sequence into windows; removed letters become N, so that the rest keeps its position."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f'{field!r} must be a sequence of letters, got {value!r:.40}')
    letters = ''.join(value.split())
    edges = edges_of(len(letters), windows)

    def keep(kept: Bool[np.ndarray, 'units'], other: Raw | None) -> dict[str, Any]:
        del other
        spans = zip(kept, itertools.pairwise(edges), strict=True)
        return {field: ''.join(letters[a:b] if kept_window else ANY_BASE * (b - a) for kept_window, (a, b) in spans)}

    return Part([f'letters {a + 1} to {b}' for a, b in itertools.pairwise(edges)], keep)


def image_part(field: str, value: Any, patches: int) -> Part:
    """Splits an image into patches; removed ones get the mean color, or the pixels of the other image."""
    image = read_pixels(value)
    rows, columns = (edges_of(size, patches) for size in image.shape[:2])
    boxes = [(slice(a, b), slice(c, d)) for a, b in itertools.pairwise(rows) for c, d in itertools.pairwise(columns)]
    mean = image.mean(axis=(0, 1), dtype=np.float64).astype(image.dtype)

    def keep(kept: Bool[np.ndarray, 'units'], other: Raw | None) -> dict[str, Any]:
        if kept.all():
            return {field: value}
        background = np.broadcast_to(mean, image.shape)
        if other is not None and other.get(field) is not None:
            background = read_pixels(other[field])
            if background.shape != image.shape or background.dtype != image.dtype:
                raise UserError(
                    f'{field!r}: the other image is {background.dtype} {list(background.shape)}, this one '
                    f'{image.dtype} {list(image.shape)}; both must have the same size and type'
                )
        changed = image.copy()
        for kept_patch, box in zip(kept, boxes, strict=True):
            if not kept_patch:
                changed[box] = background[box]
        return {field: changed}

    down, across = len(rows) - 1, len(columns) - 1
    return Part([f'row {i + 1}, column {j + 1}' for i in range(down) for j in range(across)], keep)


def read_pixels(value: Any) -> np.ndarray:
    return read_image(value) if isinstance(value, bytes) else check_image(value)


def audio_part(field: str, value: Any, rate: Any, windows: int) -> Part:
    """Splits a sound into windows; removed ones become silence, or the samples of the other sound."""
    samples, rate = read_samples(field, value, rate)
    edges = edges_of(len(samples), windows)

    def keep(kept: Bool[np.ndarray, 'units'], other: Raw | None) -> dict[str, Any]:
        if kept.all():
            return {field: value}
        background = np.zeros_like(samples)
        if other is not None and other.get(field) is not None:
            theirs, their_rate = read_samples(field, other[field], other.get('rate'))
            if their_rate != rate:
                raise UserError(f'{field!r}: the other sound has {their_rate} samples per second, this one {rate}')
            background[: len(theirs)] = theirs[: len(samples)]
        mask = np.repeat(kept, np.diff(edges))
        return {field: np.where(mask, samples, background), 'rate': rate}

    return Part([f'{a / rate:.2f} to {b / rate:.2f} s' for a, b in itertools.pairwise(edges)], keep)


def read_samples(field: str, value: Any, rate: Any) -> tuple[np.ndarray, int]:
    """Reads a sound, the bytes of a file or samples, as mono samples and their rate."""
    if isinstance(value, bytes):
        row = read_sound(value, 'the sound')
        value, rate = row['audio'], row['rate']
    if rate is None:
        raise UserError(f"the request has {field!r} as samples but no 'rate' (samples per second)")
    return mono(value), check_rate(rate)


def column_part(field: str, value: Any) -> Part:
    """One column of a table; a removed one takes the value of the other request."""

    def keep(kept: Bool[np.ndarray, 'units'], other: Raw | None) -> dict[str, Any]:
        return {field: value if kept[0] else None if other is None else other.get(field)}

    return Part([field], keep)


def list_part(field: str, value: Any) -> Part:
    """Splits a list into its items."""
    items = list(value)

    def keep(kept: Bool[np.ndarray, 'units'], other: Raw | None) -> dict[str, Any]:
        del other
        return {field: [item for item, kept_item in zip(items, kept, strict=True) if kept_item]}

    return Part([f'{field} {number}' for number in range(1, len(items) + 1)], keep)


def edges_of(size: int, count: int) -> list[int]:
    """Returns the edges of `count` windows of nearly equal size; of `size` windows if `size` is smaller."""
    return np.linspace(0, size, min(count, size) + 1).round().astype(int).tolist()
