"""Downloads one file: resumes a partial transfer, verifies the SHA-256, and moves the file into place atomically."""

import contextlib
import gzip
import io
import logging
import os
import pathlib
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pooch
import requests

from research.data.source import File

CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = (15, 60)  # to connect, and between two chunks
ARCHIVE_FACTOR, ARCHIVE_MARGIN = 4, 1 << 20  # limit of an archive: factor times its expected size plus bytes
CONNECTION_ERRORS = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
Advance = Callable[[int], None]  # called with the number of new bytes; negative for bytes that were discarded


class Failed(Exception):
    """A file that could not be obtained; the text is the reason."""


class Missing(Failed):
    """A location that does not have the file."""


@contextlib.contextmanager
def progress_bar(name: str, total: int) -> Iterator[Advance]:
    """Shows bytes, speed and remaining time on stderr; yields the function that advances it."""
    from rich import console, progress

    columns = (
        progress.TextColumn('{task.description}'), progress.BarColumn(), progress.DownloadColumn(),
        progress.TransferSpeedColumn(), progress.TimeRemainingColumn(),
    )  # fmt: skip
    with progress.Progress(*columns, console=console.Console(stderr=True)) as shown:
        task = shown.add_task(name, total=total)
        yield lambda count: shown.advance(task, count)
        shown.update(task, completed=total)


def obtain(file: File, locations: Sequence[str], folder: str, advance: Advance) -> None:
    """Puts a file into its folder from the first of `locations` (URLs or paths) that has it.

    An interrupted transfer leaves '<path>.part', from which the next one resumes.

    Raises:
      Failed: if no location has it, the connection breaks, or its content does not match the recorded hash.
      OSError: if the folder cannot be written.
    """
    missing = []
    for location in locations:
        try:
            return obtain_from(file, location, folder, advance)
        except Missing as error:
            missing.append(error)
    raise missing[0]


def obtain_from(file: File, location: str, folder: str, advance: Advance) -> None:
    """Puts a file into its folder from one location; restarts a resumed transfer if its hash is wrong."""
    pooch.get_logger().setLevel(logging.WARNING)
    target = pathlib.Path(folder, file.path)
    part = target.with_name(f'{target.name}.part')

    def download(url: Any, output: Any, _: Any) -> None:
        unpack(part, url, pathlib.Path(output), file)

    downloader: Any = download  # pooch annotates other parameter names than it passes
    resumed = part.exists()
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Transfer before `retrieve`, whose temporary file would remain if the process is killed.
        transfer(location, part, file, advance)
        pooch.retrieve(location, f'sha256:{file.sha256}', target.name, target.parent, downloader=downloader)
    except (ValueError, Failed) as error:
        if isinstance(error, Missing) or (isinstance(error, Failed) and part.exists()):
            raise  # missing, or the connection broke and the next attempt resumes
        if resumed:
            part.unlink(missing_ok=True)
            return obtain_from(file, location, folder, advance)
        if isinstance(error, Failed):
            raise
        actual = re.search(r'but got (\w+)', str(error))
        raise Failed(
            f'{location} has unexpected content (SHA-256 {actual[1] if actual else "differs"}, expected '
            f'{file.sha256})'
        ) from None
    os.chmod(target, 0o644)  # temporary files are readable by their owner only


def transfer(location: str, part: pathlib.Path, file: File, advance: Advance) -> None:
    """Appends the missing bytes at a URL or path to `part`."""
    packed = is_packed(location, file)
    limit = ARCHIVE_FACTOR * (file.transfer or file.size) + ARCHIVE_MARGIN if packed else file.size
    if not location.startswith(('http://', 'https://')):
        path = pathlib.Path(location.removeprefix('file://'))
        if not path.is_file():
            raise Missing(f'there is no file {path}')
        with open(path, 'rb') as source, open(part, 'wb') as output:
            copy(iter(lambda: source.read(CHUNK_BYTES), b''), output, 0, limit, location, advance)
        size = part.stat().st_size
    else:
        size = transfer_whole(location, part, file, limit, advance)
    if not packed and size != file.size:
        part.unlink()
        raise Failed(f'{location} has {size:,} bytes, expected {file.size:,}')


