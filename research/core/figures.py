"""Figures as people read and files keep them: baseline, expected range, verdict in words, signature."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from research.core.config import Config
from research.core.logs import write_text
from research.core.task import Figure
from research.errors import UserError


def verdict(figure: Figure) -> str:
    """Says in words how a figure stands to its baseline; empty where there is none."""
    if figure.baseline is None or not figure.better or np.ndim(figure.value):
        return ''
    if not math.isfinite(figure.value):
        return 'not a number'
    name = figure.baseline_about or 'the trivial baseline'
    if figure.value == figure.baseline:
        return f'no better than {name}'
    better = (figure.value > figure.baseline) == (figure.better == 'higher')
    return f'better than {name}' if better else f'WORSE than {name}: the model has learnt nothing of use here'


def record(
    figures: Mapping[str, Figure], expected: Mapping[str, tuple[float, float]], signature: dict[str, Any], step: int
) -> dict[str, Any]:
    """Returns figures as they are stored: with verdict, expected range, PASS or FAIL, and their signature.

    Raises:
      UserError: for an expected range of a figure that does not exist.
    """
    rows = {}
    for name in expected:
        if name not in figures:
            split = signature['split']
            raise UserError(f'config.expected.{split}.{name}: no such figure; there is {", ".join(figures)}')
    for name, figure in figures.items():
        low, high = expected.get(name, (None, None))
        value = np.asarray(figure.value).tolist()
        rows[name] = {
            **figure._asdict(),
            'value': value,
            'verdict': verdict(figure),
            'expected': None if low is None else [low, high],
            'passed': None if low is None else bool(low <= value <= high),
        }
    return {'step': step, 'figures': rows, 'signature': signature}


def measure_split(
    evaluate: Callable[[str], tuple[dict[str, Figure], int, float]], config: Config, split: str, step: int,
    account: Mapping[str, float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Returns the stored form of a split's figures, with the signature that makes them comparable.

    `account` is the task's own account of the whole run.
    """
    figures, count, seconds = evaluate(split)
    signature = {
        'split': split,
        'examples': count,
        'seed': config.seed,
        'step': step,
        'settings': {
            'task': dict(config.task), 'data': dict(config.data),
            'averaged_weights': bool(config.train.ema), 'averaged_checkpoints': config.train.average,
        },
        'seconds': round(seconds, 3),
        **({'account': dict(account)} if account else {}),
    }
    return record(figures, config.expected.get(split, {}), signature, step)


def store_figures(workdir: epath.Path, entries: Mapping[str, Any]) -> None:
    """Adds {split: entry} to the run's figures.json; other splits stay."""
    stored = read_figures(workdir)
    stored.update(entries)
    write_text(workdir / 'figures.json', json.dumps(stored, indent=2))


def read_figures(workdir: epath.Path) -> dict[str, Any]:
    """Returns the run's stored figures, {} where there are none yet or the file is damaged: they are measured again."""
    file = workdir / 'figures.json'
    try:
        return json.loads(file.read_text()) if file.exists() else {}
    except ValueError:
        return {}


def figures_text(entry: Mapping[str, Any]) -> str:
    """Returns the figures of a split as a table of text; nested ones stay in figures.json and the report."""
    signature = entry['signature']
    account = ''.join(f', {name} {value:.4g}' for name, value in signature.get('account', {}).items())
    lines = [f'{signature["split"]}: {signature["examples"]:,} examples, step {entry["step"]:,}{account}']
    for name, row in entry['figures'].items():
        if isinstance(row['value'], list):
            continue
        cells = [f'  {name:<24} {row["value"]:>10.4g}']
        if row['baseline'] is not None:
            words = '' if not row['verdict'] or row['verdict'].startswith('better') else f' ({row["verdict"]})'
            cells.append(f'baseline {row["baseline"]:.4g}{words}')
        if row['expected']:
            low, high = row['expected']
            cells.append(f'expected {low:g} to {high:g}: {"PASS" if row["passed"] else "FAIL"}')
        lines.append('   '.join(cells))
    return '\n'.join(lines)


def failures(figures: Mapping[str, Any]) -> list[str]:
    """Returns 'split/figure' for every stored figure outside its expected range."""
    return [
        f'{split}/{name}'
        for split, entry in figures.items()
        for name, row in entry['figures'].items()
        if row['passed'] is False
    ]
