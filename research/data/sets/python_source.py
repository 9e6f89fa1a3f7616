"""The standard library of the running interpreter, source and docstrings: a corpus that is always there.

Source: the .py files of the interpreter. Licence: that of Python (PSF). Splits: 90/5/5 by the hash of each module's
name. Oddities: another version of Python has other modules; tests, tables and exact duplicates are left out.
"""

import functools
import hashlib
import os
import pathlib
import platform
import sysconfig

from research.data.dataset import DataSet
from research.data.readers.rows import Rows, in_memory
from research.errors import UserError

SKIPPED_FOLDERS = frozenset(('site-packages', 'dist-packages', 'test', 'tests', 'idle_test', '__pycache__'))
# generated tables and quotations: not written as source, and near copies that would leak between splits
SKIPPED_MODULES = ('encodings/', 'pydoc_data/', '_sysconfigdata', 'config-')
SHARES = {'train': 0.9, 'validation': 0.05, 'test': 0.05}


def open(megabytes: float = 6.0, folder: str = '') -> DataSet:
    """Opens the set; a row is {'text', 'name': 'json/decoder.py'}.

    Args:
      megabytes: about as much text is taken, shared 90/5/5 among train, validation and test; 0: all.
      folder: of the library; '': that of the running interpreter.

    Raises:
      UserError: for a negative size.
    """
    if megabytes < 0:
        raise UserError(f'config.data.megabytes must be zero (all) or more, got {megabytes}')
    library = functools.cache(functools.partial(read_library, folder, megabytes))
    about = f'standard library of {platform.python_implementation()} {platform.python_version()}'
    return DataSet(lambda split: library()[split], about, fields=('text', 'name'))


def read_library(folder: str, megabytes: float) -> dict[str, Rows]:
    """Returns the modules of the standard library by split, exact duplicates removed.

    Which modules are taken, and where each goes, depends on names and contents alone, never on the order of
    a disk. A module is in one split; of equal texts the whole corpus keeps one, that of the first name.

    Raises:
      UserError: where the interpreter comes without source.
    """
    root = pathlib.Path(os.path.expanduser(os.path.expandvars(folder)) or sysconfig.get_paths()['stdlib'])
    modules = without_duplicates(read_modules(root))
    parts = {}
    for split, share in SHARES.items():
        names = sorted((name for name in modules if split_of(name) == split), key=hash_of)
        chosen = take(names, modules, megabytes * 1e6 * share)
        if not chosen:
            raise UserError(
                f'{root} holds too little Python source for a {split} split: install the standard library of '
                'this interpreter as .py files'
            )
        rows = [{'text': modules[name], 'name': name} for name in chosen]
        parts[split] = in_memory(rows, f'{root}, {split}')
    return parts


def read_modules(root: pathlib.Path) -> dict[str, str]:
    """Returns {'json/decoder.py': text} of every module below `root` that is UTF-8 and not empty."""
    modules = {}
    for path in root.rglob('*.py'):
        relative = path.relative_to(root)
        name = relative.as_posix()
        if SKIPPED_FOLDERS.intersection(relative.parts) or name.startswith(SKIPPED_MODULES):
            continue
        try:
            text = path.read_bytes().decode('utf-8').replace('\r\n', '\n')
        except (UnicodeDecodeError, OSError):
            continue
        if text.strip():
            modules[name] = text
    return modules


def without_duplicates(modules: dict[str, str]) -> dict[str, str]:
    """Returns the modules in order of name, without any whose text an earlier one has."""
    names = {}
    for name in sorted(modules):
        names.setdefault(modules[name], name)
    return {name: text for text, name in names.items()}


def hash_of(name: str) -> int:
    """Returns the first 64 bits of the SHA-256 of a module's name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'big')


def split_of(name: str) -> str:
    """Returns the split a module belongs to: a function of its name alone."""
    point = hash_of('split ' + name) / 2**64
    if point < SHARES['train']:
        return 'train'
    return 'validation' if point < SHARES['train'] + SHARES['validation'] else 'test'


def take(names: list[str], modules: dict[str, str], most: float) -> list[str]:
    """Returns, in order, the modules that fit into `most` bytes (0: all); the smallest where none does."""
    if not most or not names:
        return names
    taken, size = [], 0
    for name in names:
        more = len(modules[name].encode())
        if size + more <= most:
            taken.append(name)
            size += more
    return taken or [min(names, key=lambda name: len(modules[name]))]