def transfer_whole(url: str, part: pathlib.Path, file: File, limit: int, advance: Advance) -> int:
    """Repeats requests as long as each brings more bytes; returns the size reached."""
    before, size, reason = -1, 0, ''
    advance(part.stat().st_size if part.exists() else 0)
    while size > before:
        before = size
        try:
            transfer_once(url, part, limit, advance)
            reason = ''
        except CONNECTION_ERRORS as error:
            reason = brief(error)
        size = part.stat().st_size if part.exists() else 0
        if not reason and (is_packed(url, file) or size == file.size):
            return size
    if reason:
        raise Failed(f'no connection to {url} ({reason}) after {size:,} bytes')
    return size


def transfer_once(url: str, part: pathlib.Path, limit: int, advance: Advance) -> None:
    """Requests the missing bytes once; a server that ignores the range sends the whole file."""
    start = part.stat().st_size if part.exists() else 0
    headers = {'Accept-Encoding': 'identity'} | ({'Range': f'bytes={start}-'} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code == 416:  # nothing left: complete, or part of another file, which the hash detects
            return
        if response.status_code in (404, 410):
            raise Missing(f'{url} answers {response.status_code}: no such file')
        if response.status_code >= 400:
            raise Failed(f'{url} answers {response.status_code} {response.reason}')
        resuming = response.status_code == 206 and start
        if not resuming:
            advance(-start)
        with open(part, 'ab' if resuming else 'wb') as output:
            copy(response.iter_content(CHUNK_BYTES), output, start if resuming else 0, limit, url, advance)


def copy(chunks: Iterator[bytes], output: Any, size: int, limit: int, location: str, advance: Advance) -> None:
    """Writes chunks to a file; fails if it grows beyond `limit`."""
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            output.close()
            os.unlink(output.name)
            raise Failed(f'{location} has more bytes than expected ({limit:,})')
        output.write(chunk)
        advance(len(chunk))


def is_packed(location: str, file: File) -> bool:
    """Whether a location serves an archive, or a compressed version of the file."""
    return bool(file.members) or (location.endswith('.gz') and not file.path.endswith('.gz'))


def unpack(part: pathlib.Path, location: str, output: pathlib.Path, file: File) -> None:
    """Converts the transferred bytes to the file that is stored."""
    if not is_packed(location, file):
        os.replace(part, output)
        return
    try:
        if file.members:
            pack_members(part, output, file)
        else:
            with gzip.open(part) as source, open(output, 'wb') as target:
                shutil.copyfileobj(io.BytesIO(source.read(file.size + 1)), target)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        part.unlink()
        raise Failed(f'{location} is not a valid archive ({brief(error)})') from None
    part.unlink()


def pack_members(archive: pathlib.Path, output: pathlib.Path, file: File) -> None:
    """Writes the matching members of a tar into an uncompressed tar, sorted by name, without owners or times."""
    with tarfile.open(archive) as source, tarfile.open(output, 'w', format=tarfile.USTAR_FORMAT) as target:
        members, total = {}, 0
        for member in source:
            match = re.search(file.members, member.name)
            content = source.extractfile(member) if match and member.isfile() else None
            if match and content:
                total += member.size
                if total > file.size:
                    raise tarfile.TarError(f'its files exceed the expected {file.size:,} bytes')
                members[match[0]] = content.read()
        for name in sorted(members):
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(members[name]), 0o644
            target.addfile(header, io.BytesIO(members[name]))


def brief(error: Exception) -> str:
    """The innermost cause of an error on one line, such as 'Connection refused'."""
    while error.args and isinstance(error.args[-1], Exception) or getattr(error, 'reason', None):
        inner = getattr(error, 'reason', None) or error.args[-1]
        if not isinstance(inner, Exception):
            break
        error = inner
    text = re.sub(r'<[^>]*>:? ?|^\w+\(host=[^)]*\): ', '', str(error)).strip()
    return text or type(error).__name__
