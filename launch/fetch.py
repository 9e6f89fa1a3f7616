"""Fetches public data sets, so that training needs no network later.

    python -m launch.fetch sst2 fashion_mnist
    python -m launch.fetch --list
    python -m launch.fetch --all

Training, evaluation and data checks fetch missing files on first use; --nofetch disables that. Files are stored in the
folder TESSERA_DATA, or else in the user's cache folder. TESSERA_MIRROR is a URL or folder with <set>/<file> to
fetch from.
"""

import os

from absl import flags

import launch.flags

LIST = flags.DEFINE_bool('list', False, 'List the data sets with size, licence and location.')
ALL = flags.DEFINE_bool('all', False, 'Fetch all data sets.')


def main(overrides: dict[str, str], names: list[str]) -> None:
    """Fetches the named sets."""
    from research.data import fetch
    from research.data.public_sets import all_sources
    from research.errors import UserError, choose

    if overrides:
        raise UserError('launch.fetch reads no config: name data sets, such as sst2')
    sources = all_sources()
    if LIST.value:
        print(table(sources))
        return
    if not names and not ALL.value:
        raise UserError('name the data sets to fetch, such as sst2; --list shows them, --all fetches them all')
    chosen = dict(sources) if ALL.value else {name: choose(name, sources, 'launch.fetch') for name in names}
    os.environ.pop('TESSERA_FETCH', None)  # this program always fetches
    failures = []
    for name, source in chosen.items():
        try:
            print(f'{name}: {fetch.fetch(source)}', flush=True)
        except UserError as error:
            if len(chosen) == 1:
                raise
            failures.append(str(error))
    if failures:
        raise UserError('\n\n'.join(failures))


def table(sources: dict) -> str:
    """Formats the sets as lines: name, size, licence, and their folder if present."""
    from research.data import fetch

    lines = [('name', 'fetched', 'licence', 'on this machine')]
    for name, source in sources.items():
        lines.append((name, fetch.readable_size(source.size), source.licence, fetch.present_folder(source) or '-'))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join('  '.join(map(str.ljust, line, widths)).rstrip() for line in lines)


if __name__ == '__main__':
    launch.flags.run(main)
