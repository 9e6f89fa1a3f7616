"""Folders of texts, pictures or sounds with one folder per class; files are read on access."""

import functools
import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from research.data.formats import HEAD_BYTES, PICTURES, SOUNDS, kind_of_content, kind_of_name
from research.data.image.images import read_image
from research.data.readers.archives import Entry, head_of, named, read_bytes, suffix_of
from research.data.readers.fields import normal, printable
from research.data.readers.rows import Broken, Row, Rows
from research.data.readers.text import decode_file
from research.data.readers.walk import LeftOut, notes_of
from research.errors import UserError
from research.extras import require

STREAM_BYTES = 0x7FFF0000  # WAV headers of streams claim at least this many bytes of samples
MAX_SAMPLES = 1 << 28  # of a sound over all channels: an hour of stereo at 37 kHz, 1 GiB
BLOCK_SAMPLES = 1 << 18  # per channel, decoded at once, so that memory does not depend on the header
SPLITS = {
    'train': 'train', 'training': 'train', 'validation': 'validation', 'valid': 'validation', 'val': 'validation',
    'dev': 'validation', 'test': 'test', 'testing': 'test',
}  # fmt: skip


def read_sound(data: bytes, name: str) -> Row:
    """Decodes {'audio': float32 [samples] or [samples, channels] in [-1, 1], 'rate': sample rate in Hz}.

    Raises:
      Broken: if libsndfile cannot decode it, or it is truncated or empty.
    """
    soundfile = require('soundfile')
    stated, present = data_bytes(data)
    if stated > present:
        raise Broken(f'{name}: the sound is truncated: its header states {stated:,} bytes, {present:,} exist')
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            claimed, channels, rate, form = file.frames, file.channels, file.samplerate, file.format
            if claimed * channels <= MAX_SAMPLES or form == 'FLAC':  # FLAC headers are checked below
                blocks = sample_blocks(file, name)
            else:
                raise Broken(f'{name}: {claimed:,} samples, more than the {MAX_SAMPLES // channels:,} that are read')
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, Broken):
            raise
        reason = str(error).rpartition(': ')[2].rstrip('.')
        raise Broken(f'{name}: cannot be read as sound ({reason}); give WAV, FLAC, OGG or MP3') from None
    audio = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if not len(audio):
        raise Broken(f'{name}: the sound has no samples')
    if form == 'FLAC' and len(audio) < claimed < 1 << 62:  # larger claims come from streams
        raise Broken(f'{name}: the sound is truncated: its header states {claimed:,} samples, {len(audio):,} exist')
    return {'audio': audio, 'rate': int(rate)}


def sample_blocks(file: Any, name: str) -> list[np.ndarray]:
    """Decodes the samples of an open sound, however many its header claims."""
    blocks, count = [], 0
    while len(block := file.read(BLOCK_SAMPLES, dtype='float32')):
        blocks.append(block)
        count += block.size
        if count > MAX_SAMPLES:
            raise Broken(f'{name}: more than the {MAX_SAMPLES // file.channels:,} samples that are read')
    return blocks


def data_bytes(data: bytes) -> tuple[int, int]:
    """Bytes of samples that a WAV header states, and bytes that follow it; (0, 0) if it states none.

    Streams of unknown length state 0, or about 2 or 4 GiB.
    """
    if data[:4] != b'RIFF' or data[8:12] != b'WAVE':
        return 0, 0
    start = 12
    while start + 8 <= len(data):
        size = int.from_bytes(data[start + 4 : start + 8], 'little')
        if data[start : start + 4] == b'data':
            return (size if size < STREAM_BYTES else 0), len(data) - start - 8
        start += 8 + size + size % 2
    return 0, 0


def read_picture(data: bytes, name: str) -> Row:
    """Decodes {'image': uint8 [height, width, 1 or 3]}; raises `Broken` if Pillow cannot."""
    try:
        return {'image': read_image(data)}
    except UserError as error:
        reason = str(error).removeprefix('the picture').lstrip(': ')
        raise Broken(f'{name}: {re.sub(" <_io.BytesIO[^>]*>", "", reason)}') from None


