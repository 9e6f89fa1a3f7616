"""Reads files from folders, buckets, tar and zip archives, compressed or not.

A path may continue inside an archive as in a folder: 'photos.tar.gz/train/cat/*.jpg'. Archives are not extracted; a
compressed file is decompressed once into a temporary file that is removed when the process ends.
"""

import bz2
import contextlib
import fnmatch
import functools
import glob
import gzip
import io
import itertools
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from etils import epath

from research.data.readers.fields import printable
from research.data.readers.members import filled, tar_members, zip_members
from research.data.readers.walk import LeftOut, is_hidden, refusal, walk
from research.errors import UserError, nearest

COMPRESSED = {'.gz': gzip.open, '.tgz': gzip.open, '.xz': lzma.open, '.txz': lzma.open, '.bz2': bz2.open}
ARCHIVE = re.compile(r'^(.*?\.(?:tar|tar\.gz|tgz|tar\.xz|txz|tar\.bz2|zip))(?:/(.*))?$', re.IGNORECASE)
MAX_MEMORY_BYTES = 64 * 1024**2  # larger decompressed files go to a temporary file
MAX_FILE_BYTES = 1 << 31  # of a file read at once: a record, or a member of a zip
FAILURES = (
    OSError, EOFError, lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile, RuntimeError, ValueError,
    OverflowError, UnicodeError,
)  # fmt: skip  # includes NotImplementedError, for unknown compression


class Opened:
    """An open file for random access from several threads; pickled as its path and reopened."""

    def __init__(self, path: str):
        self.path, self.lock = path, threading.Lock()
        self.file = open_file(path)
        self.size = self.file.seek(0, os.SEEK_END)
        weakref.finalize(self, self.file.close)

    def read(self, start: int, size: int) -> bytes:
        """Reads `size` bytes from `start`, fewer at the end of the file."""
        with self.lock:
            self.file.seek(start)
            return self.file.read(size)

    def __reduce__(self):
        return Opened, (self.path,)


class Part(NamedTuple):
    """A byte range of an open file: all of it, or one member of an archive."""

    opened: Any  # an `Opened`, or anything with its `read`
    start: int
    size: int

    def read(self, start: int = 0, size: int = -1) -> bytes:
        """Reads `size` bytes from `start` within the part; -1 reads to its end."""
        left = max(self.size - start, 0)
        return self.opened.read(self.start + start, left if size < 0 else min(size, left))


class Bytes(NamedTuple):
    """Bytes in memory with the interface of `Opened`."""

    data: bytes

    def read(self, start: int, size: int) -> bytes:
        return self.data[start : start + size]


class Entry(NamedTuple):
    """A file that was found: its display name, its path below the searched folder, and its location."""

    name: str
    below: str  # 'cat/1.png' for 'photos/train'; the base name if the file itself was named
    path: str  # of the file, or of the archive that contains it
    member: str = ''  # its name in the archive


def is_local(path: str) -> bool:
    return '://' not in path


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Converts errors while reading a file into a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except FAILURES as error:
        reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        raise UserError(f'{name}: cannot be read ({reason})') from None


def suffix_of(path: str) -> str:
    """The last suffix in lower case, such as '.gz'."""
    return os.path.splitext(path)[1].lower()


def open_file(path: str) -> Any:
    """Opens a seekable binary file, decompressed if `path` ends in .gz, .xz, .bz2 or is a compressed tar."""
    with named(path):
        check_regular(path)
        opener = COMPRESSED.get(suffix_of(path))
        if is_local(path) and opener is None:
            return open(path, 'rb')
        copy = tempfile.SpooledTemporaryFile(max_size=MAX_MEMORY_BYTES)
        with epath.Path(path).open('rb') as raw, opener(raw) if opener else raw as source:
            shutil.copyfileobj(source, copy, 1 << 20)
        return copy


