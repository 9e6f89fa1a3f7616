"""Measured results as tables: rows from run folders, and the page that shows them."""

import csv
import json
import pathlib
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from research.errors import UserError, choose, nearest

COLUMNS = (
    'config', 'overrides', 'data', 'split', 'metric', 'signature', 'values', 'seeds', 'parameters', 'machine', 'time',
    'baseline', 'published', 'source', 'commit', 'data_hash', 'note',
)  # fmt: skip
TITLES = {
    'images': 'Image classification', 'generation': 'Image generation',
    'restoration': 'Image restoration', 'sound': 'Sound', 'tables': 'Tables',
    'genes': 'Gene sequences', 'text': 'Text classification', 'language': 'Language models',
    'translation': 'Translation',
}  # fmt: skip
HEAD = """# Results

This page is written by `python -m launch.record` from `results/*.csv`; do not edit it. Each row is the metric of
`python -m launch.train --config=configs/<config>.py` with the overrides in the same cell. Accuracies and errors are
percent. Several values are those of the seeds, in order. Baselines and published values are listed next to ours, better
or worse; notes are in [results/notes.md](results/notes.md), metric signatures in the tables.

Machines: "2 CPU cores" are x86-64 with AVX-512, 24 GiB, Python 3.11, jax 0.10.2, usually with other programs running,
so times are upper bounds. "H200" is one NVIDIA H200 with 16 CPU cores, Python 3.12, jax 0.11.2, bfloat16 where a config
sets it, shared by several trainings, so its times mean little. Nothing was measured on a TPU or on several devices.
"""
PERCENT = re.compile(r'accuracy|top_\d+|error_.*|precision|recall|f1')


def stored(workdir: str, name: str) -> dict[str, Any]:
    """Reads a JSON file of a run; raises `UserError` if it is missing or damaged."""
    try:
        return json.loads((pathlib.Path(workdir) / name).read_text(encoding='utf-8'))
    except OSError:
        raise UserError(f'{workdir} has no {name}: only finished runs can be recorded') from None
    except ValueError:
        raise UserError(f'{workdir}/{name} is damaged: run launch.evaluate again') from None


def config_of(command: str) -> tuple[str, str]:
    """Parses the config ('digits:mlp') and the overrides of a training command, without the seed."""
    flags_given = re.findall(r"(--config[\w.]*)[= ]('[^']*'|\S+)", command)
    name = ''.join(value for flag, value in flags_given if flag == '--config')
    name = re.sub(r'^(.*/)?configs/|\.py', '', name)
    others = [f'{flag}={value}' for flag, value in flags_given if flag not in ('--config', '--config.seed')]
    return name, ' '.join(others)


def number_text(value: float, metric: str, signature: str = '') -> str:
    """Formats a value: shares in percent, unless the signature says that they are; else four significant digits."""
    share = PERCENT.fullmatch(metric) and not signature.startswith('percent')
    return f'{100 * value:.2f}' if share else f'{value:.4g}'


def data_hash(workdir: str) -> str:
    """Returns the first digits of the SHA-256 of the digests of all splits; '' for a run before version 0.2."""
    if not (pathlib.Path(workdir) / 'prepared' / 'splits.json').exists():
        return ''
    return stored(workdir, 'prepared/splits.json')['sha256'][:16]


def row_of(workdirs: Sequence[str], split: str, metric: str) -> dict[str, str]:
    """Creates the row of runs that differ only in the seed.

    Raises:
      UserError: if a run lacks the metric, or the runs have different configs.
    """
    values = []
    seeds = []
    seconds = []
    rows = []
    for workdir in workdirs:
        entries, environment = stored(workdir, 'metrics.json'), stored(workdir, 'environment.json')
        entry = choose(split, entries, '--split')
        if metric not in entry['metrics']:
            raise UserError(f'--metric={metric}: {workdir} has no such metric; {nearest(metric, entry["metrics"])}')
        measured = entry['metrics'][metric]
        if isinstance(measured['value'], list):
            raise UserError(f'--metric={metric}: a table records single numbers, and this metric has several')
        signature = measured.get('about', '')
        values.append(number_text(measured['value'], metric, signature))
        seeds.append(str(stored(workdir, 'config.json')['seed']))
        seconds.append(environment['seconds'] + environment.get('seconds_before', 0.0))
        name, overrides = config_of(environment['command'])
        baseline = '' if measured['baseline'] is None else number_text(measured['baseline'], metric, signature)
        data = stored(workdir, 'config.json')['data']
        rows.append({
            'config': name, 'overrides': overrides, 'data': data.get('name') or data.get('reader', ''),
            'split': split, 'metric': metric, 'signature': signature, 'baseline': baseline,
            'commit': environment.get('commit', ''), 'data_hash': data_hash(workdir),
        })  # fmt: skip
    if len({(row['config'], row['overrides']) for row in rows}) > 1:
        raise UserError(f'these runs have several configs: {", ".join(row["config"] for row in rows)}')
    low, high = round(min(seconds)), round(max(seconds))
    time = f'{low} s' if low == high else f'{low}-{high} s'
    return {**dict.fromkeys(COLUMNS, ''), **rows[0], 'values': ' '.join(values), 'seeds': ' '.join(seeds), 'time': time}


def read_table(file: pathlib.Path) -> list[dict[str, str]]:
    """Reads the rows of a table; raises `UserError` if its columns are not `COLUMNS`."""
    if not file.exists():
        return []
    with file.open(newline='', encoding='utf-8') as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f'{file}: the columns must be {", ".join(COLUMNS)}')
        return list(reader)


def write_table(file: pathlib.Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Writes a table."""
    with file.open('w', newline='', encoding='utf-8') as stream:
        writer: csv.DictWriter[str] = csv.DictWriter(stream, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def cells(row: Mapping[str, str]) -> list[str]:
    """Cells of a row of RESULTS.md."""
    values = row['values'].split()
    mean = f' (mean {statistics.mean(map(float, values)):.4g})' if len(values) > 1 else ''
    published = row['published'] + (f' ({row["source"]})' if row['source'] else '')
    command = f'`{row["config"]}`' + (f' `{row["overrides"]}`' if row['overrides'] else '')
    time = ', '.join(filter(None, (row['time'], '' if row['machine'] == '2 CPU cores' else row['machine'])))
    links = ' '.join(f'[{number}](results/notes.md)' for number in row['note'].split())
    split = f'{row["data"]}, {row["split"]}'
    return [command, split, row['metric'], ', '.join(values) + mean, row['baseline'], published, time, links]


def render(folder: pathlib.Path) -> str:
    """Renders RESULTS.md from the tables of a folder."""
    parts = [HEAD]
    for name, title in TITLES.items():
        rows = read_table(folder / f'{name}.csv')
        if rows:
            lines = [f'## {title}', '', f'Table: [results/{name}.csv](results/{name}.csv)', '']
            lines.append('| config | data, split | metric | ours | baseline | published | time | notes |')
            lines.append('|---|---|---|---|---|---|---|---|')
            lines += ['| ' + ' | '.join(cells(row)) + ' |' for row in rows]
            parts.append('\n'.join(lines) + '\n')
    tail = folder / 'speed.md'
    return '\n'.join([*parts, *([tail.read_text(encoding='utf-8')] if tail.exists() else [])])
