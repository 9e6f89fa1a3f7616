"""Fetches the files of public data sets on first use and locates them.

    folder = fetch(SOURCE)      # SOURCE of a module in research/data/sets/

    TESSERA_DATA     a folder with one subfolder per data set, used as is if it has the files
    TESSERA_MIRROR   a base URL or a folder with <set>/<file>, used instead of the original URLs
    TESSERA_FETCH    0 disables fetching (--nofetch)

Without TESSERA_DATA, files are stored in tessera/data below the user's cache folder and verified against their
SHA-256 on every use.
"""

import contextlib
import os
import pathlib
import stat
import sys
import tempfile
from collections.abc import Sequence

import platformdirs
from etils import epath

from research.data.source import File, Source
from research.errors import UserError


def cache_folder() -> pathlib.Path:
    """This program's folder in the user's cache folder, or in the temporary folder if the user has no home."""
    if os.environ.get('XDG_CACHE_HOME'):
        return pathlib.Path(os.environ['XDG_CACHE_HOME']) / 'tessera'
    with contextlib.suppress(RuntimeError):  # some releases raise it, others return a relative path
        folder = platformdirs.user_cache_path('tessera', appauthor=False)
        if folder.is_absolute():
            return folder
    user = os.getuid() if hasattr(os, 'getuid') else 'user'
    return pathlib.Path(tempfile.gettempdir()) / f'tessera-{user}'


def data_root() -> str:
    """The folder with one subfolder per data set: $TESSERA_DATA, or one in the user's cache folder."""
    return os.path.expanduser(os.environ.get('TESSERA_DATA', '').rstrip('/')) or str(cache_folder() / 'data')


def folder_of(source: Source, folder: str = '') -> str:
    """The folder with the files of a data set, fetched if necessary.

    Args:
      source: the data set.
      folder: `config.data.folder`, used instead if set; `~` and `$NAME` are expanded.

    Raises:
      UserError: if the folder does not exist, or the files cannot be fetched.
    """
    if not folder:
        return fetch(source)
    given = os.path.expanduser(os.path.expandvars(folder))
    if not epath.Path(given).is_dir():
        raise UserError(f'config.data.folder={folder!r}: there is no such folder')
    return given


def located(folder: str, path: str) -> str:
    """Path of a file in a folder, or of its '.gz' version if only that exists."""
    plain = f'{folder}/{path}'
    return f'{plain}.gz' if not epath.Path(plain).exists() and epath.Path(f'{plain}.gz').exists() else plain


def present(folder: str, path: str) -> bool:
    """Whether a folder has a file or its '.gz' version."""
    return epath.Path(located(folder, path)).exists()


def complete(folder: str, source: Source) -> bool:
    """Whether a folder has all files of a set, or all prepared files that may replace them."""
    prepared = source.prepared and all(present(folder, path) for path in source.prepared)
    return bool(prepared) or all(present(folder, file.path) for file in source.files)


def missing_files(folder: str, source: Source) -> list[File]:
    """Files that a folder lacks; in the user's cache folder, also those that do not match their hash."""
    import pooch

    def intact(file: File) -> bool:
        path = pathlib.Path(folder, file.path)
        return path.is_file() and path.stat().st_size == file.size and pooch.file_hash(str(path)) == file.sha256

    if pathlib.Path(folder).parent == cache_folder() / 'data':
        return [file for file in source.files if not intact(file)]
    return [file for file in source.files if not present(folder, file.path)]


def present_folder(source: Source) -> str:
    """The folder that has all files of a set, or '' if any is missing; checks only names."""
    folders = [f'{data_root()}/{source.name}', str(cache_folder() / 'data' / source.name)]
    return next((folder for folder in folders if complete(folder, source)), '')


