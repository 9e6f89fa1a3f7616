"""One file from a URL or a folder to its place: resumed, checked by its SHA-256, moved there in one step."""

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

CHUNK = 1 << 18  # bytes
TIMEOUT = (15, 60)  # seconds to connect, and between two chunks
EXCESS, HEADS = 4, 1 << 20  # an archive may be this many times and bytes larger than expected
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
Advance = Callable[[int], None]  # is called with the number of bytes that came, negative where they came in vain


class Failed(Exception):
    """A file that could not be had; its text is the reason."""


class Missing(Failed):
    """A place that has no such file."""


@contextlib.contextmanager
def progress_bar(name: str, total: int) -> Iterator[Advance]:
    """Shows bytes, speed and the time left on stderr; gives the function that advances it."""
    from rich import console, progress

    columns = (
        progress.TextColumn('{task.description}'), progress.BarColumn(), progress.DownloadColumn(),
        progress.TransferSpeedColumn(), progress.TimeRemainingColumn(),
    )  # fmt: skip
    with progress.Progress(*columns, console=console.Console(stderr=True)) as shown:
        task = shown.add_task(name, total=total)
        yield lambda count: shown.advance(task, count)
        shown.update(task, completed=total)


def obtain(file: File, places: Sequence[str], folder: str, advance: Advance) -> None:
    """Puts a file into its folder from the first of `places` (URLs or paths) that has it.

    A transfer that broke off leaves '<path>.part', from which the next one continues.

    Raises:
      Failed: where no place has it, the connection breaks, or its content is not the recorded one.
      OSError: where the folder cannot be written.
    """
    missing = []
    for place in places:
        try:
            return obtain_from(file, place, folder, advance)
        except Missing as error:
            missing.append(error)
    raise missing[0]


def obtain_from(file: File, place: str, folder: str, advance: Advance) -> None:
    """Puts a file into its folder from one place; a resumed transfer with a wrong hash is done again from the start."""
    pooch.get_logger().setLevel(logging.WARNING)
    target = pathlib.Path(folder, file.path)
    part = target.with_name(f'{target.name}.part')

    def download(url: Any, output: Any, _: Any) -> None:
        unpack(part, url, pathlib.Path(output), file)

    downloader: Any = download  # what pooch calls has other names than its annotation
    resumed = part.exists()
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        transfer(place, part, file, advance)  # before `retrieve`, whose temporary file a killed process leaves behind
        pooch.retrieve(place, f'sha256:{file.sha256}', target.name, target.parent, downloader=downloader)
    except (ValueError, Failed) as error:
        if isinstance(error, Missing) or (isinstance(error, Failed) and part.exists()):
            raise  # not there, or the connection broke: the rest comes next time
        if resumed:
            part.unlink(missing_ok=True)
            return obtain_from(file, place, folder, advance)
        if isinstance(error, Failed):
            raise
        actual = re.search(r'but got (\w+)', str(error))
        raise Failed(
            f'{place} has another content than expected (SHA-256 {actual[1] if actual else "differs"}, expected '
            f'{file.sha256})'
        ) from None
    os.chmod(target, 0o644)  # a temporary file is its owner's alone


def transfer(place: str, part: pathlib.Path, file: File, advance: Advance) -> None:
    """Brings the bytes at a URL or path to `part`, after those that are there."""
    packed = is_packed(place, file)
    limit = EXCESS * (file.transfer or file.size) + HEADS if packed else file.size
    if not place.startswith(('http://', 'https://')):
        path = pathlib.Path(place.removeprefix('file://'))
        if not path.is_file():
            raise Missing(f'there is no file {path}')
        with open(path, 'rb') as source, open(part, 'wb') as output:
            copy(iter(lambda: source.read(CHUNK), b''), output, 0, limit, place, advance)
        size = part.stat().st_size
    else:
        size = transfer_whole(place, part, file, limit, advance)
    if not packed and size != file.size:
        part.unlink()
        raise Failed(f'{place} has {size:,} bytes, expected {file.size:,}')


def transfer_whole(url: str, part: pathlib.Path, file: File, limit: int, advance: Advance) -> int:
    """Requests what is missing for as long as each request brings bytes; gives how many there are."""
    before, size, reason = -1, 0, ''
    advance(part.stat().st_size if part.exists() else 0)
    while size > before:
        before = size
        try:
            transfer_once(url, part, limit, advance)
            reason = ''
        except BROKEN as error:
            reason = brief(error)
        size = part.stat().st_size if part.exists() else 0
        if not reason and (is_packed(url, file) or size == file.size):
            return size
    if reason:
        raise Failed(f'no connection to {url} ({reason}), {size:,} bytes have come')
    return size


def transfer_once(url: str, part: pathlib.Path, limit: int, advance: Advance) -> None:
    """One request, for the bytes that are missing; a server that ignores the range sends all of them."""
    start = part.stat().st_size if part.exists() else 0
    headers = {'Accept-Encoding': 'identity'} | ({'Range': f'bytes={start}-'} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing is left: complete, or the part of something else; the hash tells
            return
        if response.status_code in (404, 410):
            raise Missing(f'{url} answers {response.status_code}: there is no such file')
        if response.status_code >= 400:
            raise Failed(f'{url} answers {response.status_code} {response.reason}')
        going_on = response.status_code == 206 and start
        if not going_on:
            advance(-start)
        with open(part, 'ab' if going_on else 'wb') as output:
            copy(response.iter_content(CHUNK), output, start if going_on else 0, limit, url, advance)


def copy(chunks: Iterator[bytes], output: Any, size: int, limit: int, place: str, advance: Advance) -> None:
    """Writes chunks to a file until it would be larger than expected."""
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            output.close()
            os.unlink(output.name)
            raise Failed(f'{place} has more bytes than expected ({limit:,})')
        output.write(chunk)
        advance(len(chunk))


def is_packed(place: str, file: File) -> bool:
    """Whether what comes from a place is an archive, or compressed where the file is not."""
    return bool(file.members) or (place.endswith('.gz') and not file.path.endswith('.gz'))


def unpack(part: pathlib.Path, place: str, output: pathlib.Path, file: File) -> None:
    """Makes the file as it is kept from what was transferred."""
    if not is_packed(place, file):
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
        raise Failed(f'{place} is no sound archive ({brief(error)})') from None
    part.unlink()


def pack_members(archive: pathlib.Path, output: pathlib.Path, file: File) -> None:
    """Writes the members of a tar that match into an uncompressed tar: sorted by name, without owners and times."""
    with tarfile.open(archive) as source, tarfile.open(output, 'w', format=tarfile.USTAR_FORMAT) as target:
        members, total = {}, 0
        for member in source:
            match = re.search(file.members, member.name)
            content = source.extractfile(member) if match and member.isfile() else None
            if match and content:
                total += member.size
                if total > file.size:
                    raise tarfile.TarError(f'its files have more than the expected {file.size:,} bytes')
                members[match[0]] = content.read()
        for name in sorted(members):
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(members[name]), 0o644
            target.addfile(header, io.BytesIO(members[name]))


def brief(error: Exception) -> str:
    """The innermost reason of an error, on one line: 'Connection refused'."""
    while error.args and isinstance(error.args[-1], Exception) or getattr(error, 'reason', None):
        inner = getattr(error, 'reason', None) or error.args[-1]
        if not isinstance(inner, Exception):
            break
        error = inner
    text = re.sub(r'<[^>]*>:? ?|^\w+\(host=[^)]*\): ', '', str(error)).strip()
    return text or type(error).__name__
