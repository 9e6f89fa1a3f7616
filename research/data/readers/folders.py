"""Folders of texts, pictures or sounds, one folder a class; a file is read when its row is asked for."""

import functools
import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from research.data.image.images import read_image
from research.data.readers.archives import Entry, named, read_bytes, suffix_of
from research.data.readers.rows import Broken, Row, Rows
from research.errors import UserError

PICTURES = ('.png', '.jpg', '.jpeg', '.bmp', '.gif', '.webp', '.tif', '.tiff', '.ppm', '.pgm')
SOUNDS = ('.wav', '.flac', '.ogg', '.mp3', '.aif', '.aiff')
STREAMED = 0x7FFF0000  # a WAV file that states so many bytes of samples or more was written as a stream


def read_sound(data: bytes, name: str) -> Row:
    """Returns {'audio': float32 [samples] or [samples, channels] in [-1, 1], 'rate': samples a second}.

    Raises:
      Broken: where libsndfile does not read it, it is cut short, or it holds no sample.
    """
    import soundfile

    stated, there = data_bytes(data)
    if stated > there:
        raise Broken(f'{name}: the sound is cut short: {stated:,} bytes of samples by its head, {there:,} are there')
    try:
        audio, rate = soundfile.read(io.BytesIO(data), dtype='float32')
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = str(error).rpartition(': ')[2].rstrip('.')
        raise Broken(f'{name}: cannot be read as sound ({reason}); give WAV, FLAC, OGG or MP3') from None
    if not len(audio):
        raise Broken(f'{name}: the sound has no samples')
    return {'audio': audio, 'rate': int(rate)}


def data_bytes(data: bytes) -> tuple[int, int]:
    """Returns how many bytes of samples a WAV file states and how many follow; (0, 0) where it states none.

    What was written as a stream states 0, or about 2 or 4 GiB: its length was not known.
    """
    if data[:4] != b'RIFF' or data[8:12] != b'WAVE':
        return 0, 0
    start = 12
    while start + 8 <= len(data):
        size = int.from_bytes(data[start + 4 : start + 8], 'little')
        if data[start : start + 4] == b'data':
            return (size if size < STREAMED else 0), len(data) - start - 8
        start += 8 + size + size % 2
    return 0, 0


def read_picture(data: bytes, name: str) -> Row:
    """Returns {'image': uint8 [height, width, 1 or 3]}; raises `Broken` where Pillow does not read it."""
    try:
        return {'image': read_image(data)}
    except UserError as error:
        reason = str(error).removeprefix('the picture').lstrip(': ')
        raise Broken(f'{name}: {re.sub(" <_io.BytesIO[^>]*>", "", reason)}') from None


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
            try:
                row[field] = np.asarray(value)
            except ValueError:  # lists of different lengths
                raise Broken(f'{where}: the lists of {field!r} differ in length') from None
        elif isinstance(value, str):
            row.update(read(read_file(Entry(value, '', value), where), f'{where}: {value}'))
        elif isinstance(value, bytes):
            row.update(read(value, where))
        else:
            raise Broken(f'{where}: {field!r} must be a path, bytes or numbers, got {row[field]!r:.60}')
    return row


def read_text(data: bytes, name: str) -> Row:
    """Returns {'text': the whole of a file}; raises `Broken` where it is not UTF-8."""
    try:
        return {'text': data.decode('utf-8-sig')}
    except UnicodeDecodeError as error:
        raise Broken(
            f'{name}: not UTF-8 text (byte 0x{data[error.start]:02x} at {error.start + 1})'
        ) from None


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
    """Returns a row for each file of some kinds (() for all); other files are passed over.

    Its label is the first folder below what was asked for (below a folder that holds all others, as archives
    have), or what `label_pattern` finds in the path below it. Where no file lies in a folder, no row has one.

    Raises:
      UserError: where there is no such file.
    """
    files = [entry for entry in entries if not kinds or suffix_of(entry.below) in kinds]
    if not files:
        raise UserError(
            f'{entries[0].name} and {len(entries) - 1} other files: none ends in {", ".join(kinds)}'
        )
    files = files if label_pattern else without_wrapper(files)
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


def without_wrapper(files: Sequence[Entry]) -> list[Entry]:
    """Returns files named below the one folder that holds all others, if there is one."""
    while True:
        parts = [entry.below.split('/', 1) for entry in files]
        nested = all(len(part) > 1 and '/' in part[1] for part in parts)
        if len({part[0] for part in parts}) > 1 or not nested:
            return list(files)
        files = [entry._replace(below=part[1]) for entry, part in zip(files, parts, strict=True)]


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
