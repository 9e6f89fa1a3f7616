"""The description of a run before its first step: devices, layers, one example, memory, work and time.

The functions return plain JSON, which the run stores as description.json for the report; `summary_text` formats it
for the terminal.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.core.task import Task
from research.data.readable import array_text, readable
from research.memory import memory_text
from research.report.layers import layer_table
from research.units import count_text, time_text


def describe_example(
    raw: Mapping[str, Any],
    encoded: Mapping[str, Any] | None = None,
    decoded: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describes one example: each raw field, and the shapes and values it is encoded to.

    Args:
      raw: one row of the source, with its target.
      encoded: the result of the task's `encode`, without a batch axis.
      decoded: `encoded` as the task's `describe` reads it; replaces `raw`, which may be token ids.
    """
    return {
        'raw': {str(name): readable(value) for name, value in raw.items()},
        'decoded': {str(name): readable(value, 1000) for name, value in (decoded or {}).items()},
        'encoded': {str(name): array_text(np.asarray(value)) for name, value in (encoded or {}).items()},
    }


def describe_flow(
    task: Task,
    batch: Mapping[str, Any],
    methods: Sequence[str] = (),
    optimizers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Describes how data runs through a task, for the diagram in the report.

    Args:
      task: the task with all methods applied.
      batch: arrays or shapes of one batch.
      methods: names of the methods in the order of their application.
      optimizers: {group: its optimizer in a few words, such as 'adamw, every 3 steps'}.
    """
    optional = ('generate', 'finalize', 'render')
    return {
        'inputs': {name: given.kind for name, given in task.inputs.items()},
        'batch': {
            name: f'{value.dtype} [{", ".join(map(str, value.shape))}]' for name, value in batch.items()
        },
        'groups': {name: (optimizers or {}).get(name, '') for name in task.losses},
        'gradients': sorted(task.gradients),
        'methods': list(methods),
        'has': [name for name in optional if getattr(task, name) is not None],
    }


def describe(
    config: Mapping[str, Any],
    devices: Mapping[str, Any],
    layers: Mapping[str, Any],
    example: Mapping[str, Any],
    data: Mapping[str, int],
    steps: int,
    start: int = 0,
    memory: Mapping[str, Any] | None = None,
    flops: Mapping[str, Any] | None = None,
    flow: Mapping[str, Any] | None = None,
    seconds_per_step: float = 0.0,
) -> dict[str, Any]:
    """Collects what is stored as description.json and printed by `summary_text`.

    Args:
      config: the resolved config as nested dicts.
      devices, layers, example, memory, flops, flow: the results of `describe_devices`, `describe_layers`,
        `describe_example`, `compiled_memory`, `count_flops` (of one step) and `describe_flow`.
      data: examples in each split.
      steps: the last step of the run; `start` is above 0 for a resumed run.
      seconds_per_step: 0 while it is unknown.
    """
    batch = int(config['train']['batch_size'])
    return {
        'task': str(config['task']['name']),
        'devices': dict(devices),
        'layers': dict(layers),
        'example': dict(example),
        'data': {name: int(size) for name, size in data.items()},
        'steps': {
            'start': start,
            'steps': steps,
            'batch_size': batch,
            'epochs': steps * batch / data['train'] if data.get('train') else 0.0,
            'seconds_per_step': seconds_per_step,
            'seconds': seconds_per_step * (steps - start),
        },
        'memory': dict(memory or {}),
        'flops': dict(flops or {}),
        'flow': dict(flow or {}),
    }


def summary_text(description: Mapping[str, Any]) -> str:
    """Formats the result of `describe` as the block that is printed before step 1."""
    devices, steps, example = description['devices'], description['steps'], description['example']
    mesh = ', '.join(f'{name} {size}' for name, size in devices['mesh'].items())
    plural = 's' if devices['count'] > 1 else ''
    processes = f', {devices["processes"]} processes' if devices['processes'] > 1 else ''
    kind = devices['kind'] if devices['kind'] != devices['platform'] else ''
    lines = [
        'Layers',
        layer_table(description['layers']),
        '',
        'One training example',
        *(_field(name, value) for name, value in (example.get('decoded') or example['raw']).items()),
        *(['  encoded as'] if example['encoded'] else []),
        *(_field(name, value, 4) for name, value in example['encoded'].items()),
        '',
        f'Devices   {devices["count"]} {devices["platform"]} device{plural} {kind}'.rstrip()
        + processes
        + (f'; mesh: {mesh}' if mesh else ''),
        'Data      '
        + ', '.join(f'{name} {size:,}' for name, size in description['data'].items())
        + ' examples',
    ]
    if description['memory']:
        lines.append(f'Memory    {memory_text(description["memory"])}')
    if description['flops']:
        flops = description['flops']
        share = 100 * flops['matrix'] / max(flops['total'], 1)
        lines.append(
            f'Work      {count_text(flops["total"], "FLOP")} per step, {share:.0f}% of it in matrix products'
        )
        lines += [f'          ({note})' for note in flops['notes']]
    todo = steps['steps'] - steps['start']
    epochs = f' ({steps["epochs"]:.3g} epochs)' if steps['epochs'] else ''
    lines.append(
        f'Steps     {steps["steps"]:,} of {steps["batch_size"]} examples{epochs}'
        + (f', {todo:,} left' if steps['start'] else '')
    )
    if steps['seconds']:
        milliseconds = 1000 * steps['seconds_per_step']
        lines.append(
            f'Time      about {time_text(steps["seconds"])}, {milliseconds:.3g} ms per step, at a third of the rate of '
            'a large matrix product on this device'
        )
    return '\n'.join(lines)


def _field(name: str, value: Any, indent: int = 2) -> str:
    """Formats one field of the example; several lines are indented under its name."""
    text = value if isinstance(value, str) else repr(value)
    # A data set must not move the cursor of the terminal or colour it.
    text = ''.join(sign if sign.isprintable() or sign == '\n' else '�' for sign in text.expandtabs(4))
    if '\n' not in text:
        return f'{" " * indent}{name}: {text}'
    return '\n'.join([f'{" " * indent}{name}:', *(' ' * (indent + 2) + line for line in text.split('\n'))])
