"""Checks the data of a config in one pass: what they contain, and problems that would affect training.

The task is prepared in a temporary folder from the readable rows; nothing is trained or compiled.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from research.core.config import Config
from research.core.task import Context, Input, Task
from research.data.check import splits as check_splits
from research.data.check import survey as check
from research.data.check.survey import Finding, chosen_numbers
from research.data.dataset import file_settings, open_files
from research.data.readers.rows import label_of, label_text, select
from research.data.readers.settings import DataSettings
from research.errors import UserError
from research.ops.paths import flatten_paths

SPLITS = ('train', 'validation', 'test')


def check_data(
    config: Config, prepare: Callable, build: Callable, limit: int = 0, say: Callable[[str], None] = lambda text: None
) -> tuple[list, list]:
    """Returns (the survey of each split that could be opened, all findings).

    Args:
      config: as checked by `read_config`.
      prepare: (config, folder) -> None, and
      build: (config, folder) -> Task, as for `train.run`.
      limit: rows of each split to read, evenly spaced; 0 for all.
      say: receives lines of progress.
    """
    say('preparing the task')
    with tempfile.TemporaryDirectory() as folder:
        task, findings = build_task(config, epath.Path(folder), prepare, build)
        bounds, inputs = (bounds_of(task), task.inputs) if task else ({}, {})
        allowed = -1
        if config.data.get('on_error') == 'skip':
            allowed = config.data.get('error_limit', DataSettings.error_limit)
        raw_of = raw_source(config, task)
        surveys, resolved, names = [], [], {}
        for split in splits_of(config):
            say(f'{split}: opening the files')
            raw, rows, open_errors = open_split(raw_of, task, split)
            findings += open_errors + reader_findings(split, raw)
            if raw is None and rows is None:
                continue
            if raw is not None:
                names[split] = raw_labels(raw, limit)
            surveyed = chosen_rows(raw, whole_rows(rows, inputs) if task and task.split else rows, inputs)
            seen = check.survey(split, surveyed, inputs, limit, say)
            seen.broken = list(dict.fromkeys([*seen.broken, *getattr(raw, 'skipped', ())]))
            encoding_errors = []
            if task and rows is not None:
                one_shape = task.buckets is None
                encoding_errors = check.encode_all(seen, rows, task.encode, bounds, limit, say, one_shape)
            resolved += [split] if rows is not None and not encoding_errors else []
            surveys.append(seen)
            limits = without_limits(inputs) if surveyed is raw else inputs
            findings += check.check_split(seen, limits, allowed) + encoding_errors
        findings += task_findings(task)
        say('comparing the splits')
        check_splits.name_labels(surveys, names)
        findings += (
            check_splits.check_classes(names, resolved)
            + check_splits.check_balance(surveys)
            + compare_splits(surveys)
        )
    return surveys, merged(findings)


def reader_findings(split: str, rows: Any) -> list[Finding]:
    """Notes of a reader on its files: what it left out or guessed."""
    return [Finding(note.level, split, note.text) for note in getattr(rows, 'notes', ())]


def task_findings(task: Task | None) -> list[Finding]:
    """Notes of the task on its training data, such as how much of long texts is truncated."""
    try:
        return [Finding('warning', 'train', text) for text in (task.notes() if task and task.notes else ())]
    except UserError:  # the split cannot be opened, which is reported separately
        return []


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """Merges equal findings of several splits into one that names them all."""
    unique: list[Finding] = []
    for finding in findings:
        same = next(
            (
                number
                for number, other in enumerate(unique)
                if other.level == finding.level
                and (other.text == finding.text or other.text.endswith(f': {finding.text}'))
            ),
            None,
        )
        if same is None:
            unique.append(finding)
        elif finding.split not in unique[same].split.split(', '):
            unique[same] = unique[same]._replace(split=f'{unique[same].split}, {finding.split}')
    return unique


def chosen_rows(raw: Any, rows: Any, inputs: Mapping[str, Any]) -> Any:
    """Rows to survey: the task's, if they have the input fields, else the reader's."""
    if raw is not None and getattr(rows, 'refused', ()):  # survey rows that the task left out too
        return raw
    readable = rows is not None and len(rows) and (raw is None or set(inputs) <= set(row_or_none(rows)))
    return rows if readable or raw is None else raw


def whole_rows(rows: Any, inputs: Mapping[str, Input]) -> Any:
    """One row for each group of adjacent parts ('window') of the same row, as a task with `split` trains on them."""
    if rows is None or 'window' not in row_or_none(rows):
        return rows
    numbers, last = [], None
    for number in range(len(rows)):
        row = rows[number]
        content = [row.get(name) for name in inputs]
        numbers += [number] if content != last or not row['window'] else []
        last = content
    return select(rows, numbers)


def without_limits(inputs: Mapping[str, Input]) -> dict[str, Input]:
    """Inputs without request limits, which do not apply to texts that are cut into rows."""
    return {name: field._replace(limit=0) for name, field in inputs.items()}


def row_or_none(rows: Any) -> Mapping[str, Any]:
    """The first row, or {} if it cannot be read."""
    try:
        return dict(rows[0])
    except UserError:
        return {}


def raw_labels(raw: Any, limit: int) -> list[str]:
    """Labels of a reader's rows as text."""
    labels = (label_of(raw, number) for number in chosen_numbers(len(raw), limit))
    return [label_text(label) for label in labels if label is not None]


