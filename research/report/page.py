"""The report of a run: one HTML file that needs nothing beside it, made from the run's own files."""

import base64
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from etils import epath

from research.core.logs import FILE, read_records, write_text
from research.core.units import time_text
from research.report import measures
from research.report import sections as parts
from research.report.html import Html, note, number, tag, words

NAME = 'report.html'
NAMES = ('classes.json', 'labels.json', 'columns.json')  # what tasks store the names of their classes in


def write_report(workdir: epath.PathLike) -> epath.Path:
    """Writes report.html from what the run's folder holds and returns its path.

    It reads config.json, description.json, environment.json, metrics.json, metrics.jsonl, samples/ and
    prepared/ (the names of classes); what is missing or cannot be read is left out, with a sentence that says so.
    """
    workdir = epath.Path(workdir)
    path = workdir / NAME
    write_text(path, '<!doctype html>\n' + page(workdir))
    return path


def page(workdir: epath.Path) -> Html:
    """Returns the report as HTML."""
    broken: list[str] = []
    config, description, environment, metrics = (
        read_json(workdir / f'{name}.json', broken)
        for name in ('config', 'description', 'environment', 'metrics')
    )
    best = (config.get('train') or {}).get('best', '')
    groups = list((description.get('flow') or {}).get('groups') or config.get('optimizer') or ())
    sections = [
        measures.metrics_section(metrics),
        measures.curves_section(read_records(workdir / FILE), groups, best),
        measures.classes_section(metrics, class_names(workdir, description)),
        parts.samples_section(workdir / 'samples'),
        parts.flow_section(description, metrics),
        parts.model_section(description),
        parts.config_section(config),
        parts.environment_section(environment),
    ]
    warnings = [note(f'{name} could not be read and is left out.') for name in broken]
    remarks = [note(str(text)) for text in description.get('notes') or ()]
    title = workdir.name or 'run'
    body = [
        header(title, config, description, environment),
        tag(
            'main',
            measures.verdict(metrics, best),
            tiles(metrics, description, environment, best),
            warnings,
            remarks,
            sections,
        ),
        tag('footer', 'Made by Tessera from the files in ', tag('code', str(workdir)), '.'),
    ]
    return document(f'{title}: report', navigation(sections), *body)


def read_json(path: epath.Path, broken: list[str]) -> dict[str, Any]:
    """Returns the dict in a JSON file, {} without one; an unreadable file's name is added to `broken`."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_bytes())
        if isinstance(value, dict):
            return value
    except ValueError:
        pass
    broken.append(path.name)
    return {}


def class_names(workdir: epath.Path, description: Mapping[str, Any]) -> list[str]:
    """Returns the names of the classes, from the description or from what the task prepared."""
    prepared = (read_json(workdir / 'prepared' / name, []).get('classes') for name in NAMES)
    names = description.get('classes') or next(filter(None, prepared), ())
    return [str(name) for name in names]


def header(
    title: str, config: Mapping[str, Any], description: Mapping[str, Any], environment: Mapping[str, Any]
) -> Html:
    """Returns the title of the page with what was trained, on what and when."""
    task = (config.get('task') or {}).get('name') or description.get('task')
    model, data = ((config.get(name) or {}).get('name') for name in ('model', 'data'))
    device = description.get('devices') or environment.get('devices') or {}
    facts = [
        words(task) if task else None,
        f'model {model}' if model else None,
        f'data {data}' if data else None,
        f'{device["count"]} × {device.get("kind") or device["platform"]}' if device.get('count') else None,
        environment.get('finished'),
    ]
    tiles = tag('span', [tag('i') for _ in range(9)], class_='mark', aria_hidden='true')
    facts = [tag('span', fact) for fact in facts if fact]
    return tag(
        'header',
        tag('p', tiles, 'Tessera report', class_='brand'),
        tag('h1', title),
        tag('p', facts, class_='facts'),
    )


def tiles(
    metrics: Mapping[str, Any], description: Mapping[str, Any], environment: Mapping[str, Any], best: str
) -> Html | None:
    """Returns the few numbers that are looked for first."""
    shown = []
    for split in measures.ordered(metrics)[:1]:
        rows = measures.scalars(metrics[split])
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
        name = 'time in all, earlier starts too' if earlier else 'time in all'
        shown.append((name, time_text(environment['seconds'] + earlier)))
    pairs = [tag('div', tag('dd', value), tag('dt', name)) for name, value in shown]
    return tag('dl', pairs, class_='tiles') if pairs else None


def navigation(sections: list[Html | None]) -> Html:
    """Returns links to the sections that there are."""
    names = {
        'metrics': 'Metrics',
        'curves': 'Curves',
        'classes': 'Classes',
        'samples': 'Samples',
        'flow': 'Flow',
        'model': 'Model',
        'config': 'Config',
        'environment': 'Environment',
    }
    found = [each for each, made in zip(names, sections, strict=True) if made]
    return tag('nav', [tag('a', names[each], href=f'#{each}') for each in found], aria_label='Sections')


def document(title: str, menu: Html, *body: Html) -> Html:
    """Returns the whole page; its policy lets it load nothing and run no script but its own."""
    folder = pathlib.Path(__file__).parent
    style, script = ((folder / name).read_text('utf-8') for name in ('report.css', 'report.js'))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = tag(
        'head',
        tag('meta', charset='utf-8'),
        tag('meta', name='viewport', content='width=device-width, initial-scale=1'),
        tag('meta', name='color-scheme', content='light dark'),
        tag('meta', http_equiv='Content-Security-Policy', content=policy),
        tag('title', title),
        tag('style', Html(style)),
    )
    first, *rest = body
    return tag('html', head, tag('body', first, menu, rest, tag('script', Html(script))), lang='en')
