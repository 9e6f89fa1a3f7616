"""What a run prints and stores: the description before step 1, and the summary with the next commands at the end."""

import json
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from research.core.environment import describe_devices
from research.core.logs import write_text
from research.core.metrics import metrics_text
from research.core.outcome import Stop, Summary
from research.core.private import contents_note, is_private
from research.core.runspec import RunSpec
from research.core.startup import as_dicts
from research.core.task import Task
from research.data.notes import data_notes
from research.errors import name_of
from research.ops import paths
from research.report.describe import describe, describe_example, describe_flow, summary_text
from research.report.layers import call_order, describe_layers
from research.units import time_text

MAX_NAMED = 4  # parameters in a note


def describe_run(
    spec: RunSpec, memory: Mapping[str, Any], flops: Mapping[str, Any], seconds_per_step: float, workdir: epath.Path,
    start: int, initial: Sequence[str] = (),
) -> None:  # fmt: skip
    """Prints what is known before the first step and stores it as description.json.

    Args:
      spec: the run.
      memory: of the compiled step, see `compiled_memory`.
      flops: of one step, see `count_flops`.
      seconds_per_step: an estimate; 0 if there is no estimate.
      workdir: the folder of the run.
      start: the step from which it starts or resumes.
      initial: paths of the parameters that have their initial values.
    """
    task, config = spec.task, spec.config
    shapes = spec.state.variables
    frozen = {
        group: paths.select(shapes.params[group], settings.frozen) for group, settings in config.optimizer.items()
    }
    layers = describe_layers(shapes, task.losses, frozen, call_order(task.init, jax.random.key(0)))
    splits = ('train', *dict.fromkeys(filter(None, (config.train.eval_split, config.train.test_split))))
    words = {
        group: settings.name + (f', every {settings.update_every} steps' if settings.update_every > 1 else '')
        for group, settings in config.optimizer.items()
    }
    description = describe(
        as_dicts(config), describe_devices(spec.mesh), layers, first_example(spec),
        {split: len(task.source(split)) for split in splits}, spec.steps, start, memory,
        flops, describe_flow(task, spec.batch, tuple(map(name_of, config.methods)), words),
        seconds_per_step=seconds_per_step,
    )  # fmt: skip
    of_task = task.notes() if task.notes else ()
    of_rows = [contents_note(workdir)] if is_private(task) else data_notes(task.source('train'))
    description['notes'] = [
        *untrained_notes(spec, start, initial), *of_task, *of_rows, *coupling_notes(spec),
    ]  # fmt: skip
    write_text(workdir / 'description.json', json.dumps(description, indent=2))
    print(summary_text(description))
    for note in description['notes']:
        print(f'note: {note}')


def first_example(spec: RunSpec) -> dict[str, Any]:
    """The first training row in readable form; of a private run, only the shapes of its encoded fields."""
    task = spec.task
    raw = task.source('train')[0]
    encoded = task.encode(raw)
    if not is_private(task):
        return describe_example(raw, encoded, task.describe(encoded) if task.describe else None)
    shapes = {name: np.asarray(value) for name, value in encoded.items()}
    shapes = {name: f'{value.dtype} [{", ".join(map(str, value.shape))}]' for name, value in shapes.items()}
    return {'raw': {'row': 'not shown: this run is private'}, 'decoded': {}, 'encoded': shapes}


def untrained_notes(spec: RunSpec, start: int, initial: Sequence[str]) -> list[str]:
    """Warns that a run without steps evaluates parameters that were never trained."""
    if spec.steps or start or not initial:
        return []
    count = len(paths.flatten_paths(spec.state.variables.params))
    if len(initial) == count:
        how = 'set train.steps or train.epochs, or load weights (model.weights or train.init_from)'
        return [f'the model is untrained: train.steps is 0 and no weights are loaded; {how}']
    named = ', '.join(initial[:MAX_NAMED]) + (', ...' if len(initial) > MAX_NAMED else '')
    return [f'{len(initial)} of {count} parameter arrays are untrained: train.steps is 0, no weights have {named}']


