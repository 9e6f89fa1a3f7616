"""What the report shows of a run besides its metrics, as plain data: samples, flow, layers, config, environment."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from research.report.html import words
from research.report.layers import array_lines, totals_lines
from research.report.values import Picture, Shown, media_bytes, picture, shown
from research.units import bytes_text, count_text, time_text

STEPS = 16  # steps of the samples that are shown
TEXTS = 8  # examples of one step
MEDIA = 16 * 1024**2  # bytes of pictures and sounds of answers in the page; above it fewer steps are shown
OPEN_LAYERS = 24  # a longer table of layers is closed at first


class Frame(NamedTuple):
    """What a run showed at one step: a picture, or (input, output) pairs."""

    step: int
    picture: Picture | None = None
    pairs: Sequence[tuple[Shown, Shown]] = ()


class Stepper(NamedTuple):
    """Frames of several steps; report.js shows one at a time with a slider."""

    title: str
    frames: Sequence[Frame]


class Box(NamedTuple):
    """A stage of the task's flow; the step contains a box for each parameter group."""

    title: str
    where: str
    lines: Sequence[str]
    kind: str = ''
    inner: Sequence['Box'] = ()


class Flow(NamedTuple):
    """The stages that data runs through, and the methods applied to the task."""

    boxes: Sequence[Box]
    methods: Sequence[str]


class Layer(NamedTuple):
    """A row of the table of layers; `heading` is the group that begins with it, '' otherwise."""

    heading: str
    name: str
    shapes: Sequence[str]
    parameters: str
    state: str  # 'trained', 'frozen', 'in part' or ''


class Share(NamedTuple):
    """A named amount and its percentage."""

    name: str
    text: str
    percent: float


class Model(NamedTuple):
    """The layers of a model, what one step costs, and one training example as (label, value)."""

    layers: Sequence[Layer]
    opened: bool
    totals: Sequence[str]
    memory: Sequence[Share]
    memory_text: str
    work_text: str
    example: Sequence[tuple[str, Shown]]


class Setting(NamedTuple):
    """A setting as text, or the settings below its name."""

    name: str
    text: str
    inner: Sequence['Setting'] = ()


class Environment(NamedTuple):
    """Where and how long a run ran."""

    stages: Sequence[Share]
    whole: str
    command: str
    settings: Sequence[Setting]


def spread(values: Sequence[Any], limit: int) -> list[Any]:
    """Selects at most `limit` of `values`, evenly spread, with the first and the last; of one the last."""
    if len(values) <= limit:
        return list(values)
    if limit == 1:
        return [values[-1]]
    return [values[round(index * (len(values) - 1) / (limit - 1))] for index in range(limit)]


def samples(folder: epath.Path) -> list[Stepper]:
    """Collects the pictures and the answers of samples/<step>/, each over the steps."""
    steps = sorted(child for child in folder.iterdir() if child.name.isdigit()) if folder.exists() else []
    names = sorted({file.name for step in steps for file in step.glob('*.png')})
    steppers = []
    for name in names:
        if name.startswith('answer_'):  # belongs to an answer of examples.json
            continue
        title = words(name.removesuffix('.png'))
        having = [step / name for step in steps if (step / name).is_file()]
        frames = [_frame(file, title) for file in spread(having, STEPS)]
        steppers.append(Stepper(title, [frame for frame in frames if frame.picture]))
    steppers.append(Stepper('examples', _example_frames(steps)))
    return [stepper for stepper in steppers if stepper.frames]


def _frame(file: epath.Path, title: str) -> Frame:
    step = int(file.parent.name)
    return Frame(step, picture(file.read_bytes(), f'{title} at step {step:,}'))


