"""Label statistics of a training split and encoding of labels as arrays."""

import collections
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from etils import epath

from research.data.notes import log_once
from research.data.readers.fields import label_notes
from research.data.readers.rows import check_limit, label_text, sort_names
from research.data.table.cells import read_number
from research.errors import UserError, nearest

Kind = Literal['single', 'multi', 'number']  # one class, any number of them, or a number


class LabelFacts(NamedTuple):
    """Statistics of the labels of the training split."""

    kind: str  # a `Kind`
    classes: list  # names, in the order of their indices
    counts: list  # training rows with each
    size: int  # training rows
    mean: float
    deviation: float
    about: str


def names_of(label: Any, separator: str) -> list[str]:
    """Splits a row's labels into distinct names: a list, or a text joined by `separator`."""
    parts = label.split(separator) if isinstance(label, str) else label if isinstance(label, (list, tuple)) else [label]
    return list(dict.fromkeys(name for name in (label_text(part).strip() for part in parts) if name))


def number_of(label: Any) -> float:
    """Parses a label as a finite number; raises UserError otherwise."""
    try:
        value = read_number(label)
    except ValueError:
        value = None
    if value is None:
        raise UserError(f'the label {label!r:.40} is not a finite number (config.task.labels is "number")')
    return value


def checked_labels(rows: Sequence[Mapping[str, Any]], check: Callable[[Any], Any]) -> list[Any]:
    """Applies `check` to the label of each row; rows that fail are left out if their reader skips broken records.

    Raises:
      UserError: names the row.
    """
    values, messages = [], []
    limit, where = getattr(rows, 'error_limit', -1), getattr(rows, 'where', lambda number: f'row {number + 1}')
    for number, row in enumerate(rows):
        try:
            values.append(check(row['label']))
        except UserError as error:
            messages.append(f'{where(number)}: {error}')
            if limit < 0:
                raise UserError(messages[-1]) from None
            check_limit(messages, limit)
    return values


def collect(rows: Sequence[Mapping[str, Any]], kind: Kind, separator: str, about: str) -> LabelFacts:
    """Computes the label statistics of the training rows.

    Raises:
      UserError: if all labels are equal, so there is nothing to learn.
    """
    if kind == 'number':
        values = np.array(checked_labels(rows, number_of))
        if not len(values) or not values.std() > 1e-12 * np.abs(values).max():
            raise UserError(f'the labels of the training rows are all {values[:1].sum():g}: nothing to learn')
        return LabelFacts(kind, [], [], len(values), float(values.mean()), float(values.std()), about)
    counter: collections.Counter = collections.Counter()
    for row in rows:
        counter.update(names_of(row['label'], separator) if kind == 'multi' else [label_text(row['label']).strip()])
    if len(counter) < (1 if kind == 'multi' else 2):
        raise UserError(f'the training rows are all of one class: {", ".join(counter) or "none"}')
    classes = list(sort_names(counter))
    for note in label_notes(classes):
        log_once('warning', note)
    return LabelFacts(kind, classes, [counter[name] for name in classes], len(rows), 0.0, 1.0, about)


def make_encode_label(facts: LabelFacts, separator: str) -> Callable[[Any], np.ndarray]:
    """Makes the function from a label to its array: int32, float32 [classes] of 0 and 1, or float32.

    The function raises UserError for a class that is not in the training split.
    """
    numbers = {name: number for number, name in enumerate(facts.classes)}

    def number(name: str) -> int:
        if name not in numbers:
            raise UserError(
                f'class {name!r} is not among the {len(numbers)} of the training split; {nearest(name, numbers)}'
            )
        return numbers[name]

    def encode(label: Any) -> Any:
        if facts.kind == 'number':
            return np.float32(number_of(label))
        if facts.kind == 'single':
            return np.int32(number(label_text(label).strip()))
        row = np.zeros(len(numbers), np.float32)
        row[[number(name) for name in names_of(label, separator)]] = 1
        return row

    return encode


def write_labels(facts: LabelFacts, folder: epath.Path) -> None:
    """Writes the statistics to 'labels.json'."""
    (folder / 'labels.json').write_text(json.dumps(facts._asdict(), ensure_ascii=False), encoding='utf-8')


def read_labels(folder: epath.Path) -> LabelFacts:
    """Reads the statistics that `write_labels` stored."""
    return LabelFacts(**json.loads((folder / 'labels.json').read_text(encoding='utf-8')))
