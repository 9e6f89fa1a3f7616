"""Which of several classes a row of a table belongs to, from numbers and categories.

A row is {column: value, ..., 'label': class}; a request is {column: value, ...}; columns may be absent.
"""

import collections
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from research.core.task import Host, Input, Task
from research.data.dataset import DataSet, open_dataset
from research.data.readers.rows import label_text, sort_names
from research.data.table.columns import Columns, ColumnSettings, column_notes, make_encode_columns, measure_columns
from research.errors import UserError, nearest, task_settings
from research.ops import heads
from research.ops.heads import OutputHead

MODELS = 'table'  # the module of research/models/ that builds them


class Settings(NamedTuple):
    """Settings of `config.task`; columns of numbers are found by their values."""

    categorical: tuple[str, ...] = ()  # columns of numbers that are names of something, such as postal codes
    ignore: tuple[str, ...] = ()  # columns that the model does not see
    missing: tuple[str, ...] = ColumnSettings().missing  # texts that stand for no value
    decimal: str = '.'  # or ',': what stands before the fraction of a number
    most_categories: int = 100  # of a column: the commonest; the others are one category together
    strip: str = ''  # characters taken from the ends of a label ('.' makes '>50K.' the class '>50K')
    label_smoothing: float = 0.0
    top: int = 0  # also count labels among this many most probable classes; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """The settings; raises a `UserError` for impossible values."""
        heads.check_single(self.label_smoothing, self.top)
        return self._replace(**self.columns.check()._asdict())

    @property
    def columns(self) -> ColumnSettings:
        """How the columns are read."""
        return ColumnSettings(*(getattr(self, name) for name in ColumnSettings._fields))


class Facts(NamedTuple):
    """What `prepare` stores of the training split in 'columns.json'; four of the fields are those of `Columns`."""

    classes: list  # names, in the order of the labels
    counts: list  # training rows per class
    numbers: dict
    flagged: list
    categories: dict
    about: str
    odd: list = []

    @property
    def columns(self) -> Columns:
        """The statistics of the columns."""
        return Columns(self.numbers, self.flagged, self.categories, self.odd)


def class_of(raw: Mapping[str, Any], settings: Settings) -> str:
    """The name of a row's class."""
    return label_text(raw['label']).strip().strip(settings.strip)


def open_table(config: Any, settings: Settings) -> DataSet:
    """The data set."""
    return open_dataset(config.data, ('label',), settings.ignore)


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores classes, means, deviations and categories of the training split."""
    settings = task_settings(Settings, config)
    data = open_table(config, settings)
    rows = data.source('train')
    columns = measure_columns(rows, settings.columns)
    classes = collections.Counter(class_of(row, settings) for row in rows)
    if len(classes) < 2:
        raise UserError(f'the training rows are all of one class: {", ".join(classes)}')
    names = list(sort_names(classes))
    facts = Facts(names, [classes[name] for name in names], *columns[:3], data.about, columns.odd)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'columns.json').write_text(json.dumps(facts._asdict()))


def read_facts(folder: epath.Path) -> Facts:
    """What `prepare` stored."""
    return Facts(**json.loads((folder / 'columns.json').read_text()))


def make_encode(facts: Facts, settings: Settings) -> Callable[..., dict[str, np.ndarray]]:
    """`encode`: 'numbers', 'categories' and the label."""
    encode_columns = make_encode_columns(facts.columns, settings.columns)
    labels = {name: number for number, name in enumerate(facts.classes)}

    def encode(raw, rng=None):
        del rng  # nothing is augmented
        example = encode_columns(raw)
        if raw.get('label') is not None:
            name = class_of(raw, settings)
            if name not in labels:
                raise UserError(
                    f'class {name!r} is not among the {len(labels)} of the training split; {nearest(name, labels)}'
                )
            example['label'] = np.int32(labels[name])
        return example

    return encode


def make_inputs(facts: Facts) -> dict[str, Input]:
    """One field for each column."""
    numbers = {
        name: Input('number', about=f'mean {mean:.4g}, standard deviation {deviation:.4g} in training')
        for name, (mean, deviation) in facts.numbers.items()
    }
    categories = {
        name: Input('category', limit=len(values), about=', '.join(values[:12]) + ' ...' * (len(values) > 12))
        for name, values in facts.categories.items()
    }
    return numbers | categories


def make_head(settings: Settings, facts: Facts) -> OutputHead:
    """The output head: one class."""
    return heads.single(facts.classes, facts.counts, settings.label_smoothing, settings.top)


def host(config: Any, folder: epath.Path) -> Host:
    """What answers requests on the host."""
    settings, facts = task_settings(Settings, config), read_facts(folder)
    return Host(make_inputs(facts), make_encode(facts, settings), make_head(settings, facts).decode)


def make(config: Any, folder: epath.Path) -> Task:
    """The task; `config.model` are the settings of `TableMLP`.

    Raises:
      UserError: for an unknown setting or an impossible value.
    """
    from research.families.supervised import supervised
    from research.models.table import table_model

    settings, facts = task_settings(Settings, config), read_facts(folder)
    data, head = open_table(config, settings), make_head(settings, facts)
    model = table_model(config.model, head.units, facts.columns.width, facts.columns.sizes)
    notes = functools.partial(column_notes, facts.columns)
    return supervised(host(config, folder), data.source, model, head, encode_once=True, notes=notes)
