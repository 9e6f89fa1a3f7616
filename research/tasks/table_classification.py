"""Which of several classes a row of a table belongs to, from numbers and categories.

A row is {column: value, ..., 'label': class}; a request is {column: value, ...}; columns may be absent.
"""

import collections
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from research.core.task import Aux, Input, Metric, Task, Variables
from research.data.cache import encoded_once
from research.data.dataset import open_dataset
from research.data.readers.rows import label_text, sort_names
from research.data.table.cells import CellSettings, column_note, read_category, read_columns, read_number, texts_of
from research.errors import UserError, nearest, task_settings, unpack
from research.nn.apply import initialize, run
from research.nn.table import TableMLP
from research.ops.classification import classification_metrics, classification_sums
from research.ops.losses import softmax_cross_entropy

MISSING, OTHER = 0, 1  # numbers of the categories that stand for no value and for one too rare or never seen
FAR = 10.0  # standard deviations at which a number is cut off


class Settings(NamedTuple):
    """Settings of `config.task`; columns of numbers are found by their values."""

    categorical: tuple = ()  # columns of numbers that are names of something, such as postal codes
    ignore: tuple = ()  # columns that the model does not see
    missing: tuple = CellSettings().missing  # texts that stand for no value
    decimal: str = '.'  # or ',': what stands before the fraction of a number
    most_categories: int = 100  # of a column: the commonest; the others are one category together
    strip: str = ''  # characters taken from the ends of a label ('.' makes '>50K.' the class '>50K')
    label_smoothing: float = 0.0
    top: int = 0  # also count labels among this many most probable classes; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """Returns the settings; raises a `UserError` for impossible values."""
        if self.top < 0 or self.most_categories < 1 or not 0 <= self.label_smoothing < 1:
            raise UserError(
                'config.task: top must be zero or more, most_categories above zero and label_smoothing in '
                f'0 to 1, got {self.top}, {self.most_categories} and {self.label_smoothing}'
            )
        if self.decimal not in ('.', ','):
            raise UserError(f"config.task.decimal must be '.' or ',', got {self.decimal!r}")
        names = {name: texts_of(name, getattr(self, name)) for name in ('categorical', 'ignore', 'missing')}
        return self._replace(**names)


class Facts(NamedTuple):
    """What `prepare` stores of the training split."""

    classes: list  # names, in the order of the labels
    counts: list  # training rows per class
    numbers: dict  # {column: (mean, standard deviation)}
    flagged: list  # columns of numbers that may be missing: the model is told where
    categories: dict  # {column: its commonest values}
    about: str
    odd: list = []  # sentences about columns that are probably not what they were taken for


def number_of(value: Any, settings: Settings) -> float | None:
    """Returns a value as a number, None where there is none; raises a ValueError for other text."""
    return read_number(value, settings.missing, settings.decimal)


def category_of(value: Any, settings: Settings) -> str | None:
    """Returns a value as the name of a category, None where there is none."""
    return read_category(value, settings.missing)


def class_of(raw: Mapping[str, Any], settings: Settings) -> str:
    """Returns the name of a row's class."""
    return label_text(raw['label']).strip().strip(settings.strip)


