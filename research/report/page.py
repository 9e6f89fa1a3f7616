"""The report of a run: one HTML file that needs nothing beside it, made from the run's own files."""

import base64
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from etils import epath
from markupsafe import Markup

from research.core.logs import METRICS_FILE, read_records, write_text
from research.core.metrics import read_metrics
from research.ops.seal import KEY as SEAL
from research.report import metrics as measured
from research.report import sections
from research.report.html import number, render, words
from research.units import time_text

NAME = 'report.html'
CLASS_FILES = ('classes.json', 'labels.json', 'columns.json')  # where tasks store the names of their classes


def write_report(workdir: epath.PathLike) -> epath.Path:
    """Writes report.html from the files of a run and gives its path.

    It reads config.json, description.json, environment.json, metrics.json, metrics.jsonl, samples/ and
    prepared/ (the names of classes). The report names each file that is missing or unreadable.
    """
    workdir = epath.Path(workdir)
    path = workdir / NAME
    write_text(path, page(workdir))
    return path


def page(workdir: epath.Path) -> Markup:
    """Renders the report."""
    broken: list[str] = []
    config, description, environment, metrics = (
        read_json(workdir / f'{name}.json', broken)
        for name in ('config', 'description', 'environment', 'metrics')
    )
    metrics = metrics or read_metrics(workdir)  # runs before version 0.2 have another file
    best = (config.get('train') or {}).get('best', '')
    groups = list((description.get('flow') or {}).get('groups') or config.get('optimizer') or ())
    classes = measured.classes(metrics, class_names(workdir, description))
    style, script = (pathlib.Path(__file__).with_name(name).read_text('utf-8') for name in ('report.css', 'report.js'))
    return render(
        'page.html',
        title=workdir.name or 'run',
        folder=str(workdir),
        policy=policy(script),
        style=Markup(style),
        script=Markup(script),
        facts=facts(config, description, environment),
        menu=menu(classes is not None),
        verdict=measured.verdict(metrics, best),
        tiles=tiles(metrics, description, environment, best),
        broken=broken,
        notes=[str(note) for note in description.get('notes') or ()] + failed_metrics(metrics),
        tables=measured.tables(metrics),
        curves=measured.curves(read_records(workdir / METRICS_FILE), groups, best),
        classes=classes,
        samples=sections.samples(workdir / 'samples'),
        flow=sections.flow(description, metrics),
        model=sections.model(description),
        config=sections.config_cards(config),
        environment=sections.environment(environment),
    )


def failed_metrics(metrics: Mapping[str, Any]) -> list[str]:
    """Returns a note for each kind of metric that could not be computed."""
    return [
        f'{split}: {name} could not be computed: {why}'
        for split, entry in metrics.items() if isinstance(entry, dict)
        for name, why in (entry.get('failed') or {}).items()
    ]  # fmt: skip


def read_json(path: epath.Path, broken: list[str]) -> dict[str, Any]:
    """Reads the dict in a JSON file, {} without one; adds the name of an unreadable file to `broken`."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_bytes())
        if isinstance(value, dict):
            return {name: item for name, item in value.items() if name != SEAL}
    except ValueError:
        pass
    broken.append(path.name)
    return {}


def class_names(workdir: epath.Path, description: Mapping[str, Any]) -> list[str]:
    """Reads the names of the classes from the description, or from what the task prepared."""
    prepared = (read_json(workdir / 'prepared' / name, []).get('classes') for name in CLASS_FILES)
    names = description.get('classes') or next(filter(None, prepared), ())
    return [str(name) for name in names]


def policy(script: str) -> str:
    """Writes the content security policy: the page loads nothing and runs only this script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )


def facts(config: Mapping[str, Any], description: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    """Lists the task, model, data and devices of the run, and when it finished."""
    task = (config.get('task') or {}).get('name') or description.get('task')
    model, data = ((config.get(name) or {}).get('name') for name in ('model', 'data'))
    device = description.get('devices') or environment.get('devices') or {}
    texts = [
        words(task) if task else None,
        f'model {model}' if model else None,
        f'data {data}' if data else None,
        f'{device["count"]} × {device.get("kind") or device["platform"]}' if device.get('count') else None,
        environment.get('finished'),
    ]
    return [text for text in texts if text]


def tiles(
    metrics: Mapping[str, Any], description: Mapping[str, Any], environment: Mapping[str, Any], best: str
) -> list[tuple[str, str]]:
    """Selects the few numbers that matter most, as (name, value)."""
    shown = []
    for split in measured.ordered(metrics)[:1]:
        rows = measured.scalars(metrics[split])
        first = sorted(rows, key=lambda name: (not rows[name].get('expected'), name != best))
        shown += [(f'{words(name)}, {split}', number(rows[name]['value'])) for name in first[:2]]
    totals = (description.get('layers') or {}).get('totals') or {}
    if totals:
        size = totals['trained']
        shown.append(('trained parameters', f'{size:,}' if size < 1e6 else f'{size / 1e6:.3g} M'))
    steps = description.get('steps') or {}
    if steps:
        epochs = f' ({steps["epochs"]:.3g} epochs)' if steps.get('epochs') else ''
        shown.append((f'steps{epochs}', number(steps['steps'])))
    data = (description.get('data') or {}).get('train')
    if data:
        shown.append(('training examples', number(data)))
    if isinstance(environment.get('seconds'), (int, float)):
        earlier = environment.get('seconds_before') or 0.0
        name = 'total time, earlier starts included' if earlier else 'total time'
        shown.append((name, time_text(environment['seconds'] + earlier)))
    return shown


def menu(with_classes: bool) -> list[str]:
    """Lists the sections in the order of the page; their anchors are the same words."""
    classes = ['classes'] if with_classes else []
    return ['metrics', 'curves', *classes, 'samples', 'flow', 'model', 'config', 'environment']
