"""Files wherever they lie: in a folder or a bucket, compressed or not, on their own or inside a tar or zip.

A path may go on into an archive as into a folder: 'photos.tar.gz/train/cat/*.jpg'. Nothing is unpacked to a
folder; a compressed file is unpacked once into a temporary one that vanishes with the process.
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
IN_MEMORY = 64 * 1024**2  # bytes; unpacked files above this go to a temporary file
WHOLE = 1 << 31  # bytes of one file that is read whole: a record, or a member of a zip
FAILURES = (
    OSError, EOFError, lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile, RuntimeError, ValueError,
    OverflowError, UnicodeError,
)  # fmt: skip  # NotImplementedError, for a compression that Python does not know, is a RuntimeError


class Opened:
    """An open file that several threads read at any position; pickled as its path, and opened again."""

    def __init__(self, path: str):
        self.path, self.lock = path, threading.Lock()
        self.file = open_file(path)
        self.size = self.file.seek(0, os.SEEK_END)
        weakref.finalize(self, self.file.close)

    def read(self, start: int, size: int) -> bytes:
        """Returns `size` bytes from `start` (fewer at the end of the file)."""
        with self.lock:
            self.file.seek(start)
            return self.file.read(size)

    def __reduce__(self):
        return Opened, (self.path,)


class Part(NamedTuple):
    """A range of bytes of an open file: the whole of it, or what an archive holds of one member."""

    opened: Any  # an `Opened`, or anything with its `read`
    start: int
    size: int

    def read(self, start: int = 0, size: int = -1) -> bytes:
        """Returns `size` bytes from `start` within the part; -1 for all that follow."""
        left = max(self.size - start, 0)
        return self.opened.read(self.start + start, left if size < 0 else min(size, left))


class Bytes(NamedTuple):
    """Bytes in memory, read like an `Opened`."""

    data: bytes

    def read(self, start: int, size: int) -> bytes:
        """Returns `size` bytes from `start`."""
        return self.data[start : start + size]


class Entry(NamedTuple):
    """A file that was found: its name in messages, its path below what was asked for, and its place."""

    name: str
    below: str  # 'cat/1.png' of 'photos/train'; the file's own name where it was asked for itself
    path: str  # of the file, or of the archive that holds it
    member: str = ''  # its name in the archive


def is_local(path: str) -> bool:
    """Returns whether a path is on this machine's disk, not in a bucket."""
    return '://' not in path


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Turns what goes wrong while a file is read into a message that names it."""
    try:
        yield
    except UserError:
        raise
    except FAILURES as error:
        reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        raise UserError(f'{name}: cannot be read ({reason})') from None


def suffix_of(path: str) -> str:
    """Returns the last suffix in small letters: '.gz'."""
    return os.path.splitext(path)[1].lower()


def open_file(path: str) -> Any:
    """Returns a seekable binary file, unpacked where `path` ends in .gz, .xz, .bz2 or is a compressed tar."""
    with named(path):
        check_regular(path)
        opener = COMPRESSED.get(suffix_of(path))
        if is_local(path) and opener is None:
            return open(path, 'rb')
        copy = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)
        with epath.Path(path).open('rb') as raw, opener(raw) if opener else raw as source:
            shutil.copyfileobj(source, copy, 1 << 20)
        return copy


class Archive:
    """A tar or zip whose members are read at random; `left_out` are those that are not."""

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
        """Returns the bytes of a member, unpacked where its own name ends in .gz, .xz or .bz2."""
        found, name = self.members[member], f'{self.path}/{member}'
        with named(name):
            if found.start < 0 or found.pieces is not None:
                check_whole(found.size, name)
            if found.start < 0:
                with self.opened.lock:
                    data = self.zip.read(found.name)  # pyright: ignore[reportOptionalMemberAccess]
                part = Part(Bytes(data), 0, len(data))
            elif found.pieces is not None:
                data = filled(found, self.opened.read)
                part = Part(Bytes(data), 0, len(data))
            else:
                part = Part(self.opened, found.start, found.size)
            data = unpacked(part.read(), member, name) if suffix_of(member) in COMPRESSED else b''
        return Part(Bytes(data), 0, len(data)) if suffix_of(member) in COMPRESSED else part

    def __reduce__(self):
        return open_archive, (self.path,)


def open_archive(path: str) -> Archive:
    """Returns the archive at `path`, opened once for all that is read from it."""
    status = os.stat(path) if is_local(path) else None
    return cached_archive(path, (status.st_mtime_ns, status.st_size) if status else ())


@functools.lru_cache(maxsize=8)
def cached_archive(path: str, version: tuple) -> Archive:
    """Returns an archive; `version` makes a file that was replaced another one."""
    return Archive(path)


def check_whole(size: int, name: str) -> None:
    """Raises a `UserError` for a file that is too large to be read whole."""
    if size > WHOLE:
        raise UserError(f'{name} has {size:,} bytes; at most {WHOLE:,} are read of one file')


def unpacked(data: bytes, path: str, name: str) -> bytes:
    """Returns the bytes of a file, unpacked where its name ends in .gz, .xz or .bz2.

    Raises:
      UserError: where it would unpack to more than 2 GiB.
    """
    opener = COMPRESSED.get(suffix_of(path))
    if opener is None:
        return data
    found = opener(io.BytesIO(data)).read(WHOLE + 1)
    check_whole(len(found), name)
    return found


def check_regular(path: str) -> None:
    """Raises a `UserError` for a local path that is a pipe, a socket or a device, which might never end."""
    if is_local(path) and refusal(path) == 'special' and not os.path.isdir(path):
        raise UserError(f'{path} is not a regular file')


def open_part(entry: Entry) -> Part:
    """Returns the (unpacked) bytes of a file that was found, for reading at random."""
    if entry.member:
        return open_archive(entry.path).part(entry.member)
    opened = Opened(entry.path)
    return Part(opened, 0, opened.size)


def read_bytes(entry: Entry) -> bytes:
    """Returns all bytes of a file that was found, unpacked."""
    if entry.member:
        return open_archive(entry.path).part(entry.member).read()
    with named(entry.name):
        check_regular(entry.path)
        if is_local(entry.path):
            check_whole(os.stat(entry.path).st_size, entry.name)
        return unpacked(epath.Path(entry.path).read_bytes(), entry.path, entry.name)


def head_of(entry: Entry, size: int) -> bytes:
    """Returns the first bytes of a file, b'' where it cannot be read."""
    try:
        if entry.member or suffix_of(entry.path) in COMPRESSED or not is_local(entry.path):
            return read_bytes(entry)[:size]
        check_regular(entry.path)
        with open(entry.path, 'rb') as file:
            return file.read(size)
    except (UserError, OSError):
        return b''


def split_paths(paths: str | tuple) -> list[str]:
    """Returns paths written as 'a, b' or as a tuple."""
    return [part.strip() for part in (paths.split(',') if isinstance(paths, str) else paths) if part.strip()]


def find(paths: str | tuple, setting: str) -> list[Entry]:
    """Returns the files at paths; see `find_all`."""
    return find_all(paths, setting)[0]


def find_all(paths: str | tuple, setting: str) -> tuple[list[Entry], list[LeftOut]]:
    """Returns the files at paths, patterns ('data/*.jsonl'), folders and inside archives, in order; and what is not.

    Args:
      paths: 'a,b' or a tuple; `~` and `$NAME` are replaced.
      setting: 'config.data.train', for messages.

    Raises:
      UserError: where there is nothing, with the nearest name that is there.
    """
    found: list[Entry] = []
    left_out: list[LeftOut] = []
    for text in split_paths(paths):
        path = os.path.expanduser(os.path.expandvars(text))
        unset = re.search(r'\$\{?(\w+)', path)
        if unset:
            raise UserError(f'{setting}={text!r}: the environment variable {unset[1]} is not set')
        if '\0' in path:
            raise UserError(f'{setting}={text!r}: a path holds no null character')
        entries, others = find_in_archive(path)
        if not entries and not others:
            entries, others = find_outside(path)
        if not entries:
            raise UserError(f'{setting}={text!r}: {absence(path)}')
        found += entries
        left_out += others
    if not found:
        raise UserError(f'{setting} is empty: name a file, a folder or a pattern such as data/*.jsonl')
    return found, left_out


def fixed_part(path: str) -> str:
    """Returns the folders of a path before its first pattern: '/data' of '/data/*/1.png', else all of it."""
    parts = path.split('/')
    return '/'.join(itertools.takewhile(lambda part: not glob.has_magic(part), parts))


def below(name: str, root: str) -> str:
    """Returns the path of a file below what was asked for, or its own name where it was asked for by name."""
    rest = name[len(root) :] if name.startswith(root) else name
    return rest.strip('/') or name.rpartition('/')[2]


def find_outside(path: str) -> tuple[list[Entry], list[LeftOut]]:
    """Returns the files at a path or pattern outside archives; a folder stands for all files below it."""
    root = fixed_part(path.replace(os.sep, '/'))
    files: list[Any] = []
    left_out: list[LeftOut] = []
    for place in expand_pattern(path):
        if epath.Path(place).is_dir():
            inside, others = walk(place) if is_local(place) else (sorted(files_below(epath.Path(place))), [])
            files += inside
            left_out += others
        elif epath.Path(place).exists():
            files.append(place)
    entries = []
    for file in files:
        name = os.fspath(file).replace(os.sep, '/')
        if is_hidden(below(name, root)):
            left_out.append(LeftOut('hidden', name))
        else:
            entries.append(Entry(printable(name), below(name, root), name))
    return entries, left_out


def files_below(folder: epath.Path) -> Iterator[epath.Path]:
    """Yields all files of a folder and the folders in it (epath itself has no recursive pattern)."""
    for each in folder.iterdir():
        if each.is_dir():
            yield from files_below(each)
        else:
            yield each


def expand_pattern(path: str) -> list[str]:
    """Returns the files and folders that a pattern fits; a path without *, ? or [ as it is."""
    if not glob.has_magic(path) or (is_local(path) and os.path.exists(path)):
        return [path]
    if is_local(path):
        return sorted(glob.glob(path, recursive=True))
    root = fixed_part(path)
    return sorted(os.fspath(each) for each in epath.Path(root).glob(path[len(root) :].strip('/')))


def find_in_archive(path: str) -> tuple[list[Entry], list[LeftOut]]:
    """Returns the members that a path into an archive names; nothing where it leads into none."""
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
    """Returns whether a member is what a path or pattern within its archive names, or lies below it."""
    return not inner or name == inner or name.startswith(inner + '/') or fnmatch.fnmatchcase(name, inner)


def absence(path: str) -> str:
    """Returns why there is no file at a path, and what to do."""
    if is_local(path) and os.path.isdir(path):
        return 'the folder holds no file (hidden ones do not count)'
    return f'there is no such file; {neighbours(path)}'


def neighbours(path: str) -> str:
    """Returns a hint for a path that is not there: the nearest name in the deepest folder that is."""
    match = ARCHIVE.match(path)
    if match and os.path.isfile(match[1]):
        return f'in {match[1]} {nearest(match[2] or "", list(open_archive(match[1]).members)[:20])}'
    if not is_local(path):
        return 'look it up in the bucket'
    folder, name = os.path.split(path.rstrip('/'))
    while folder and not os.path.isdir(folder):
        folder, name = os.path.split(folder)
    there = sorted(os.listdir(folder or '.'), key=lambda each: each[:1] != name[:1])
    return f'in {folder or "this folder"} {nearest(name, there[:30])}'
