"""Columns of a table as numbers and categories: training statistics, and rows as arrays."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.data.readers.fields import MISSING as MISSING_TEXTS
from research.data.table.cells import column_note, read_category, read_columns, read_number, texts_of
from research.errors import UserError, nearest

MISSING, OTHER = 0, 1  # category ids of missing values, and of rare or unseen ones
MAX_ABS_ZSCORE = 10.0  # standardized numbers are clipped to this
MIN_RELATIVE_DEVIATION = 1e-7  # of the largest value; below this resolution of float32, a column is constant


class ColumnSettings(NamedTuple):
    """How to read the columns of a table."""

    categorical: tuple = ()  # numeric columns to treat as categories, such as postal codes
    ignore: tuple = ()  # columns that the model does not read
    missing: tuple = MISSING_TEXTS  # texts that mean a missing value
    decimal: str = '.'  # decimal mark: '.' or ','
    most_categories: int = 100  # most frequent categories kept per column; the others share one id

    def check(self) -> 'ColumnSettings':
        """Validates the settings and converts names to text; raises UserError for invalid values."""
        names = {name: texts_of(name, getattr(self, name)) for name in ('categorical', 'ignore', 'missing')}
        return self._replace(**names)


class Columns(NamedTuple):
    """Statistics of the training split."""

    numbers: dict  # {column: (mean, standard deviation)}; deviation 0: the column is constant
    flagged: list  # numeric columns with missing values, which get an indicator input
    categories: dict  # {column: its most frequent values}
    odd: list = []  # notes on columns that were probably misread

    @property
    def width(self) -> int:
        """Number of numeric inputs of a row."""
        return len(self.numbers) + len(self.flagged)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of categories of each categorical column."""
        return tuple(len(values) + OTHER + 1 for values in self.categories.values())


def number_of(value: Any, settings: ColumnSettings) -> float | None:
    return read_number(value, settings.missing, settings.decimal)


def category_of(value: Any, settings: ColumnSettings) -> str | None:
    return read_category(value, settings.missing)


def columns_of(rows: Sequence[Mapping[str, Any]], settings: ColumnSettings) -> tuple[dict[str, bool], list[str]]:
    """{column: whether it is numeric}, in the order of the file, and notes on odd columns.

    Raises:
      UserError: for a setting that names a missing column, or a column of lists.
    """
    read = read_columns(rows, settings.ignore, settings.missing, settings.decimal)
    columns = {name: column.is_number and name not in settings.categorical for name, column in read.items()}
    for setting in ('categorical', 'ignore'):
        for name in getattr(settings, setting):
            if name not in columns and name not in rows[0]:
                raise UserError(f'config.task.{setting}: no column {name!r}; {nearest(name, columns)}')
    if not columns:
        raise UserError("the table has no column but 'label' that the model may see")
    where = getattr(rows, 'where', lambda number: f'row {number}')
    notes = [
        column_note(name, column, where(column.number), settings.decimal)
        for name, column in read.items()
        if name not in settings.categorical
    ]
    return columns, [note for note in notes if note]


def measure_columns(rows: Sequence[Mapping[str, Any]], settings: ColumnSettings) -> Columns:
    """Computes the statistics of the columns; raises as `columns_of`."""
    kinds, odd = columns_of(rows, settings)
    numbers = {name: [] for name, is_number in kinds.items() if is_number}
    counters = {name: collections.Counter() for name, is_number in kinds.items() if not is_number}
    for row in rows:
        for name, values in numbers.items():
            values.append(number_of(row.get(name), settings))
        for name, counter in counters.items():
            counter[category_of(row.get(name), settings)] += 1
    return Columns(
        numbers={name: moments_of(values) for name, values in numbers.items()},
        flagged=[name for name, values in numbers.items() if None in values],
        categories={name: commonest(counter, settings.most_categories) for name, counter in counters.items()},
        odd=odd,
    )


def moments_of(values: Sequence[float | None]) -> tuple[float, float]:
    """Mean and standard deviation of a column; the deviation is 0 for constant columns."""
    numbers = np.array([value for value in values if value is not None], np.float64)
    if not len(numbers):
        return 0.0, 0.0
    deviation = float(numbers.std())
    return float(numbers.mean()), deviation if deviation > MIN_RELATIVE_DEVIATION * np.abs(numbers).max() else 0.0


def commonest(counter: Mapping[str | None, int], limit: int) -> list[str]:
    """The most frequent values; ties are sorted by name."""
    ranked = sorted((name for name in counter if name is not None), key=lambda name: (-counter[name], name))
    return ranked[:limit]


def make_encode_columns(columns: Columns, settings: ColumnSettings) -> Callable[[Mapping[str, Any]], dict]:
    """(row) -> 'numbers' float32 (standardized, then indicators of missing values) and 'categories' int32.

    The function raises UserError for text in a numeric column. Constant columns become 0.
    """
    ranks = {
        name: {value: rank + OTHER + 1 for rank, value in enumerate(values)}
        for name, values in columns.categories.items()
    }

    def encode(raw: Mapping[str, Any]) -> dict[str, np.ndarray]:
        numbers, flags = [], []
        for name, (mean, deviation) in columns.numbers.items():
            try:
                value = number_of(raw.get(name), settings)
            except (ValueError, TypeError):
                raise UserError(f'column {name!r}: {raw[name]!r:.40} is not a number like the other values') from None
            numbers.append(0.0 if value is None or deviation == 0 else (value - mean) / deviation)
            if name in columns.flagged:
                flags.append(value is None)
        categories = []
        for name, rank_of in ranks.items():
            value = category_of(raw.get(name), settings)
            categories.append(MISSING if value is None else rank_of.get(value, OTHER))
        return {
            'numbers': np.clip(np.array(numbers + flags, np.float32), -MAX_ABS_ZSCORE, MAX_ABS_ZSCORE),
            'categories': np.array(categories, np.int32),
        }

    return encode


def column_notes(columns: Columns) -> list[str]:
    """Notes on odd columns, and on constant columns."""
    constant = [name for name, (_, deviation) in columns.numbers.items() if not deviation]
    notes = [f'columns that are constant in training have no influence: {", ".join(constant)}'] if constant else []
    return [*columns.odd, *notes]