def _example_frames(steps: Sequence[epath.Path]) -> list[Frame]:
    """Pairs the requests and answers of each step, of fewer steps where their files would make a large page."""
    read = [(step, _read_examples(step / 'examples.json')) for step in steps]
    read = [(step, examples) for step, examples in read if examples]
    largest = max((media_bytes(examples, step) for step, examples in read), default=0)
    limit = min(STEPS, max(1, MEDIA // largest)) if largest else STEPS
    return [
        Frame(int(step.name), None, [
            (shown(_only_value(example.get('input')), step), shown(_only_value(example.get('output')), step))
            for example in examples
        ])
        for step, examples in spread(read, limit)
    ]  # fmt: skip


def _read_examples(file: epath.Path) -> list[dict[str, Any]]:
    """Reads examples.json; a missing or unreadable file has no examples."""
    try:
        examples = json.loads(file.read_bytes()) if file.is_file() else []
    except ValueError:
        return []
    return [example for example in examples[:TEXTS] if isinstance(example, dict)] if isinstance(examples, list) else []


def _only_value(value: Any) -> Any:
    """Unwraps a dict of one value, whose name adds nothing."""
    return next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value


def flow(description: Mapping[str, Any], metrics: Mapping[str, Any]) -> Flow | None:
    """Arranges the path of the data through the task; None for a run without a description."""
    described = description.get('flow') or {}
    if not described:
        return None
    trained = described['groups']
    groups = [
        Box(name, 'trained' if name in trained else 'held fixed',
            [line for line in (trained.get(name), f'{size:,} parameters') if line],
            'group' if name in trained else 'group fixed')
        for name, size in _group_totals(description.get('layers') or {}).items()
    ]  # fmt: skip
    measured = list(dict.fromkeys(words(name) for entry in metrics.values() for name in entry['metrics']))
    later = [f'then {name}' for name in described.get('has', ()) if name in ('finalize', 'render')]
    boxes = [
        Box('source', 'host', [f'{name} {size:,}' for name, size in (description.get('data') or {}).items()]),
        Box('encode', 'host', [f'{name}: {kind}' for name, kind in described.get('inputs', {}).items()]),
        Box('batch', 'to the devices', [f'{name} {shape}' for name, shape in described.get('batch', {}).items()]),
        Box('losses', 'one step: each group in turn', (), 'step', groups),
        Box('metric sums', 'device', ['over examples, masked']),
        Box('metrics', 'host', [', '.join(measured[:6]) or 'not measured yet', *later]),
    ]
    return Flow(boxes, described.get('methods') or [])


def _group_totals(layers: Mapping[str, Any]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for row in layers.get('rows', ()):
        totals[row['group']] = totals.get(row['group'], 0) + row['parameters']
    return totals


def model(description: Mapping[str, Any]) -> Model | None:
    """Arranges layers, costs and an example; None for a run without a description."""
    layers = description.get('layers') or {}
    if not layers:
        return None
    several = len({row['group'] for row in layers['rows']}) > 1
    rows, group = [], ''
    for row in layers['rows']:
        heading = row['group'] if several and row['group'] != group else ''
        group = row['group']
        trained = [array['trained'] for array in row['arrays'] if array['collection'] == 'params']
        state = '' if not trained else 'trained' if all(trained) else 'in part' if any(trained) else 'frozen'
        shapes = [text for text, _ in array_lines(row)]
        rows.append(Layer(heading, row['path'] or group, shapes, f'{row["parameters"]:,}', state))
    memory = description.get('memory') or {}
    return Model(
        rows, len(rows) <= OPEN_LAYERS, totals_lines(layers['totals']), _memory_shares(memory),
        _memory_text(memory), _work_text(description.get('flops') or {}), _example(description.get('example') or {}),
    )  # fmt: skip


def _memory_shares(memory: Mapping[str, Any]) -> list[Share]:
    parts = {name: memory[name] for name in ('arguments', 'outputs', 'temporaries') if memory.get(name)}
    total = sum(parts.values()) or 1
    return [Share(name, bytes_text(size), 100 * size / total) for name, size in parts.items()]


def _memory_text(memory: Mapping[str, Any]) -> str:
    if not memory:
        return ''
    limit = f', of {bytes_text(memory["limit"])}' if memory.get('limit') else ''
    estimate = ' (an estimate on CPU)' if memory.get('estimate') else ''
    return f'One step needs {bytes_text(memory["total"])} on each device{limit}{estimate}.'


def _work_text(flops: Mapping[str, Any]) -> str:
    if not flops:
        return ''
    share = 100 * flops['matrix'] / max(flops['total'], 1)
    count = count_text(flops['total'], 'FLOP')
    notes = ''.join(f' {note.capitalize()}.' for note in flops['notes'])
    return f'It computes {count}, {share:.0f}% of them in matrix products and convolutions.{notes}'


def _example(example: Mapping[str, Any]) -> list[tuple[str, Shown]]:
    if not example.get('raw'):
        return []
    first = ('decoded', example['decoded']) if example.get('decoded') else ('raw', example['raw'])
    parts = [first, *([('encoded', example['encoded'])] if example.get('encoded') else [])]
    return [(label, shown(value)) for label, value in parts]


def config_cards(config: Mapping[str, Any]) -> list[tuple[str, list[Setting]]]:
    """Groups every setting by its section, those without one under 'other'."""
    plain = {name: value for name, value in config.items() if not isinstance(value, dict)}
    sections = {name: value for name, value in config.items() if isinstance(value, dict) and value}
    cards = {**sections, **({'other': plain} if plain else {})}
    return [(name, settings(values)) for name, values in cards.items()]


def settings(values: Mapping[str, Any]) -> list[Setting]:
    """Lists settings as names and texts, nested ones below their name."""
    rows = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows.append(Setting(name, '', settings(value)))
        else:
            text = ', '.join(map(str, value)) or '()' if isinstance(value, list) else str(value)
            rows.append(Setting(name, text or "''"))
    return rows


def environment(stored: Mapping[str, Any]) -> Environment | None:
    """Arranges environment.json: the time of each stage, the command, versions and devices; None without it."""
    if not stored:
        return None
    stages, whole = stored.get('stages') or {}, stored.get('seconds')
    longest = max(stages.values(), default=0) or 1
    shares = [Share(name, time_text(seconds), 100 * seconds / longest) for name, seconds in stages.items()]
    total = f'{time_text(whole)} in total' if isinstance(whole, (int, float)) else ''
    total += ' (of the last start)' if stored.get('seconds_before') else ''
    apart = ('stages', 'seconds', 'seconds_before', 'command')
    rest = {name: value for name, value in stored.items() if name not in apart}
    return Environment(shares, total, stored.get('command') or '', settings(rest))
