"""Writes docs/data_sets.md: the data set, size and licence of each config.

    python -m launch.data_table
"""

import inspect
import pathlib
import re
from typing import Any

import launch.flags

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENT = 'docs/data_sets.md'
HEAD = """# Data sets

Nothing needs to be downloaded by hand. Training, evaluation and `check_data` fetch what they read on first use, print
its source, size and licence, and compare every file with its recorded SHA-256. `--nofetch` forbids that.

    python -m launch.fetch --list             # all sets, and where they are on this machine
    python -m launch.fetch sst2 fashion_mnist # now, for a machine without a network later

| variable | effect |
| --- | --- |
| `TESSERA_DATA` | a folder with one subfolder per set; files that are present are used, others are fetched into it |
| `TESSERA_MIRROR` | a URL or folder with `<set>/<file>`, used instead of the original URLs |
| `TESSERA_FETCH` | `0` has the effect of `--nofetch` in your own programs |
| `XDG_CACHE_HOME` | without `TESSERA_DATA`, files are kept in `tessera/data` below this, or else in the user's cache |

Several processes may start at once: one fetches, the others wait. An interrupted transfer resumes. Without a
network, the message names each missing file with its URL, its SHA-256 and the folder to put it in.

This page is written by `python -m launch.data_table`.

## What each config reads

| config | data set | fetched | licence |
| --- | --- | --- | --- |
"""
SETS = """
## All public sets

Each is pinned to a commit of its repository. `TESSERA_DATA` and mirrors have the same subfolders.

| set | fetched | subfolder | licence | source | remarks |
| --- | --- | --- | --- | --- | --- |
"""


def main(overrides: dict[str, str]) -> None:
    """Writes the document."""
    del overrides
    (ROOT / DOCUMENT).write_text(document(), encoding='utf-8')
    print(DOCUMENT)


def document() -> str:
    """Generates the document from the configs and the sources of the sets."""
    from research.data.fetch import readable_size
    from research.data.public_sets import all_sources

    files = [file for file in sorted((ROOT / 'configs').rglob('*.py')) if file.stem != '__init__']
    names = [file.relative_to(ROOT).as_posix() for file in files]
    configs = [f'| `{name}` | {" | ".join(config_row(name))} |\n' for name in names]
    sets = [
        f'| `{name}` | {readable_size(source.size)} | `{source.name}` | {source.licence} | '
        f'[{source.homepage.removeprefix("https://github.com/")}]({source.homepage}) | {remarks(name, source)} |\n'
        for name, source in all_sources().items()
    ]
    return HEAD + ''.join(configs) + SETS + ''.join(sets)


def config_row(path: str) -> tuple[str, str, str]:
    """Data set of a config, the size of its files, and the licence."""
    from research import api
    from research.data.dataset import set_module
    from research.data.fetch import readable_size

    data: Any = api.load_config(path).data
    name = data.get('name', '')
    reader = data.get('reader', '')
    if reader == 'tfds':
        return f'`{name}`', 'by `launch.prepare_data`', 'that of tensorflow-datasets'
    if reader or not name:
        return 'your own files', 'nothing', '-'
    module = set_module(name)
    if hasattr(module, 'SOURCE'):
        return f'`{name}`', readable_size(module.SOURCE.size), module.SOURCE.licence
    return f'`{name}`', 'nothing', part(module, 'Licence', r'\.(?:\s|$)')


def part(module: Any, word: str, end: str) -> str:
    """Text after a word in the docstring of a set's module, up to `end`; '' if the word is missing."""
    match = re.search(rf'{word}: (.*?)(?:{end})', inspect.cleandoc(module.__doc__), re.DOTALL)
    return ' '.join(match[1].split()) if match else ''


def remarks(name: str, source: Any) -> str:
    """Remarks on a set, from its source or its module's docstring."""
    from research.data.dataset import set_module, set_names

    if source.about or name not in set_names():
        return source.about
    return part(set_module(name), 'Oddities', r'\n\n|$').rstrip('.')


if __name__ == '__main__':
    launch.flags.run(main)
