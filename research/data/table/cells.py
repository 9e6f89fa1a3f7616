"""Parses table cells as numbers, categories or missing values, and reports odd columns.

Training rows, requests and data checks all use this parser.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.data.readers.fields import MISSING, normal
from research.data.readers.rows import label_text
from research.errors import UserError

NUMBER = re.compile(r'[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?')
THOUSANDS = re.compile(r'[-+]?[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]*)?')  # 1.234,5 with a decimal comma
MIN_NUMERIC_SHARE = 0.5  # of a column's values, from which non-numeric values are reported


class CellSettings(NamedTuple):
    """How to read cells."""

    missing: tuple = MISSING  # texts that mean a missing value
    decimal: str = '.'  # decimal mark: '.' or ','


def read_number(value: Any, missing: Sequence[str] = MISSING, decimal: str = '.') -> float | None:
    """Parses a value as a number; None if it is missing.

    A number has digits with at most one decimal mark, an optional sign and an optional exponent. '1_23', 'infinity',
    '0x1F' and digits of other scripts are text, although Python accepts some of them.

    Args:
      value: of a cell or a request.
      missing: texts that mean a missing value.
      decimal: '.' or ','; with ',' a '.' may separate thousands: '1.234,5' is 1234.5, and '1.5' is text.

    Raises:
      ValueError: for anything else, including numbers beyond the range of floats.
    """
    if is_no_value(value, missing):
        return None
    if isinstance(value, str):
        text = value.strip()
        if decimal == ',':
            text = (text.replace('.', '') if THOUSANDS.fullmatch(text) else text.replace('.', ' ')).replace(',', '.')
        if not NUMBER.fullmatch(text):
            raise ValueError(value)
        number = float(text)
    elif isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(value)
    else:
        try:
            number = float(value)
        except OverflowError:
            raise ValueError(value) from None
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def read_category(value: Any, missing: Sequence[str] = MISSING) -> str | None:
    """Parses a value as a category name in composed Unicode form; None if it is missing.

    Raises:
      UserError: for a list, an object or bytes.
    """
    if is_no_value(value, missing):
        return None
    if isinstance(value, (list, tuple, dict, bytes, np.ndarray)):
        raise UserError(f'a category must be a text or a number, got {value!r:.40}')
    text = value.strip() if isinstance(value, str) else label_text(value)
    return text if text.isascii() else unicodedata.normalize('NFC', text)


def is_no_value(value: Any, missing: Sequence[str]) -> bool:
    """Whether a cell is missing: None, NaN, blank, or one of `missing`."""
    if isinstance(value, str):
        return not value.strip() or value.strip() in missing
    return value is None or isinstance(value, (float, np.floating)) and math.isnan(value)


def texts_of(setting: str, values: Any) -> tuple[str, ...]:
    """Names in a setting as text, even if a flag parsed them as numbers (2003).

    Raises:
      UserError: for anything that is not a name or a list of names.
    """
    values = values if isinstance(values, (tuple, list)) else (values,)
    if any(isinstance(value, (bool, dict, list, tuple)) or value is None for value in values):
        raise UserError(f'config.task.{setting}: expected names, got {values!r}')
    return tuple(normal(label_text(value)) for value in values)


class Column(NamedTuple):
    """Counts of a column's numbers and other values, and the first non-numeric one."""

    numbers: int = 0
    others: int = 0
    number: int = -1  # row of the first non-numeric value
    value: str = ''

    @property
    def is_number(self) -> bool:
        """Whether no value is non-numeric."""
        return not self.others


def read_columns(
    rows: Iterable[Mapping[str, Any]], ignored: Sequence[str], missing: Sequence[str] = MISSING, decimal: str = '.'
) -> dict[str, Column]:
    """Counts the numbers and other values of each column, in the order of the file.

    Raises:
      UserError: for a column of lists.
    """
    counts: dict[str, list] = {}
    for number, row in enumerate(rows):
        for name, value in row.items():
            if name == 'label' or name in ignored:
                continue
            if isinstance(value, (list, dict, bytes)):
                raise UserError(f'column {name!r} contains {value!r:.40}: add it to config.task.ignore')
            count = counts.setdefault(name, [0, 0, -1, ''])
            try:
                count[0] += read_number(value, missing, decimal) is not None
            except ValueError:
                if not count[1]:
                    count[2:] = number, str(value)
                count[1] += 1
    return {name: Column(*count) for name, count in counts.items()}


def column_note(name: str, column: Column, where: str, decimal: str = '.') -> str:
    """Describes a column that would be numeric except for some values or the decimal mark; '' otherwise.

    Args:
      name: of the column.
      column: its counts.
      where: location of the first non-numeric value.
      decimal: the configured decimal mark.
    """
    total = column.numbers + column.others
    if not column.others:
        return ''
    comma = decimal == '.' and re.fullmatch(r'[-+]?[0-9.]*,[0-9]+', column.value.strip())
    if not comma and column.numbers < MIN_NUMERIC_SHARE * total:
        return ''
    text = (
        f'column {name!r}: {column.numbers:,} of {total:,} values are numbers; {where} has {column.value!r:.40}, '
        'so the column is read as categories'
    )
    if comma:
        return f"{text}; if a comma is the decimal mark, set config.task.decimal to ','"
    return f'{text}; add it to config.task.missing if it means a missing value'
