"""The standard library of the running interpreter, source and docstrings: a corpus that is always there."""

import functools
import hashlib
import io
import pathlib
import platform
import sysconfig
import token
import tokenize
from collections.abc import Callable

from research.data.text.corpus import Corpus
from research.errors import UserError

SKIPPED_FOLDERS = frozenset(('site-packages', 'dist-packages', 'test', 'tests', 'idle_test', '__pycache__'))
# generated tables and quotations: not written as source, and near copies that would leak between splits
SKIPPED_MODULES = ('encodings/', 'pydoc_data/', '_sysconfigdata', 'config-')
SHARES = {'train': 0.9, 'validation': 0.05, 'test': 0.05}


def python_source(megabytes: float = 6.0, folder: str = '') -> Callable[[], Corpus]:
    """Checks the settings of this corpus and returns the function that reads it.

    Args:
      megabytes: about as much text is taken, shared 90/5/5 among train, validation and test; 0: all.
      folder: where the library lies; '': that of the running interpreter.

    Raises:
      UserError: for a negative size.
    """
    if megabytes < 0:
        raise UserError(f'config.data.megabytes must be zero (all) or more, got {megabytes}')
    return functools.partial(read_library, pathlib.Path(folder or sysconfig.get_paths()['stdlib']), megabytes)


def read_library(root: pathlib.Path, megabytes: float) -> Corpus:
    """Returns modules of the standard library, split by the hash of their names, exact duplicates removed.

    Which modules are taken, and where each goes, depends on names and contents alone, never on the order of
    a disk. A module is in one split; of equal texts the whole corpus keeps one, that of the first name.

    Raises:
      UserError: where the interpreter comes without source.
    """
    modules = without_duplicates(read_modules(root))
    chosen = {}
    for split, share in SHARES.items():
        names = sorted((name for name in modules if split_of(name) == split), key=hash_of)
        chosen[split] = take(names, modules, megabytes * 1e6 * share)
        if not chosen[split]:
            raise UserError(
                f'{root} holds too little Python source for a {split} split: install the standard library of '
                'this interpreter as .py files'
            )
    documents = {split: tuple(modules[name] for name in names) for split, names in chosen.items()}
    about = {
        'corpus': 'standard library of the running interpreter',
        'interpreter': f'{platform.python_implementation()} {platform.python_version()}',
        'sha256': corpus_hash(chosen, modules),
        'modules': {split: len(names) for split, names in chosen.items()},
        'bytes': {split: sum(len(text.encode()) for text in texts) for split, texts in documents.items()},
    }
    return Corpus(documents, about)


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


def corpus_hash(chosen: dict[str, list[str]], modules: dict[str, str]) -> str:
    """Returns the SHA-256 of every split, name and text in use."""
    digest = hashlib.sha256()
    for split, names in chosen.items():
        for name in names:
            digest.update(f'{split}\0{name}\0{modules[name]}\0'.encode())
    return digest.hexdigest()


def whole_lines(text: str) -> list[str]:
    """Returns the lines of a passage that begin and end in it and are not blank, without their indentation.

    The first and the last may be parts of lines; indentation says nothing about a line on its own.
    """
    return [line.strip() for line in text.split('\n')[1:-1] if line.strip()]


def is_python_line(line: str) -> bool:
    """Returns whether the running interpreter's `tokenize` accepts a line on its own.

    A line may leave a bracket or a triple quote open, as the first line of a longer statement does. It may
    not hold a character that starts no token, or leave a string open. Lines inside a docstring are judged as
    if they were code, so even real source is not wholly accepted: read the share beside that of the corpus.
    """
    formats = 0  # f-strings open here; since 3.12 their parts are tokens
    try:
        for part in tokenize.generate_tokens(io.StringIO(line.strip() + '\n').readline):
            kind = token.tok_name[part.type]
            formats += (kind == 'FSTRING_START') - (kind == 'FSTRING_END')
            if part.type == token.ERRORTOKEN or part.type == token.NAME and not part.string.isidentifier():
                return False
            # since 3.12 stray characters such as $ and ? come as operators, and ! is one within an f-string
            stray = part.string not in token.EXACT_TOKEN_TYPES or part.string == '!' and not formats
            if part.type == token.OP and stray:
                return False
    except tokenize.TokenError as error:
        return 'EOF in multi-line' in str(error.args[0])
    except (SyntaxError, ValueError):  # IndentationError is a SyntaxError
        return False
    return True


def python_lines(texts: list[str]) -> tuple[int, int]:
    """Returns how many of the whole lines of `texts` are Python, and how many there are."""
    lines = [line for text in texts for line in whole_lines(text)]
    return sum(map(is_python_line, lines)), len(lines)
