"""Lists the files of a folder: regular files, each once, and those left out with the reason."""

import os
import stat
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from research.data.readers.fields import printable, some

SYSTEM = ('__MACOSX', 'Thumbs.db', 'ehthumbs.db', 'desktop.ini', '$RECYCLE.BIN', 'System Volume Information')
Reason = Literal['hidden', 'linked', 'special', 'closed', 'sparse', 'format']
WORDS = {
    'hidden': 'hidden or system files',
    'linked': 'links that lead nowhere, out of the archive, or to a folder that is read already',
    'special': 'pipes, sockets or devices',
    'closed': 'folders that may not be read',
    'format': 'files in a format that is not read',
}


class LeftOut(NamedTuple):
    """A file or folder that is not read, and the reason."""

    reason: Reason
    name: str


class Note(NamedTuple):
    """A remark on opened files for people: a 'warning' or a 'note'."""

    level: Literal['note', 'warning']
    text: str


def notes_of(left_out: Iterable[LeftOut]) -> tuple[Note, ...]:
    """One note per reason, with the count and the first names."""
    groups: dict[str, list[str]] = {}
    for item in left_out:
        groups.setdefault(item.reason, []).append(item.name)
    return tuple(
        Note('note' if reason == 'hidden' else 'warning', f'{len(names):,} {WORDS[reason]} left out: {listed(names)}')
        for reason, names in groups.items()
    )


def listed(names: Sequence[str]) -> str:
    """The first names, shortened to the last parts of their paths."""
    return some('/'.join(printable(name).rsplit('/', 2)[-2:]) for name in names[:3]) + (
        f' and {len(names) - 3:,} more' if len(names) > 3 else ''
    )


def is_hidden(name: str) -> bool:
    """Whether a part of a path is hidden or created by file managers ('.DS_Store', 'Thumbs.db')."""
    return any(part.startswith('.') and part not in ('.', '..') or part in SYSTEM for part in name.split('/'))


def walk(root: str) -> tuple[list[str], list[LeftOut]]:
    """All regular files below a local folder, sorted, and those left out.

    A folder that is also reachable through a symbolic link is read once, under its own name. Links to folders above
    `root` are not followed, because they would include its siblings.
    """
    files: list[str] = []
    left_out: list[LeftOut] = []
    real_root = os.path.realpath(root)
    seen, links = {real_root}, []
    folders = [root]
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        if os.path.islink(folder) and folder != root:
            real = os.path.realpath(folder)
            if real in seen or (real_root + os.sep).startswith(real.rstrip(os.sep) + os.sep):
                left_out.append(LeftOut('linked', folder))
                continue
            seen.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            left_out.append(LeftOut('closed', folder))
            continue
        for entry in entries:
            if is_hidden(entry.name):
                left_out.append(LeftOut('hidden', entry.path))
            elif is_folder(entry.path):
                if entry.is_symlink():
                    links.append(entry.path)
                else:
                    folders.append(entry.path)
                    seen.add(os.path.realpath(entry.path))
            elif (reason := refusal(entry.path)) is not None:
                left_out.append(LeftOut(reason, entry.path))
            else:
                files.append(entry.path)
    return sorted(files), left_out


def is_folder(path: str) -> bool:
    """Whether a path is a folder or a link to one; False for a link to itself."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False


def refusal(path: str) -> Reason | None:
    """The reason why a local path is not a readable regular file, or None if it is."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return 'linked'
    return None if stat.S_ISREG(mode) else 'special'