def fetch(source: Source) -> str:
    """Downloads the missing files of a data set and returns their folder.

    Prints source, size, licence and a progress bar to stderr. Several processes may call this at once: one downloads,
    the others wait.

    Raises:
      UserError: if fetching fails; lists the URL and hash of each missing file and the folder to put it in.
    """
    data_folder = f'{data_root()}/{source.name}'
    if os.environ.get('TESSERA_DATA') and complete(data_folder, source):
        return data_folder
    folder = data_folder if writable(data_folder) else str(cache_folder() / 'data' / source.name)
    missing = missing_files(folder, source)
    if not missing:
        return folder
    if os.environ.get('TESSERA_FETCH') == '0':
        raise UserError(missing_message(source, missing, folder, 'fetching is switched off (--nofetch)'))
    try:
        os.makedirs(folder, exist_ok=True)
        fetch_missing(source, folder)
    except OSError as error:  # such as a full disk or a read-only folder
        reason = f'{error.filename or folder}: {error.strerror or error}'
        raise UserError(missing_message(source, missing, folder, reason)) from error
    return folder


def fetch_missing(source: Source, folder: str) -> None:
    """Downloads the missing files, one process at a time."""
    import filelock

    from research.data import download

    lock = filelock.FileLock(f'{folder}/.lock')
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f'{source.name}: waiting for another process that is fetching it', file=sys.stderr, flush=True)
        lock.acquire()
    try:
        missing = missing_files(folder, source)
        if not missing:
            return
        print(summary(source, missing, folder), file=sys.stderr, flush=True)
        with download.progress_bar(source.name, sum(file.transfer or file.size for file in missing)) as advance:
            for file in missing:
                download.obtain(file, locations_of(source, file, folder), folder, advance)
    except download.Failed as error:
        raise UserError(missing_message(source, missing_files(folder, source), folder, str(error))) from None
    finally:
        lock.release()


def locations_of(source: Source, file: File, folder: str) -> list[str]:
    """Where to look for a file, in order: a '.gz' placed by hand, then the mirror if set, else the original URL."""
    by_hand = f'{folder}/{file.path}.gz'
    mirror = os.environ.get('TESSERA_MIRROR', '').rstrip('/')
    ends = ('',) if file.path.endswith('.gz') else ('', '.gz')
    origins = [f'{mirror}/{source.name}/{file.path}{end}' for end in ends] if mirror else [file.url]
    return [by_hand, *origins] if os.path.isfile(by_hand) else origins


def writable(folder: str) -> bool:
    """Whether a folder can be written or created; checks its mode too, which does not bind an administrator."""
    if '://' in folder:
        return False
    path = pathlib.Path(folder).absolute()
    while not path.exists():
        path = path.parent
    writing = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    return path.is_dir() and bool(path.stat().st_mode & writing) and os.access(path, os.W_OK)


def readable_size(size: int) -> str:
    """Formats bytes for people: '26 MB'."""
    for unit, power in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
        if size >= power:
            return f'{size / power:.{1 if size < 10 * power else 0}f} {unit}'
    return f'{size} bytes'


def summary(source: Source, files: Sequence[File], folder: str) -> str:
    """Describes what will be fetched: source, size, licence and folder."""
    size = readable_size(sum(file.transfer or file.size for file in files))
    return f'fetching {source.name}, {size}, from {source.homepage}\n  licence: {source.licence}\n  into {folder}'


def missing_message(source: Source, files: Sequence[File], folder: str, reason: str) -> str:
    """Lists the URL and hash of each missing file, and where to put it."""
    lines = [f'the data set {source.name} is not on this machine and was not fetched: {reason}']
    lines += [f'To fetch it by hand, put these files into {folder}:']
    for file in files:
        name = f'{file.path}.gz, the whole archive' if file.members else file.path
        lines += [f'  {name}: {file.url}', f'    sha256 {file.sha256}' + (' (when unpacked)' if file.members else '')]
    lines += [f'Or set TESSERA_DATA to a folder with {source.name}/{files[0].path}, or TESSERA_MIRROR to a mirror.']
    return '\n'.join(lines)
