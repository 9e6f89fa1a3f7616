"""Records metrics of finished runs in results/*.csv, and writes RESULTS.md from these tables.

    python -m launch.record --workdir=runs/digits --table=images --metric=accuracy [--split=test]
    python -m launch.record                      # only writes RESULTS.md

Runs of one config that differ only in the seed form one row: repeat --workdir. `--published`, `--source` and `--note`
(a number in results/notes.md) fill the columns that a run cannot provide.
"""

import pathlib

from absl import flags

import launch.flags
from research.errors import choose
from research.report.results import TITLES, read_table, render, row_of, write_table

ROOT = pathlib.Path(__file__).parent.parent

WORKDIRS = flags.DEFINE_multi_string('workdir', [], 'The folder of a finished run; repeat for several seeds.')
TABLE = flags.DEFINE_string('table', '', f'The table to add the row to: {", ".join(TITLES)}.')
METRIC = flags.DEFINE_string('metric', '', 'The metric to record.')
SPLIT = flags.DEFINE_string('split', 'test', 'The split of the metric.')
MACHINE = flags.DEFINE_string('machine', '2 CPU cores', 'The machine of the runs.')
PUBLISHED = flags.DEFINE_string('published', '', 'The published value to compare with.')
SOURCE = flags.DEFINE_string('source', '', 'The source of the published value.')
NOTE = flags.DEFINE_string('note', '', 'Numbers of results/notes.md, separated by spaces.')


def main(overrides: dict[str, str]) -> None:
    """Adds a row if runs are given, then writes RESULTS.md."""
    del overrides
    folder = ROOT / 'results'
    if WORKDIRS.value:
        choose(TABLE.value, TITLES, '--table')
        file = folder / f'{TABLE.value}.csv'
        row = row_of(WORKDIRS.value, SPLIT.value, METRIC.value)
        row |= {'machine': MACHINE.value, 'published': PUBLISHED.value, 'source': SOURCE.value, 'note': NOTE.value}
        write_table(file, [*read_table(file), row])
        print(f'{file.relative_to(ROOT)}: {row["config"]} {row["metric"]} {row["values"]}')
    (ROOT / 'RESULTS.md').write_text(render(folder), encoding='utf-8')
    print('written: RESULTS.md')


if __name__ == '__main__':
    launch.flags.run(main)
