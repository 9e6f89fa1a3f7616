"""Labels of a training split: names and counts of classes, or mean and deviation of numbers; and their arrays."""

import collections
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from absl import logging
from etils import epath

from research.data.readers.fields import label_notes
from research.data.readers.rows import check_limit, label_text, sort_names
from research.data.table.cells import read_number
from research.errors import UserError, nearest

Kind = Literal['single', 'multi', 'number']  # one class, any number of them, or a number


class LabelFacts(NamedTuple):
    """What is known of the labels of the training split."""

    kind: str
    classes: list  # names, in the order of the labels
    counts: list  # training rows with each
    size: int  # training rows
    mean: float
    deviation: float
    about: str


def names_of(label: Any, separator: str) -> list[str]:
    """Returns the names of a row's labels, each once: a list, or a text with `separator` between them."""
    parts = label.split(separator) if isinstance(label, str) else label if isinstance(label, (list, tuple)) else [label]
    return list(dict.fromkeys(name for name in (label_text(part).strip() for part in parts) if name))


def number_of(label: Any) -> float:
    """Returns a label as a finite number; a `UserError` otherwise."""
    try:
        value = read_number(label)
    except ValueError:
        value = None
    if value is None:
        raise UserError(f'the label {label!r:.40} is no finite number (config.task.labels is "number")')
    return value


def readable(rows: Sequence[Mapping[str, Any]], check: Callable[[Any], Any]) -> list[Any]:
    """Returns `check(label)` of all rows; rows whose reader may skip broken records are left out where it fails.

    Raises:
      UserError: says where the row is.
    """
    found, messages = [], []
    limit, where = getattr(rows, 'error_limit', -1), getattr(rows, 'where', lambda number: f'row {number + 1}')
    for number, row in enumerate(rows):
        try:
            found.append(check(row['label']))
        except UserError as error:
            messages.append(f'{where(number)}: {error}')
            if limit < 0:
                raise UserError(messages[-1]) from None
            check_limit(messages, limit)
    return found


def collect(rows: Sequence[Mapping[str, Any]], kind: Kind, separator: str, about: str) -> LabelFacts:
    """Returns the facts of the training rows.

    Raises:
      UserError: for labels that leave nothing to learn: all alike.
    """
    if kind == 'number':
        values = np.array(readable(rows, number_of))
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
        logging.warning('%s', note)
    return LabelFacts(kind, classes, [counter[name] for name in classes], len(rows), 0.0, 1.0, about)


def make_encode_label(facts: LabelFacts, separator: str) -> Callable[[Any], np.ndarray]:
    """Returns the function from a label to its array: int32, float32 [classes] of 0 and 1, or float32.

    It raises a `UserError` for a class that the training split has not.
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
    """Stores the facts in 'labels.json'."""
    (folder / 'labels.json').write_text(json.dumps(facts._asdict(), ensure_ascii=False), encoding='utf-8')


def read_labels(folder: epath.Path) -> LabelFacts:
    """Returns the facts that `write_labels` stored."""
    return LabelFacts(**json.loads((folder / 'labels.json').read_text(encoding='utf-8')))