def coupling_notes(spec: RunSpec) -> list[str]:
    """Notes where microbatches or padding rows differ from one large batch of real rows."""
    coupled = [group for group in spec.task.losses if 'batch_stats' in spec.state.variables.extra.get(group, {})]
    parts, notes = spec.config.train.microbatches, []
    if spec.task.couples_rows and parts > 1:
        notes.append(
            f'the rows of a batch are mixed ({spec.task.couples_rows}); with microbatches={parts}, only those of the '
            'same microbatch'
        )
    for group in coupled:
        if parts > 1:
            notes.append(
                f'group {group!r} keeps batch statistics; with microbatches={parts} they are computed per '
                'microbatch, so the result differs from one large batch'
            )
        if spec.capacity:
            notes.append(
                f"group {group!r} keeps batch statistics; with sampling='poisson' batches contain "
                'padding rows, which enter these statistics'
            )
    return notes


def print_summary(summary: Summary, spec: RunSpec, workdir: epath.Path) -> None:
    """Prints the end of a run: why it stopped, metrics, PASS or FAIL, the report, and the next commands."""
    print(end_text(summary, spec, workdir))


def end_text(summary: Summary, spec: RunSpec, workdir: epath.Path) -> str:
    """Formats the end of a run for `print_summary`."""
    reason = stop_text(summary, spec)
    lines = ['', reason] if reason else ['']
    if summary.stop == Stop.SIGNAL:
        return '\n'.join([*lines, 'saved; the same command resumes from here'])
    lines += [metrics_text(entry) for entry in summary.metrics.values()]
    rows = [row for entry in summary.metrics.values() for row in entry['metrics'].values()]
    if summary.failures:
        lines.append(f'FAIL: outside the expected range: {", ".join(summary.failures)}')
    elif any(row['expected'] for row in rows):
        lines.append('PASS: every metric with an expected range is inside it')
    waited = f'; {summary.waited:.1%} of the training time waiting for data'
    lines.append(f'{time_text(summary.seconds)} in total' + ('' if summary.stop == Stop.ALREADY_DONE else waited))
    lines += ['', f'report    {summary.report}']
    lines.append(f'next      python -m launch.predict --workdir={workdir} {next_flags(spec.task, workdir)}')
    return '\n'.join(lines)


def stop_text(summary: Summary, spec: RunSpec) -> str:
    """Explains why a run stopped early, or that it was finished before; '' after the last step."""
    train = spec.config.train
    if summary.stop == Stop.SIGNAL:
        return f'stopped at step {summary.step:,} by {signal_name(summary.signal)}'
    if summary.stop == Stop.PATIENCE:
        return (
            f'stopped at step {summary.step:,}: no better {train.eval_split} {train.best} in {train.patience} '
            'evaluations'
        )
    if summary.stop == Stop.ALREADY_DONE:
        return f'the run was finished before, at step {summary.step:,}: nothing is left to train'
    if summary.step > spec.steps:
        return f'the run had {summary.step:,} steps already, more than the {spec.steps:,} of this config'
    return ''


def signal_name(number: int) -> str:
    """The name of a signal, such as 'SIGTERM'."""
    return next((known.name for known in signal.Signals if known == number), f'signal {number}')


def next_flags(task: Task, workdir: epath.Path) -> str:
    """Suggests flags of a prediction for the inputs of this run."""
    kinds = {field.kind for field in task.inputs.values()}
    values = {'text': "'...'", 'sequence': "'...'"}
    values |= {'image': 'picture.png', 'audio': 'sound.wav', 'array': 'request.json'}
    for kind, value in values.items():
        if kind in kinds:
            return f'--input={value}'
    if task.inputs and not task.examples:
        return '--input=rows.csv'
    return f'--count=16 --output={workdir}/predictions'