class Archive:
    """A tar or zip with random access to its members; `left_out` are the skipped ones."""

    def __init__(self, path: str):
        self.path = path
        self.opened = Opened(path)
        self.opened.file.seek(0)
        self.zip = None
        with named(path):
            if suffix_of(path) == '.zip':
                self.zip = zipfile.ZipFile(self.opened.file)
                self.members, self.left_out = zip_members(self.zip, path)
            else:
                with tarfile.open(fileobj=self.opened.file, mode='r:') as tar:
                    self.members, self.left_out = tar_members(tar)

    def part(self, member: str) -> Part:
        """The bytes of a member, decompressed if its own name ends in .gz, .xz or .bz2."""
        stored, name = self.members[member], f'{self.path}/{member}'
        with named(name):
            if stored.start < 0 or stored.pieces is not None:
                check_whole(stored.size, name)
            if stored.start < 0:
                with self.opened.lock:
                    data = self.zip.read(stored.name)  # pyright: ignore[reportOptionalMemberAccess]
                part = Part(Bytes(data), 0, len(data))
            elif stored.pieces is not None:
                data = filled(stored, self.opened.read)
                part = Part(Bytes(data), 0, len(data))
            else:
                part = Part(self.opened, stored.start, stored.size)
            data = unpacked(part.read(), member, name) if suffix_of(member) in COMPRESSED else b''
        return Part(Bytes(data), 0, len(data)) if suffix_of(member) in COMPRESSED else part

    def __reduce__(self):
        return open_archive, (self.path,)


def open_archive(path: str) -> Archive:
    """Opens the archive at `path`, once for all reads from it."""
    status = os.stat(path) if is_local(path) else None
    return cached_archive(path, (status.st_mtime_ns, status.st_size) if status else ())


@functools.lru_cache(maxsize=8)
def cached_archive(path: str, version: tuple) -> Archive:
    """An archive, cached by path; `version` makes a replaced file a new entry."""
    return Archive(path)


def check_whole(size: int, name: str) -> None:
    """Raises UserError for a file that is too large to be read at once."""
    if size > MAX_FILE_BYTES:
        raise UserError(f'{name} has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read of one file')


def unpacked(data: bytes, path: str, name: str) -> bytes:
    """Decompresses the bytes of a file if its name ends in .gz, .xz or .bz2.

    Raises:
      UserError: if the result would exceed 2 GiB.
    """
    opener = COMPRESSED.get(suffix_of(path))
    if opener is None:
        return data
    content = opener(io.BytesIO(data)).read(MAX_FILE_BYTES + 1)
    check_whole(len(content), name)
    return content


def check_regular(path: str) -> None:
    """Raises UserError for a local pipe, socket or device, which might never end."""
    if is_local(path) and refusal(path) == 'special' and not os.path.isdir(path):
        raise UserError(f'{path} is not a regular file')


def open_part(entry: Entry) -> Part:
    """Opens the decompressed bytes of a file for random access."""
    if entry.member:
        return open_archive(entry.path).part(entry.member)
    opened = Opened(entry.path)
    return Part(opened, 0, opened.size)


def read_bytes(entry: Entry) -> bytes:
    """Reads all bytes of a file, decompressed."""
    if entry.member:
        return open_archive(entry.path).part(entry.member).read()
    with named(entry.name):
        check_regular(entry.path)
        if is_local(entry.path):
            check_whole(os.stat(entry.path).st_size, entry.name)
        return unpacked(epath.Path(entry.path).read_bytes(), entry.path, entry.name)


def head_of(entry: Entry, size: int) -> bytes:
    """The first bytes of a file, b'' if it cannot be read."""
    try:
        if entry.member or suffix_of(entry.path) in COMPRESSED or not is_local(entry.path):
            return read_bytes(entry)[:size]
        check_regular(entry.path)
        with open(entry.path, 'rb') as file:
            return file.read(size)
    except (UserError, OSError):
        return b''


def split_paths(paths: str | tuple) -> list[str]:
    """Splits paths written as 'a, b' or as a tuple."""
    return [part.strip() for part in (paths.split(',') if isinstance(paths, str) else paths) if part.strip()]


def find(paths: str | tuple, setting: str) -> list[Entry]:
    """The files at paths; see `find_all`."""
    return find_all(paths, setting)[0]


def find_all(paths: str | tuple, setting: str) -> tuple[list[Entry], list[LeftOut]]:
    """Finds the files at paths, patterns ('data/*.jsonl'), folders and inside archives, and those left out.

    Args:
      paths: 'a,b' or a tuple; `~` and `$NAME` are expanded.
      setting: 'config.data.train', for messages.

    Raises:
      UserError: if nothing matches; suggests the nearest existing name.
    """
    matches: list[Entry] = []
    left_out: list[LeftOut] = []
    for text in split_paths(paths):
        path = os.path.expanduser(os.path.expandvars(text))
        unset = re.search(r'\$\{?(\w+)', path)
        if unset:
            raise UserError(f'{setting}={text!r}: the environment variable {unset[1]} is not set')
        if '\0' in path:
            raise UserError(f'{setting}={text!r}: a path must not contain a null character')
        entries, others = find_in_archive(path)
        if not entries and not others:
            entries, others = find_outside(path)
        if not entries:
            raise UserError(f'{setting}={text!r}: {absence(path)}')
        matches += entries
        left_out += others
    if not matches:
        raise UserError(f'{setting} is empty: name a file, a folder or a pattern such as data/*.jsonl')
    return matches, left_out


