"""Stored and printed metrics: baseline, expected range, verdict, signature."""

import contextlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from research.core.config import Config, with_name
from research.core.evaluate import Evaluation
from research.core.logs import write_text
from research.core.task import Metric
from research.errors import UserError
from research.ops.seal import sealed, unsealed


def beats_baseline(metric: Metric) -> bool | None:
    """Whether a metric is better than its baseline; None without a baseline."""
    if metric.baseline is None or not metric.better or np.ndim(metric.value):
        return None
    higher = metric.value > metric.baseline
    better = math.isfinite(metric.value) and metric.value != metric.baseline and higher == (metric.better == 'higher')
    return bool(better)


def verdict(metric: Metric) -> str:
    """The comparison of a metric with its baseline, as text; empty without a baseline."""
    better = beats_baseline(metric)
    if better is None:
        return ''
    if not math.isfinite(metric.value):
        return 'not a number'
    if metric.value == metric.baseline:
        return 'no better than its baseline'
    return 'better than its baseline' if better else 'WORSE than its baseline: no useful learning'


def record(
    metrics: Mapping[str, Metric], expected: Mapping[str, tuple[float, float]], signature: dict[str, Any], step: int
) -> dict[str, Any]:
    """The stored form of metrics: with verdict, expected range, whether they are in it, and their signature.

    Raises:
      UserError: if an expected range names a metric that does not exist.
    """
    rows = {}
    for name in expected:
        if name not in metrics:
            split = signature['split']
            raise UserError(f'config.expected.{split}.{name}: no such metric; there is {", ".join(metrics)}')
    for name, metric in metrics.items():
        low, high = expected.get(name, (None, None))
        value = np.asarray(metric.value).tolist()
        rows[name] = {
            **metric._asdict(),
            'value': value,
            'verdict': verdict(metric),
            'beats_baseline': beats_baseline(metric),
            'expected': None if low is None else [low, high],
            'passed': None if low is None else is_as_expected(value, low, high, metric.better),  # pyright: ignore[reportArgumentType]
        }
    return {'step': step, 'metrics': rows, 'signature': signature}


def is_as_expected(value: float, low: float, high: float, better: str) -> bool:
    """Whether a metric is in its expected range or better; False for NaN."""
    return bool((value >= low or better == 'lower') and (value <= high or better == 'higher')) and value == value


def measure_split(
    evaluate: Callable[[str], Evaluation], config: Config, split: str, step: int,
    account: Mapping[str, float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Evaluates a split; returns the stored form of its metrics, with the signature that makes them comparable.

    `account` is the budget that the whole run has spent, such as epsilon.
    """
    metrics, count, seconds, failed = evaluate(split)
    signature = {
        'split': split,
        'examples': count,
        'seed': config.seed,
        'step': step,
        'settings': {
            'task': with_name(config.task), 'data': with_name(config.data),
            'averaged_weights': bool(config.train.ema_decay), 'averaged_checkpoints': config.train.average_checkpoints,
        },
        'seconds': round(seconds, 3),
        **({'account': dict(account)} if account else {}),
    }
    ranges = config.expected.get(split, {})
    expected = {name: pair for name, pair in ranges.items() if name in metrics or not failed}
    return {**record(metrics, expected, signature, step), **({'failed': failed} if failed else {})}


def store_metrics(workdir: epath.Path, entries: Mapping[str, Any]) -> None:
    """Adds {split: entry} to the run's metrics.json, each with its own SHA-256; keeps other splits."""
    stored = {split: sealed(entry) for split, entry in {**read_metrics(workdir), **entries}.items()}
    write_text(workdir / 'metrics.json', json.dumps(stored, indent=2))


def read_metrics(workdir: epath.Path) -> dict[str, Any]:
    """Reads the run's stored metrics; skips damaged entries, which the run then computes again."""
    for name, key in (('metrics.json', 'metrics'), ('figures.json', 'figures')):  # runs before version 0.2
        file = workdir / name
        if not file.exists():
            continue
        try:
            stored = json.loads(file.read_bytes())
        except ValueError:
            return {}
        entries = {}
        for split, entry in stored.items() if isinstance(stored, dict) else ():
            with contextlib.suppress(ValueError, KeyError):
                values = unsealed(entry)
                entries[split] = {**values, 'metrics': values[key]}
        return entries
    return {}


def metrics_text(entry: Mapping[str, Any]) -> str:
    """The metrics of a split as a text table, without nested ones, which metrics.json and the report show."""
    signature = entry['signature']
    account = ''.join(f', {name} {value:.4g}' for name, value in signature.get('account', {}).items())
    lines = [f'{signature["split"]}: {signature["examples"]:,} examples, step {entry["step"]:,}{account}']
    for name, row in entry['metrics'].items():
        if isinstance(row['value'], list):
            continue
        cells = [f'  {name:<24} {row["value"]:>10.4g}']
        if row['baseline'] is not None:
            cells.append(baseline_text(row))
        if row['expected']:
            low, high = row['expected']
            cells.append(f'expected {low:g} to {high:g}: {"PASS" if row["passed"] else "FAIL"}')
        lines.append('   '.join(cells))
    lines += [f'  {name} could not be computed: {why}' for name, why in entry.get('failed', {}).items()]
    return '\n'.join(lines)


def baseline_text(row: Mapping[str, Any]) -> str:
    """The baseline of a stored metric; what it means only if the metric is not better."""
    baseline = f'baseline {row["baseline"]:.4g}'
    if row.get('beats_baseline') is not False:
        return baseline
    if row.get('baseline_about'):
        baseline += f' ({row["baseline_about"]})'
    if row['value'] == row['baseline']:
        return f'no better than {baseline}'
    return f'WORSE than {baseline}: no useful learning'


def failures(metrics: Mapping[str, Any]) -> list[str]:
    """'split/metric' of every stored metric outside its expected range."""
    return [
        f'{split}/{name}'
        for split, entry in metrics.items()
        for name, row in entry['metrics'].items()
        if row['passed'] is False
    ]
