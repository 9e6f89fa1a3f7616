"""The standard library of the running interpreter, code and docstrings: a corpus that is always available.

Source: the .py files of the interpreter. Licence: that of Python (PSF). Splits: 90/5/5 by the hash of each module's
name. Oddities: the modules depend on the Python version; tests, tables and exact duplicates are left out.
"""

import functools
import hashlib
import os
import pathlib
import platform
import sysconfig

from research.data.dataset import DataSet
from research.data.readers.rows import Rows, in_memory
from research.errors import NonNegative, UserError

SKIPPED_FOLDERS = frozenset(('site-packages', 'dist-packages', 'test', 'tests', 'idle_test', '__pycache__'))
# Generated tables and quotations are not code, and near copies of them would leak between splits.
SKIPPED_MODULES = ('encodings/', 'pydoc_data/', '_sysconfigdata', 'config-')
SHARES = {'train': 0.9, 'validation': 0.05, 'test': 0.05}


def open(megabytes: NonNegative = 6.0, folder: str = '') -> DataSet:
    """Opens the set; a row is {'text', 'name': 'json/decoder.py'}.

    Args:
      megabytes: approximate size of the corpus, split 90/5/5 into train, validation and test; 0 for all.
      folder: of the library; '' for that of the running interpreter.
    """
    library = functools.cache(functools.partial(read_library, folder, megabytes))
    about = f'standard library of {platform.python_implementation()} {platform.python_version()}'
    return DataSet(lambda split: library()[split], about, fields=('text', 'name'))


def read_library(folder: str, megabytes: float) -> dict[str, Rows]:
    """Reads the modules of the standard library by split, without exact duplicates.

    The choice and the split of modules depend only on names and contents, not on the order of a directory listing. Of
    equal texts, only the first by name is kept.

    Raises:
      UserError: if the interpreter has no source files.
    """
    root = pathlib.Path(os.path.expanduser(os.path.expandvars(folder)) or sysconfig.get_paths()['stdlib'])
    modules = without_duplicates(read_modules(root))
    parts = {}
    for split, share in SHARES.items():
        names = sorted((name for name in modules if split_of(name) == split), key=hash_of)
        chosen = take(names, modules, megabytes * 1e6 * share)
        if not chosen:
            raise UserError(
                f'{root} has too little Python source for a {split} split: install the standard library of '
                'this interpreter as .py files'
            )
        rows = [{'text': modules[name], 'name': name} for name in chosen]
        parts[split] = in_memory(rows, f'{root}, {split}')
    return parts


def read_modules(root: pathlib.Path) -> dict[str, str]:
    """Reads {'json/decoder.py': text} of every non-empty UTF-8 module below `root`."""
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
    """Removes modules whose text equals that of an earlier name; sorted by name."""
    names = {}
    for name in sorted(modules):
        names.setdefault(modules[name], name)
    return {name: text for text, name in names.items()}


def hash_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'big')


def split_of(name: str) -> str:
    """The split of a module, a function of its name alone."""
    point = hash_of('split ' + name) / 2**64
    if point < SHARES['train']:
        return 'train'
    return 'validation' if point < SHARES['train'] + SHARES['validation'] else 'test'


def take(names: list[str], modules: dict[str, str], max_bytes: float) -> list[str]:
    """Takes the leading modules that fit into `max_bytes` (0: all); at least the smallest one."""
    if not max_bytes or not names:
        return names
    taken, size = [], 0
    for name in names:
        more = len(modules[name].encode())
        if size + more <= max_bytes:
            taken.append(name)
            size += more
    return taken or [min(names, key=lambda name: len(modules[name]))]