def fixed_part(path: str) -> str:
    """The folders of a path before its first pattern: '/data' of '/data/*/1.png', else the whole path."""
    parts = path.split('/')
    return '/'.join(itertools.takewhile(lambda part: not glob.has_magic(part), parts))


def below(name: str, root: str) -> str:
    """The path of a file relative to `root`, or its base name if the file itself was named."""
    rest = name[len(root) :] if name.startswith(root) else name
    return rest.strip('/') or name.rpartition('/')[2]


def find_outside(path: str) -> tuple[list[Entry], list[LeftOut]]:
    """Finds the files at a path or pattern outside archives; a folder matches all files below it."""
    root = fixed_part(path.replace(os.sep, '/'))
    files: list[Any] = []
    left_out: list[LeftOut] = []
    for match in expand_pattern(path):
        if epath.Path(match).is_dir():
            inside, others = walk(match) if is_local(match) else (sorted(files_below(epath.Path(match))), [])
            files += inside
            left_out += others
        elif epath.Path(match).exists():
            files.append(match)
    entries = []
    for file in files:
        name = os.fspath(file).replace(os.sep, '/')
        if is_hidden(below(name, root)):
            left_out.append(LeftOut('hidden', name))
        else:
            entries.append(Entry(printable(name), below(name, root), name))
    return entries, left_out


def files_below(folder: epath.Path) -> Iterator[epath.Path]:
    """Yields all files below a folder (epath has no recursive pattern)."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


def expand_pattern(path: str) -> list[str]:
    """Files and folders that match a pattern; a path without *, ? or [ is returned unchanged."""
    if not glob.has_magic(path) or (is_local(path) and os.path.exists(path)):
        return [path]
    if is_local(path):
        return sorted(glob.glob(path, recursive=True))
    root = fixed_part(path)
    return sorted(os.fspath(match) for match in epath.Path(root).glob(path[len(root) :].strip('/')))


def find_in_archive(path: str) -> tuple[list[Entry], list[LeftOut]]:
    """Finds the members that a path into an archive names; empty if the path is not in an archive."""
    match = ARCHIVE.match(path.replace(os.sep, '/'))
    if not match:
        return [], []
    outer, inner = match[1], (match[2] or '').strip('/')
    root, entries, left_out = fixed_part(inner), [], []
    for file in expand_pattern(outer):
        if not epath.Path(file).exists() or epath.Path(file).is_dir():
            continue
        archive = open_archive(file)
        for name in sorted(archive.members):
            if is_named(name, inner):
                entries.append(Entry(printable(f'{file}/{name}'), below(name, root), file, name))
        left_out += [LeftOut(reason, f'{file}/{name}') for reason, name in archive.left_out if is_named(name, inner)]
    return entries, left_out


def is_named(name: str, inner: str) -> bool:
    """Whether a path or pattern within an archive matches a member or a folder above it."""
    return not inner or name == inner or name.startswith(inner + '/') or fnmatch.fnmatchcase(name, inner)


def absence(path: str) -> str:
    """Explains why there is no file at a path, and what to do."""
    if is_local(path) and os.path.isdir(path):
        return 'the folder contains no files (hidden files are ignored)'
    return f'there is no such file; {neighbours(path)}'


def neighbours(path: str) -> str:
    """Suggests the nearest name in the deepest existing folder of a missing path."""
    match = ARCHIVE.match(path)
    if match and os.path.isfile(match[1]):
        return f'in {match[1]} {nearest(match[2] or "", list(open_archive(match[1]).members)[:20])}'
    if not is_local(path):
        return 'look it up in the bucket'
    folder, name = os.path.split(path.rstrip('/'))
    while folder and not os.path.isdir(folder):
        folder, name = os.path.split(folder)
    names = sorted(os.listdir(folder or '.'), key=lambda other: other[:1] != name[:1])
    return f'in {folder or "this folder"} {nearest(name, names[:30])}'
