"""One pass over the data of a config: what is in them, and what would spoil a run.

The task is prepared in a folder that vanishes, from what can be read; nothing is trained or compiled.
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
from research.data.readers.rows import label_of, label_text
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
      limit: rows of each split that are looked at, evenly spread; 0 for all.
      say: takes a line about what is being done.
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
            raw, rows, found = open_split(raw_of, task, split)
            findings += found + reader_findings(split, raw)
            if raw is None and rows is None:
                continue
            if raw is not None:
                names[split] = raw_labels(raw, limit)
            looked_at = chosen_rows(raw, rows, inputs)
            seen = check.survey(split, looked_at, inputs, limit, say)
            seen.broken = list(dict.fromkeys([*seen.broken, *getattr(raw, 'skipped', ())]))
            found = check.encode_all(seen, rows, task.encode, bounds, limit, say) if rows is not None else []  # pyright: ignore[reportOptionalMemberAccess]
            resolved += [split] if rows is not None and not found else []
            surveys.append(seen)
            limits = inputs if looked_at is rows else without_limits(inputs)
            findings += check.check_split(seen, limits, allowed) + found
        findings += task_findings(task)
        say('comparing the splits')
        check_splits.name_labels(surveys, names)
        findings += (
            check_splits.check_classes(names, resolved)
            + check_splits.check_balance(surveys)
            + between(surveys)
        )
    return surveys, merged(findings)


def reader_findings(split: str, rows: Any) -> list[Finding]:
    """Returns what a reader noted of its files: what it left out or guessed."""
    return [Finding(each.level, split, each.text) for each in getattr(rows, 'notes', ())]


def task_findings(task: Task | None) -> list[Finding]:
    """Returns what the task notes of its training data, such as how much of long texts is cut."""
    try:
        return [Finding('warning', 'train', text) for text in (task.notes() if task and task.notes else ())]
    except UserError:  # the split cannot be opened, which is reported separately
        return []


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """Returns findings once each: the same of several splits as one that names them."""
    found: list[Finding] = []
    for each in findings:
        same = next(
            (
                number
                for number, other in enumerate(found)
                if other.level == each.level and (other.text == each.text or other.text.endswith(f': {each.text}'))
            ),
            None,
        )
        if same is None:
            found.append(each)
        elif each.split not in found[same].split.split(', '):
            found[same] = found[same]._replace(split=f'{found[same].split}, {each.split}')
    return found


def chosen_rows(raw: Any, rows: Any, inputs: Mapping[str, Any]) -> Any:
    """Returns the rows to look at: the task's own, where they have the fields that people write."""
    if raw is not None and getattr(rows, 'refused', ()):  # rows that the task left out are looked at too
        return raw
    readable = rows is not None and len(rows) and (raw is None or set(inputs) <= set(row_or_none(rows)))
    return rows if readable or raw is None else raw


def without_limits(inputs: Mapping[str, Input]) -> dict[str, Input]:
    """Returns inputs without the limits of a request, which a text to be cut into rows need not keep."""
    return {name: each._replace(limit=0) for name, each in inputs.items()}


def row_or_none(rows: Any) -> Mapping[str, Any]:
    """Returns the first row, or {} where it cannot be read."""
    try:
        return dict(rows[0])
    except UserError:
        return {}


def raw_labels(raw: Any, limit: int) -> list[str]:
    """Returns the labels of the rows of a reader as text."""
    labels = (label_of(raw, number) for number in chosen_numbers(len(raw), limit))
    return [label_text(label) for label in labels if label is not None]


def between(surveys: Sequence[Any]) -> list:
    """Returns what the splits share or should share."""
    train = next((each for each in surveys if each.split == 'train'), None)
    findings = []
    for each in surveys if train else ():
        findings += check_splits.check_values(train, each)  # pyright: ignore[reportArgumentType]
        if each is not train:
            fields = [
                ('text', each.texts),
                ('image', each.pictures),
                ('audio', each.sounds),
                ('', each.values),
            ]
            findings += check_splits.check_between(train, each, [kind for kind, there in fields if there])  # pyright: ignore[reportArgumentType]
    return findings


def build_task(
    config: Config, folder: epath.Path, prepare: Callable, build: Callable
) -> tuple[Task | None, list[Finding]]:
    """Returns the task, prepared from what can be read, or None with the error that forbids it."""
    if config.data.get('reader'):  # broken records are counted, so that one does not hide the others
        config = dataclasses.replace(config, data=lenient(config.data))
    settings = dataclasses.replace(config.train, init_from='')
    config = dataclasses.replace(config, methods=(), settings={}, train=settings)
    try:
        prepare(config, folder)
        return build(config, folder), []
    except UserError as error:
        return None, [Finding('error', 'train', f'the task cannot be prepared: {error}')]


def lenient(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `config.data` so that every broken record is passed over and counted."""
    return {**data, 'on_error': 'skip', 'error_limit': 10**9}


def splits_of(config: Any) -> tuple[str, ...]:
    """Returns the splits that a run of the config reads."""
    return tuple(
        split for split in SPLITS if split in ('train', config.train.eval_split, config.train.test_split)
    )


def raw_source(config: Any, task: Any) -> Callable[[str], Any] | None:
    """Returns the function from a split to its rows as the reader gives them; None for a built-in set."""
    if not config.data.get('reader'):
        return None
    required = [
        name
        for name, each in (task.inputs if task else {}).items()
        if each.kind in ('text', 'sequence', 'image', 'audio')
    ]
    try:
        required += ['label'] if task and 'label' in task.encode(task.source('train')[0]) else []
    except UserError:  # reported where that row is looked at
        required += ['label']
    try:
        return open_files(file_settings(lenient(config.data)), required).source
    except UserError:  # an unknown setting, which preparing the task has reported
        return None


def open_split(raw_of: Callable[[str], Any] | None, task: Any, split: str) -> tuple[Any, Any, list]:
    """Returns a split's rows as the reader and as the task give them, None where they cannot, and why."""
    rows, findings = [], []
    for source in (raw_of, task.source if task else None):
        try:
            rows.append(source(split) if source else None)
        except UserError as error:
            rows.append(None)
            findings.append(Finding('error', split, str(error)))
    return *rows, findings


def bounds_of(task: Any) -> dict[str, int]:
    """Returns {encoded field of whole numbers: the first number that is too large for the model}.

    The classes are as many as a model has scores; ids must lie in the largest embedding.
    """

    try:
        example = task.encode(task.source('train')[0])
    except (UserError, IndexError):  # reported where that row is looked at
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
