"""Classification of table rows with numeric and categorical columns.

A row is {column: value, ..., 'label': class}. A request is {column: value, ...}; missing columns are allowed.
"""

import collections
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from etils import epath

from research.core.task import Host, Input, Task
from research.data.dataset import DataSet, open_dataset
from research.data.readers.rows import label_text, sort_names
from research.data.table.columns import Columns, ColumnSettings, column_notes, make_encode_columns, measure_columns
from research.errors import Count, PositiveInt, Rate, UserError, nearest, task_settings
from research.ops import heads
from research.ops.heads import OutputHead
from research.ops.logistic import Logistic, fit_logistic

MODELS = 'table'  # builder module in research/models/
LINEAR_ROWS = 20_000  # training rows up to which a logistic regression is fitted, to compare the model with
LINEAR = 'linear.json'  # its weights, in prepared/


class Settings(NamedTuple):
    """Settings of `config.task`. Numeric columns are detected from their values."""

    categorical: tuple[str, ...] = ()  # numeric columns to treat as categorical, such as postal codes
    ignore: tuple[str, ...] = ()  # columns hidden from the model
    missing: tuple[str, ...] = ColumnSettings().missing  # texts that mean a missing value
    decimal: Literal['.', ','] = '.'  # decimal mark
    most_categories: PositiveInt = 100  # categories kept per column, the most frequent; the rest share one
    strip: str = ''  # characters stripped from labels: '.' turns '>50K.' into '>50K'
    label_smoothing: Rate = 0.0
    top: Count = 0  # report top-k accuracy for this k; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """Validates the settings; raises `UserError` for impossible values."""
        return self._replace(**self.columns.check()._asdict())

    @property
    def columns(self) -> ColumnSettings:
        """Settings of the columns."""
        return ColumnSettings(*(getattr(self, name) for name in ColumnSettings._fields))


class TableStats(NamedTuple):
    """Statistics of the training split, stored by `prepare` in 'columns.json'; includes the fields of `Columns`."""

    classes: list  # names, in the order of the labels
    counts: list  # training rows per class
    numbers: dict
    flagged: list
    categories: dict
    about: str
    odd: list = []

    @property
    def columns(self) -> Columns:
        """Statistics of the columns."""
        return Columns(self.numbers, self.flagged, self.categories, self.odd)


def class_of(raw: Mapping[str, Any], settings: Settings) -> str:
    """Returns the class name of a row."""
    return label_text(raw['label']).strip().strip(settings.strip)


def open_table(config: Any, settings: Settings) -> DataSet:
    """Opens the data set."""
    return open_dataset(config.data, ('label',), settings.ignore)


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores classes, statistics of the columns and a logistic regression, all of the training split.

    A private run stores no logistic regression: its weights are fitted to the training rows without noise.
    """
    settings = task_settings(Settings, config)
    data = open_table(config, settings)
    rows = data.source('train')
    columns = measure_columns(rows, settings.columns)
    classes = collections.Counter(class_of(row, settings) for row in rows)
    if len(classes) < 2:
        raise UserError(f'the training rows have a single class: {", ".join(classes)}')
    names = list(sort_names(classes))
    stats = TableStats(names, [classes[name] for name in names], *columns[:3], data.about, columns.odd)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'columns.json').write_text(json.dumps(stats._asdict()))
    private = any(name.rpartition('.')[2] == 'privacy' for name in config.methods)
    if len(rows) <= LINEAR_ROWS and not private:
        examples = list(map(make_encode(stats, settings), rows))
        numbers, categories, labels = (
            np.stack([example[name] for example in examples]) for name in ('numbers', 'categories', 'label')
        )
        if linear := fit_logistic(numbers, categories, stats.columns.sizes, labels):
            (folder / LINEAR).write_text(json.dumps(linear._asdict()))


def read_stats(folder: epath.Path) -> TableStats:
    """Reads the statistics that `prepare` stored."""
    return TableStats(**json.loads((folder / 'columns.json').read_text()))


def make_encode(stats: TableStats, settings: Settings) -> Callable[..., dict[str, np.ndarray]]:
    """Builds `encode`: 'numbers', 'categories' and the label."""
    encode_columns = make_encode_columns(stats.columns, settings.columns)
    labels = {name: number for number, name in enumerate(stats.classes)}

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


def make_inputs(stats: TableStats) -> dict[str, Input]:
    """Returns one request field per column."""
    numbers = {
        name: Input('number', about=f'mean {mean:.4g}, standard deviation {deviation:.4g} in training')
        for name, (mean, deviation) in stats.numbers.items()
    }
    categories = {
        name: Input(
            'category',
            limit=len(values),
            about=', '.join(values[:12]) + ' ...' * (len(values) > 12),
            choices=tuple(values),
        )
        for name, values in stats.categories.items()
    }
    return numbers | categories


def make_head(settings: Settings, stats: TableStats) -> OutputHead:
    """Builds the output head: one class per example."""
    return heads.single(stats.classes, stats.counts, settings.label_smoothing, settings.top)


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    settings, stats = task_settings(Settings, config), read_stats(folder)
    return Host(make_inputs(stats), make_encode(stats, settings), make_head(settings, stats).decode)


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model` holds the settings of `TableMLP`.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families.linear_referee import with_linear
    from research.families.supervised import supervised
    from research.models.table import table_model

    settings, stats = task_settings(Settings, config), read_stats(folder)
    data, head = open_table(config, settings), make_head(settings, stats)
    model = table_model(config.model, head.units, stats.columns.width, stats.columns.sizes)
    notes = functools.partial(column_notes, stats.columns)
    task = supervised(host(config, folder), data.source, model, head, encode_once=True, notes=notes)
    file = folder / LINEAR
    return with_linear(task, Logistic(**json.loads(file.read_text()))) if file.exists() else task