def decoded(row: Mapping[str, Any], where: str, fields: Sequence[str]) -> Row:
    """Decodes the fields 'image' and 'audio' of a row, if they are in `fields`, to arrays.

    Each may be a path, the bytes of a file, or {'bytes': ..., 'path': ...} as in Hugging Face data sets.
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
            if '\0' in value:
                raise Broken(f'{where}: the path in {field!r} contains a null character')
            row.update(read(read_file(Entry(value, '', value), where), f'{where}: {value}'))
        elif isinstance(value, bytes):
            row.update(read(value, where))
        else:
            raise Broken(f'{where}: {field!r} must be a path, bytes or numbers, got {row[field]!r:.60}')
    return row


def read_text(data: bytes, name: str) -> Row:
    """Decodes {'text': content of a file}; raises `Broken` if it is not UTF-8."""
    return {'text': decode_file(data, name)}


def read_file(entry: Entry, where: str = '') -> bytes:
    """Reads the bytes of a file; a missing or unreadable file is a broken record."""
    try:
        with named(entry.name):
            return read_bytes(entry)
    except UserError as error:
        raise Broken(f'{where}: {error}' if where else str(error)) from None


def read_folder(
    entries: Sequence[Entry],
    endings: Sequence[str],
    read: Callable,
    label_pattern: str = '',
    left_out: Sequence[LeftOut] = (),
) -> Rows:
    """A row for each file of a format; other files are counted and named in the notes.

    The label is the first folder below the given path, ignoring a single folder that contains all others (as in
    archives), or the match of `label_pattern` in the path below. If no file is in a folder, the rows have no label.

    Args:
      entries: files that were found.
      endings: `PICTURES` or `SOUNDS`: selects files by extension, or else by content; () for all.
      read: (bytes, name) -> the fields of a row.
      label_pattern: see above.
      left_out: files that were skipped before.

    Raises:
      UserError: if there is no such file.
    """
    kind = {PICTURES: 'image', SOUNDS: 'audio'}.get(tuple(endings), '')
    files = [entry for entry in entries if not endings or is_of_kind(entry, endings, kind)]
    if not files:
        raise UserError(
            f'{entries[0].name} and {len(entries) - 1} other files: none ends in {", ".join(endings)}, and none has '
            'such a format by its content'
        )
    taken = set(files)
    others = [LeftOut('format', entry.name) for entry in entries if entry not in taken]
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
        notes=notes_of([*left_out, *others]),
    )


def is_of_kind(entry: Entry, endings: Sequence[str], kind: str) -> bool:
    """Whether a file is of a kind, by its extension or else by its first bytes."""
    if suffix_of(entry.below) in endings:
        return True
    return bool(kind) and not kind_of_name(entry.below) and kind_of_content(head_of(entry, HEAD_BYTES)) == kind


def split_folders(entries: Sequence[Entry]) -> dict[str, str]:
    """{split: its folder} if the top-level folders are named after splits.

    This requires that all files are in folders such as train, val and test, possibly inside one common folder, with one
    for training and at least one other. Otherwise {}.
    """
    parts = [entry.below.split('/') for entry in entries]
    depth = 0
    while parts and all(len(part) > depth + 2 for part in parts) and len({part[depth] for part in parts}) == 1:
        if parts[0][depth].lower() in SPLITS:
            break
        depth += 1
    names = {part[depth] for part in parts if len(part) > depth + 1}
    folders = {SPLITS.get(name.lower(), ''): '/'.join([*parts[0][:depth], name]) for name in sorted(names)}
    whole = len(folders) == len(names) and all(len(part) > depth + 1 for part in parts)
    return folders if whole and 'train' in folders and len(folders) > 1 and '' not in folders else {}


def without_wrapper(files: Sequence[Entry]) -> list[Entry]:
    """Removes a single folder that contains all others from the names of the files.

    Up to a tenth of the files may be directly in that folder (a preview, a logo); they have no class.
    """
    while True:
        parts = [entry.below.split('/', 1) for entry in files]
        nested = sum(len(part) > 1 and '/' in part[1] for part in parts)
        inner = {part[1].split('/')[0] for part in parts if len(part) > 1 and '/' in part[1]}
        enough = nested == len(parts) or nested >= 0.9 * len(parts) and len(inner) > 1
        if len({part[0] for part in parts}) > 1 or not enough:
            return list(files)
        files = [entry._replace(below=part[1]) for entry, part in zip(files, parts, strict=True)]


def file_name(files: Sequence[Entry], number: int) -> str:
    return files[number].name


def file_label(files: Sequence[Entry], pattern: re.Pattern, number: int) -> str:
    """The label in a file's path; raises `Broken` if the path has no label."""
    match = pattern.search(files[number].below)
    if not match:
        raise Broken(f'{files[number].name}: no label: the file is not in a folder of a class')
    label = match[1] if pattern.groups else match[0]
    try:
        label.encode()
    except UnicodeEncodeError:
        raise Broken(f"{files[number].name}: the name '{printable(label)}' is not UTF-8: rename it") from None
    return normal(label)


def file_key(files: Sequence[Entry], number: int) -> bytes:
    return hashlib.sha256(read_file(files[number])).digest()


def file_row(files: Sequence[Entry], read: Callable, label: Callable[[int], str] | None, number: int) -> Row:
    row = read(read_file(files[number]), files[number].name)
    return {**row, 'label': label(number)} if label else row