def columns_of(rows: Sequence[Mapping[str, Any]], settings: Settings) -> tuple[dict[str, bool], list[str]]:
    """Returns {column: whether all its values are numbers}, in the order of the file, and what is odd about them.

    Raises:
      UserError: for a setting that names a column that is not there, or a column of lists.
    """
    found = read_columns(rows, settings.ignore, settings.missing, settings.decimal)
    columns = {name: column.is_number and name not in settings.categorical for name, column in found.items()}
    for setting in ('categorical', 'ignore'):
        for name in getattr(settings, setting):
            if name not in columns and name not in rows[0]:
                raise UserError(f'config.task.{setting}: no column {name!r}; {nearest(name, columns)}')
    if not columns:
        raise UserError("the table has no column but 'label' that the model may see")
    where = getattr(rows, 'where', lambda number: f'row {number}')
    notes = [
        column_note(name, column, where(column.number), settings.decimal)
        for name, column in found.items()
        if name not in settings.categorical
    ]
    return columns, [note for note in notes if note]


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores classes, means, deviations and categories of the training split in 'columns.json'."""
    settings = task_settings(Settings, config)
    data = open_dataset(config.data, ('label',), settings.ignore)
    rows = data.source('train')
    columns, odd = columns_of(rows, settings)
    values = {name: [] for name, is_number in columns.items() if is_number}
    counters = {name: collections.Counter() for name, is_number in columns.items() if not is_number}
    classes = collections.Counter()
    for row in rows:
        classes[class_of(row, settings)] += 1
        for name in values:
            values[name].append(number_of(row.get(name), settings))
        for name, counter in counters.items():
            counter[category_of(row.get(name), settings)] += 1
    if len(classes) < 2:
        raise UserError(f'the training rows are all of one class: {", ".join(classes)}')
    numbers, flagged = {}, []
    for name, each in values.items():
        there = np.array([value for value in each if value is not None], np.float64)
        if len(there) < len(each):
            flagged.append(name)
        numbers[name] = (float(there.mean()), float(there.std())) if len(there) else (0.0, 0.0)
    facts = Facts(
        classes=list(sort_names(classes)),
        counts=[classes[name] for name in sort_names(classes)],
        numbers=numbers,
        flagged=flagged,
        categories={name: commonest(counter, settings.most_categories) for name, counter in counters.items()},
        about=data.about,
        odd=odd,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'columns.json').write_text(json.dumps(facts._asdict()))


def commonest(counter: Mapping[str | None, int], most: int) -> list[str]:
    """Returns the commonest values, by their names where they are equally common."""
    ranked = sorted((name for name in counter if name is not None), key=lambda name: (-counter[name], name))
    return ranked[:most]


def make_encode(facts: Facts, settings: Settings) -> Callable[..., dict[str, np.ndarray]]:
    """Returns `encode`: 'numbers' (standardized, then 1 for each that is missing) and 'categories'."""
    ranks = {
        name: {value: rank + OTHER + 1 for rank, value in enumerate(values)}
        for name, values in facts.categories.items()
    }
    labels = {name: number for number, name in enumerate(facts.classes)}

    def encode(raw, rng=None):
        del rng  # nothing is augmented
        numbers, flags = [], []
        for name, (mean, std) in facts.numbers.items():
            try:
                value = number_of(raw.get(name), settings)
            except (ValueError, TypeError):
                raise UserError(f'column {name!r}: {raw[name]!r:.40} is no number as its others') from None
            numbers.append(0.0 if value is None or std == 0 else (value - mean) / std)
            if name in facts.flagged:
                flags.append(value is None)
        example = {'numbers': np.clip(np.array(numbers + flags, np.float32), -FAR, FAR)}
        example['categories'] = np.array(
            [rank_of(ranks[name], category_of(raw.get(name), settings)) for name in ranks], np.int32
        )
        if raw.get('label') is not None:
            name = class_of(raw, settings)
            if name not in labels:
                raise UserError(
                    f'class {name!r} is not among the {len(labels)} of the training split; '
                    f'{nearest(name, labels)}'
                )
            example['label'] = np.int32(labels[name])
        return example

    return encode


def rank_of(ranks: Mapping[str, int], value: str | None) -> int:
    """Returns the number of a category."""
    return MISSING if value is None else ranks.get(value, OTHER)


def make_inputs(facts: Facts) -> dict[str, Input]:
    """Returns one field for each column."""
    numbers = {
        name: Input('number', about=f'mean {mean:.4g}, standard deviation {std:.4g} in training')
        for name, (mean, std) in facts.numbers.items()
    }
    categories = {
        name: Input('category', limit=len(values), about=', '.join(values[:12]) + ' ...' * (len(values) > 12))
        for name, values in facts.categories.items()
    }
    return numbers | categories


def make_decode(facts: Facts, top: int) -> Callable[[Any], dict[str, Any]]:
    """Returns `decode`: the most probable class, its probability, and the runners-up."""

    def decode(outputs):
        probability = np.asarray(outputs['probability'], np.float64)
        best = np.argsort(-probability, kind='stable')[: max(top, 1)]
        ranked = [{'label': facts.classes[k], 'probability': round(float(probability[k]), 6)} for k in best]
        return {**ranked[0], 'top': ranked}

    return decode


def make(config: Any, folder: epath.Path) -> Task:
    """Returns the task; `config.model` are the settings of `TableMLP`.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    settings = task_settings(Settings, config)
    data = open_dataset(config.data, ('label',), settings.ignore)
    facts = Facts(**json.loads((folder / 'columns.json').read_text()))
    top = settings.top or min(5, len(facts.classes) - 1)
    sizes = tuple(len(values) + OTHER + 1 for values in facts.categories.values())
    model = unpack(TableMLP, config.model, 'model', classes=len(facts.classes), sizes=sizes)
    width = len(facts.numbers) + len(facts.flagged)
    encode = make_encode(facts, settings)

    def init(key):
        params, _ = initialize(model, key, jnp.zeros((1, width)), jnp.zeros((1, len(sizes)), jnp.int32))
        return Variables({'model': params}, {})

    def logits_of(variables, batch, context):
        key = context.fold('dropout')
        fields = batch['numbers'], batch['categories']
        return run(model, variables.params['model'], {}, *fields, train=context.train, key=key)[0]

    def loss(variables, batch, context):
        logits, mask = logits_of(variables, batch, context), batch['mask']
        values = softmax_cross_entropy(logits, batch['label'], settings.label_smoothing)
        right = (jnp.argmax(logits, axis=-1) == batch['label']) * mask
        aux = Aux(jnp.sum(mask), logs={'accuracy': jnp.sum(right)}, outputs={'logits': logits})
        return jnp.sum(values * mask), aux

    def predict(variables, batch, context):
        logits = logits_of(variables, batch, context._replace(train=False))
        return {'logits': logits, 'probability': jax.nn.softmax(logits)}

    def metric_sums(variables, batch, context):
        logits = logits_of(variables, batch, context._replace(train=False))
        return classification_sums(logits, batch['label'], batch['mask'], top if top > 1 else 0)

    def metrics(sums):
        found = classification_metrics(sums, facts.counts, top if top > 1 else 0)
        return {name: Metric(*each) for name, each in found.items()}

    source, encode = encoded_once(data.source, encode)
    return Task(
        inputs=make_inputs(facts),
        source=source,
        encode=encode,
        init=init,
        losses={'model': loss},
        predict=predict,
        metric_sums=metric_sums,
        metrics=metrics,
        decode=make_decode(facts, top + (top == 1)),
        notes=lambda: facts.odd,
    )
