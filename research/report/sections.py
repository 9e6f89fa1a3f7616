"""Sections of the report about what was run: samples, the task's flow, layers, config, environment."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from research.core.units import bytes_text, count_text, time_text
from research.report.html import Html, details, note, number, section, tag, words
from research.report.layers import array_lines, totals_lines

STEPS = 16  # of the samples, at most
TEXTS = 8  # examples of one step, at most


def spread(values: Sequence[Any], limit: int) -> list[Any]:
    """Returns at most `limit` of `values`, evenly spread, with the first and the last."""
    if len(values) <= limit:
        return list(values)
    return [values[round(place * (len(values) - 1) / (limit - 1))] for place in range(limit)]


def samples_section(folder: epath.Path) -> Html:
    """Returns pictures and texts of samples/<step>/, each kind over the steps."""
    steps = sorted(each for each in folder.iterdir() if each.name.isdigit()) if folder.exists() else []
    if not steps:
        return section(
            'samples', 'Samples', note('There is no samples folder: the run has not shown anything yet.')
        )
    parts = []
    for name in sorted({file.name for step in steps for file in step.glob('*.png')}):
        with_it = [step for step in steps if (step / name).exists()]
        frames = [_picture(step / name, int(step.name)) for step in spread(with_it, STEPS)]
        parts.append(_over_steps(words(name.removesuffix('.png')), frames))
    texts = [step for step in steps if (step / 'examples.json').exists()]
    frames = [_examples(step / 'examples.json', int(step.name)) for step in spread(texts, STEPS)]
    if any(frames):
        parts.append(_over_steps('examples', [frame for frame in frames if frame]))
    return section('samples', 'Samples', parts)


def _over_steps(title: str, frames: Sequence[Html]) -> Html:
    """Returns frames that report.js shows one at a time with a slider; without it they stand side by side."""
    kind = 'frames' if len(frames) > 1 else 'frames single'
    return tag('div', tag('h3', title), tag('div', frames, class_=kind), class_='stepper')


def _picture(file: epath.Path, step: int) -> Html:
    """Returns a PNG as a data URI; small ones are enlarged with their pixels kept square."""
    data = file.read_bytes()
    # A PNG begins with a signature of 8 bytes and the IHDR chunk, where width and height follow at byte 16.
    width, height = (int.from_bytes(data[at : at + 4], 'big') for at in (16, 20))
    image = tag(
        'img',
        src='data:image/png;base64,' + base64.b64encode(data).decode(),
        alt=f'{words(file.name.removesuffix(".png"))} at step {step:,}',
        width=width,
        height=height,
        class_='pixels' if max(width, height) < 600 else None,
    )
    return tag('figure', image, tag('figcaption', f'step {step:,}'), data_step=step)


def _examples(file: epath.Path, step: int) -> Html | None:
    """Returns the requests and answers of one step."""
    try:
        examples = json.loads(file.read_bytes())
    except ValueError:
        return None
    pairs = [
        tag('div', _value('input', each.get('input')), _value('output', each.get('output')), class_='pair')
        for each in examples[:TEXTS]
        if isinstance(each, dict)
    ]
    return (
        tag('figure', tag('figcaption', f'step {step:,}'), pairs, data_step=step, class_='texts')
        if pairs
        else None
    )


def _value(title: str, value: Any) -> Html:
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    return tag('div', tag('span', title, class_='label'), readable(value), class_=title)


def readable(value: Any) -> Html:
    """Returns a JSON value for people: texts in monospace, dicts as a list of names and values."""
    if isinstance(value, str) and ('\n' in value or len(value) > 40):
        return tag('pre', value)
    if isinstance(value, dict):
        rows = [tag('div', tag('dt', words(name)), tag('dd', readable(each))) for name, each in value.items()]
        return tag('dl', rows)
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return tag('ul', [tag('li', _inline(each)) for each in value], class_='plain')
    return tag('code', _inline(value))


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ', '.join(f'{words(name)} {_inline(each)}' for name, each in value.items())
    if isinstance(value, list):
        return ', '.join(map(_inline, value)) or '(none)'
    return number(value) if isinstance(value, float) else ('(none)' if value in (None, '') else str(value))


def flow_section(description: Mapping[str, Any], metrics: Mapping[str, Any]) -> Html:
    """Returns the path of the data through the task as a row of boxes."""
    flow = description.get('flow') or {}
    if not flow:
        return section(
            'flow', 'How it works', note('There is no description.json with the flow of the task.')
        )
    data = description.get('data') or {}
    totals = _group_totals(description.get('layers') or {})
    groups = [
        _box(
            name,
            'trained' if name in flow['groups'] else 'held fixed',
            [flow['groups'].get(name), f'{size:,} parameters'],
            'group' if name in flow['groups'] else 'group fixed',
        )
        for name, size in totals.items()
    ]
    measured = list(dict.fromkeys(name for entry in metrics.values() for name in entry['metrics']))
    extra = [f'then {name}' for name in flow.get('has', ()) if name in ('finalize', 'render')]
    boxes = [
        _box('source', 'host', [f'{name} {size:,}' for name, size in data.items()]),
        _box('encode', 'host', [f'{name}: {kind}' for name, kind in flow.get('inputs', {}).items()]),
        _box('batch', 'to the devices', [f'{name} {shape}' for name, shape in flow.get('batch', {}).items()]),
        tag(
            'div', tag('b', 'losses'), tag('small', 'one step: each group in turn'), groups, class_='box step'
        ),
        _box('metric sums', 'device', ['over examples, masked']),
        _box('metrics', 'host', [', '.join(map(words, measured[:6])) or 'not measured yet', *extra]),
    ]
    arrow = tag('span', class_='arrow-right', aria_hidden='true')
    row = [part for box in boxes for part in (arrow, box)][1:]
    methods = flow.get('methods') or []
    chips = [tag('span', name, class_='chip method') for name in methods]
    said = (
        tag('p', 'Methods, each a function from task to task, applied in this order: ', chips)
        if methods
        else note('No methods: the task is trained as it is.')
    )
    return section('flow', 'How it works', tag('div', row, class_='flow'), said)


def _box(title: str, where: str, lines: Sequence[str | None], kind: str = '') -> Html:
    shown = [tag('span', line) for line in lines if line]
    return tag('div', tag('b', title), tag('small', where), shown, class_=f'box {kind}'.strip())


def _group_totals(layers: Mapping[str, Any]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for row in layers.get('rows', ()):
        totals[row['group']] = totals.get(row['group'], 0) + row['parameters']
    return totals


def model_section(description: Mapping[str, Any]) -> Html:
    """Returns the table of layers, one training example, and memory and work of a step."""
    layers = description.get('layers') or {}
    if not layers:
        return section('model', 'Model', note('There is no description.json: the run was not described.'))
    rows, several = layers['rows'], len({row['group'] for row in layers['rows']}) > 1
    body, group = [], None
    for row in rows:
        if several and row['group'] != group:
            group = row['group']
            body.append(tag('tr', tag('th', group, colspan=4, scope='rowgroup'), class_='group-row'))
        trained = [array['trained'] for array in row['arrays'] if array['collection'] == 'params']
        state = '' if not trained else 'trained' if all(trained) else 'in part' if any(trained) else 'frozen'
        shapes = [tag('span', text) for text, _ in array_lines(row)]
        cells = [tag('td', shapes, class_='shapes'), tag('td', f'{row["parameters"]:,}', class_='right')]
        name = tag('th', row['path'] or row['group'], scope='row')
        body.append(tag('tr', name, cells, tag('td', state, class_=state.split(' ')[0] or None)))
    head = tag('tr', [tag('th', name, scope='col') for name in ('Layer', 'Shapes', 'Parameters', '')])
    table = tag('table', tag('thead', head), tag('tbody', body), class_='layers')
    shown = tag('div', table, class_='scroll')
    parts = [details(f'{len(rows)} layers', shown, open_=len(rows) <= 24)]
    parts.insert(
        0, tag('ul', [tag('li', line) for line in totals_lines(layers['totals'])], class_='plain facts')
    )
    return section('model', 'Model', parts, _cost(description), _example(description.get('example') or {}))


def _cost(description: Mapping[str, Any]) -> list[Html]:
    """Returns what one step costs: memory in its parts, and operations."""
    parts, memory, flops = [], description.get('memory') or {}, description.get('flops') or {}
    if memory:
        names = [name for name in ('arguments', 'outputs', 'temporaries') if memory.get(name)]
        most = sum(memory[name] for name in names) or 1
        bars = [
            tag('i', class_=f'part s{place}', style=f'width:{100 * memory[name] / most:.1f}%')
            for place, name in enumerate(names)
        ]
        keys = [
            tag('span', tag('i', class_=f'swatch s{place}'), f'{name} ', tag('b', bytes_text(memory[name])))
            for place, name in enumerate(names)
        ]
        text = f'One step needs {bytes_text(memory["total"])} on each device'
        text += f', of {bytes_text(memory["limit"])}' if memory.get('limit') else ''
        text += ' (an estimate on CPU).' if memory.get('estimate') else '.'
        parts.append(tag('p', text))
        parts.append(tag('div', tag('div', bars, class_='stack'), tag('div', keys, class_='legend')))
    if flops:
        share = 100 * flops['matrix'] / max(flops['total'], 1)
        text = f'It computes {count_text(flops["total"], "FLOP")}, {share:.0f}% of them in matrix products'
        parts.append(
            tag('p', f'{text} and convolutions.', *(f' {note_.capitalize()}.' for note_ in flops['notes']))
        )
    return [tag('h3', 'One step'), *parts] if parts else []


def _example(example: Mapping[str, Any]) -> list[Html]:
    if not example.get('raw'):
        return []
    encoded = readable(example['encoded']) if example.get('encoded') else None
    label, value = ('decoded', example['decoded']) if example.get('decoded') else ('as it is', example['raw'])
    shown = tag('div', tag('span', label, class_='label'), readable(value))
    became = tag('div', tag('span', 'encoded', class_='label'), encoded) if encoded else None
    return [tag('h3', 'One training example'), tag('div', shown, became, class_='pair')]


def config_section(config: Mapping[str, Any]) -> Html:
    """Returns every setting, section by section."""
    if not config:
        return section('config', 'Config', note('There is no config.json.'))
    plain = {name: value for name, value in config.items() if not isinstance(value, dict)}
    sections = {name: value for name, value in config.items() if isinstance(value, dict) and value}
    cards = [tag('div', tag('h3', name), _settings(value), class_='card') for name, value in sections.items()]
    if plain:
        cards.append(tag('div', tag('h3', 'other'), _settings(plain), class_='card'))
    return section('config', 'Config', tag('div', cards, class_='cards'))


def _settings(values: Mapping[str, Any]) -> Html:
    """Returns settings as names and values; nested ones are indented under their name."""
    rows = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows.append(tag('div', tag('dt', name), tag('dd', _settings(value)), class_='nested'))
        else:
            text = ', '.join(map(str, value)) or '()' if isinstance(value, list) else str(value)
            rows.append(tag('div', tag('dt', name), tag('dd', text if text else "''")))
    return tag('dl', rows, class_='settings')


def environment_section(environment: Mapping[str, Any]) -> Html:
    """Returns versions, devices and the time of each stage."""
    if not environment:
        return section(
            'environment', 'Environment', note('There is no environment.json: the run has not ended.')
        )
    stages = environment.get('stages') or {}
    parts = []
    if stages:
        most = max(stages.values()) or 1

        def row(name: str, seconds: float) -> Html:
            bar = tag('i', class_='fill', style=f'width:{100 * seconds / most:.1f}%')
            cells = tag('td', time_text(seconds), class_='right'), tag('td', bar, class_='track')
            return tag('tr', tag('th', name, scope='row'), cells)

        rows = [row(name, seconds) for name, seconds in stages.items()]
        whole = environment.get('seconds')
        total = f', {time_text(whole)} in all' if isinstance(whole, (int, float)) else ''
        total += ' (of the last start)' if environment.get('seconds_before') else ''
        table = tag('table', tag('tbody', rows), class_='times')
        parts.append(
            tag(
                'div',
                tag('h3', f'Time per stage{total}'),
                table,
                note('Evaluation and waiting are a part of training.'),
            )
        )
    rest = {name: value for name, value in environment.items() if name not in ('stages', 'seconds', 'seconds_before')}
    command = rest.pop('command', None)
    how = [tag('h3', 'Command'), tag('pre', command)] if command else []
    parts.append(tag('div', how, tag('h3', 'Machine'), _settings(rest)))
    return section('environment', 'Environment', tag('div', parts, class_='environment'))