def compare_splits(surveys: Sequence[Any]) -> list:
    """Findings of comparing the training split with every split."""
    train = next((seen for seen in surveys if seen.split == 'train'), None)
    findings = []
    for other in surveys if train else ():
        findings += check_splits.check_values(train, other)  # pyright: ignore[reportArgumentType]
        if other is not train:
            fields = [
                ('text', other.texts),
                ('image', other.pictures),
                ('audio', other.sounds),
                ('', other.values),
            ]
            findings += check_splits.check_between(train, other, [kind for kind, values in fields if values])  # pyright: ignore[reportArgumentType]
    return findings


def build_task(
    config: Config, folder: epath.Path, prepare: Callable, build: Callable
) -> tuple[Task | None, list[Finding]]:
    """Prepares and builds the task from the readable rows; returns (None, errors) if that fails."""
    if config.data.get('reader'):  # skip broken records so that one does not hide the others
        config = dataclasses.replace(config, data=lenient(config.data))
    settings = dataclasses.replace(config.train, init_from='')
    config = dataclasses.replace(config, methods=(), settings={}, train=settings)
    try:
        prepare(config, folder)
        return build(config, folder), []
    except UserError as error:
        return None, [Finding('error', 'train', f'the task cannot be prepared: {error}')]


def lenient(data: Mapping[str, Any]) -> dict[str, Any]:
    """`config.data` with every broken record skipped and counted."""
    return {**data, 'on_error': 'skip', 'error_limit': 10**9}


def splits_of(config: Any) -> tuple[str, ...]:
    """Splits that a run of the config reads."""
    return tuple(
        split for split in SPLITS if split in ('train', config.train.eval_split, config.train.test_split)
    )


def raw_source(config: Any, task: Any) -> Callable[[str], Any] | None:
    """A function from a split to the reader's rows; None for a built-in set."""
    if not config.data.get('reader'):
        return None
    required = [
        name
        for name, field in (task.inputs if task else {}).items()
        if field.kind in ('text', 'sequence', 'image', 'audio')
    ]
    try:
        required += ['label'] if task and 'label' in task.encode(task.source('train')[0]) else []
    except UserError:  # reported when that row is surveyed
        required += ['label']
    try:
        return open_files(file_settings(lenient(config.data)), required).source
    except UserError:  # an unknown setting, already reported by preparing the task
        return None


def open_split(raw_of: Callable[[str], Any] | None, task: Any, split: str) -> tuple[Any, Any, list]:
    """Opens a split as (reader's rows, task's rows, errors); rows are None if they cannot be opened."""
    rows, findings = [], []
    for source in (raw_of, task.source if task else None):
        try:
            rows.append(source(split) if source else None)
        except UserError as error:
            rows.append(None)
            findings.append(Finding('error', split, str(error)))
    return *rows, findings


def bounds_of(task: Any) -> dict[str, int]:
    """Exclusive upper bounds of encoded integer fields: {field: bound}.

    Labels are bounded by the number of scores of the model, ids by its largest embedding.
    """

    try:
        example = task.encode(task.source('train')[0])
    except (UserError, IndexError):  # reported when that row is surveyed
        return {}
    variables = jax.eval_shape(task.init, jax.random.key(0))
    batch = {
        name: jax.ShapeDtypeStruct((1, *np.shape(value)), np.asarray(value).dtype)
        for name, value in example.items()
    }
    batch |= {'index': jax.ShapeDtypeStruct((1,), np.int32), 'mask': jax.ShapeDtypeStruct((1,), np.float32)}

    def predict(variables, batch, key, step):
        return task.predict(variables, batch, Context(key, step, False))

    outputs = jax.eval_shape(predict, variables, batch, jax.random.key(0), jax.ShapeDtypeStruct((), np.int32))
    scores = next((outputs[name] for name in ('logits', 'probability') if name in outputs), None)
    tables = [
        leaf.shape[-2] for path, leaf in flatten_paths(variables.params).items() if path.endswith('embedding')
    ]
    bounds = {}
    for name, value in example.items():
        if np.asarray(value).dtype.kind in 'iu':
            if name == 'label' and scores is not None and len(scores.shape) == 2:
                bounds[name] = scores.shape[-1]
            elif np.ndim(value) and tables:
                bounds[name] = max(tables)
    return bounds
