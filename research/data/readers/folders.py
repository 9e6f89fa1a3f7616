"""Folders of pictures or sounds, one folder a class; a file is read and decoded when its row is asked for."""

import functools
import hashlib
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from research.data.images import read_image
from research.data.readers.archives import Entry, named, read_bytes
from research.data.readers.rows import Broken, Row, Rows
from research.errors import UserError

PICTURES = ('.png', '.jpg', '.jpeg', '.bmp', '.gif', '.webp', '.tif', '.tiff', '.ppm', '.pgm')
SOUNDS = ('.wav', '.flac', '.ogg', '.mp3', '.aif', '.aiff')


def read_sound(data: bytes, name: str) -> Row:
    """Returns {'audio': float32 [samples] or [samples, channels] in [-1, 1], 'rate': samples a second}.

    Raises:
      Broken: where libsndfile does not read it, or it holds no sample.
    """
    import soundfile

    try:
        audio, rate = soundfile.read(io.BytesIO(data), dtype='float32')
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = str(error).rpartition(': ')[2].rstrip('.')
        raise Broken(f'{name}: cannot be read as sound ({reason}); give WAV, FLAC, OGG or MP3') from None
    if not len(audio):
        raise Broken(f'{name}: the sound has no samples')
    return {'audio': audio, 'rate': int(rate)}


def read_picture(data: bytes, name: str) -> Row:
    """Returns {'image': uint8 [height, width, 1 or 3]}; raises `Broken` where Pillow does not read it."""
    try:
        return {'image': read_image(data)}
    except UserError as error:
        raise Broken(f'{name}: {str(error).removeprefix("the picture").lstrip(": ")}') from None


def decoded(row: Mapping[str, Any], where: str, fields: Sequence[str]) -> Row:
    """Returns a row whose fields 'image' and 'audio', where they are in `fields`, are arrays.

    Each may be a path, the bytes of a file, or {'bytes': ..., 'path': ...} as Hugging Face stores them.
    """
    row = dict(row)
    for field, read in (('image', read_picture), ('audio', read_sound)):
        value = row.get(field)
        if field not in fields or value is None or isinstance(value, np.ndarray):
            continue
        if isinstance(value, Mapping):
            value = value.get('bytes') or value.get('path')
        if isinstance(value, list):
            row[field] = np.asarray(value)
        elif isinstance(value, str):
            row.update(read(read_file(Entry(value, '', value), where), f'{where}: {value}'))
        elif isinstance(value, bytes):
            row.update(read(value, where))
        else:
            raise Broken(f'{where}: {field!r} must be a path, bytes or numbers, got {row[field]!r:.60}')
    return row


def read_file(entry: Entry, where: str = '') -> bytes:
    """Returns the bytes of a file; a missing or unreadable one is a broken record."""
    try:
        with named(entry.name):
            return read_bytes(entry)
    except UserError as error:
        raise Broken(f'{where}: {error}' if where else str(error)) from None


def read_folder(
    entries: Sequence[Entry], kinds: Sequence[str], read: Callable, label_pattern: str = ''
) -> Rows:
    """Returns a row for each file of some kinds; files of other kinds are passed over.

    Its label is the first folder below what was asked for, or what `label_pattern` finds in the path below
    it. Where no file lies in a folder, no row has a label.

    Raises:
      UserError: where there is no such file.
    """
    files = [entry for entry in entries if os.path.splitext(entry.below)[1].lower() in kinds]
    if not files:
        raise UserError(
            f'{entries[0].name} and {len(entries) - 1} other files: none ends in {", ".join(kinds)}'
        )
    labelled = bool(label_pattern) or any('/' in entry.below for entry in files)
    label = (
        functools.partial(file_label, files, re.compile(label_pattern or '^([^/]+)/')) if labelled else None
    )
    return Rows(
        len(files),
        functools.partial(file_row, files, read, label),
        functools.partial(file_name, files),
        functools.partial(file_key, files),
        label,
    )


def file_name(files: Sequence[Entry], number: int) -> str:
    """Returns the name of a file as messages show it."""
    return files[number].name


def file_label(files: Sequence[Entry], pattern: re.Pattern, number: int) -> str:
    """Returns the label that a file's path says; raises `Broken` where it says none."""
    found = pattern.search(files[number].below)
    if not found:
        raise Broken(f'{files[number].name}: no label: it lies in no folder of a class')
    return found[1] if pattern.groups else found[0]


def file_key(files: Sequence[Entry], number: int) -> bytes:
    """Returns the SHA-256 of a file."""
    return hashlib.sha256(read_file(files[number])).digest()


def file_row(files: Sequence[Entry], read: Callable, label: Callable[[int], str] | None, number: int) -> Row:
    """Returns one file as a row."""
    row = read(read_file(files[number]), files[number].name)
    return {**row, 'label': label(number)} if label else row
