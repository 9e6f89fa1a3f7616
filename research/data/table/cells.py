"""Cells of tables: what is a number, a category or no value; and what is odd about a column.

The one parser for training rows, requests, and checks of data.
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
THOUSANDS = re.compile(r'[-+]?[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]*)?')  # 1.234,5 where a comma is the decimal mark
MOSTLY = 0.5  # share of numbers among a column's values from which the others are worth a word


class CellSettings(NamedTuple):
    """How cells are read."""

    missing: tuple = MISSING  # texts that stand for no value
    decimal: str = '.'  # the character before the fraction of a number: '.' or ','


def read_number(value: Any, missing: Sequence[str] = MISSING, decimal: str = '.') -> float | None:
    """Returns a value as a number, None where there is none.

    A number is what a person would call one: digits with at most one decimal mark, perhaps a sign and an exponent.
    '1_23', 'infinity', '0x1F' and digits of other scripts, all or some of which Python accepts, are text.

    Args:
      value: of a cell or a request.
      missing: texts that stand for no value.
      decimal: '.' or ','; with ',' a '.' may stand before each three digits: '1.234,5' is 1234.5, and '1.5' is text.

    Raises:
      ValueError: for anything else, also numbers that no float holds.
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
    """Returns a value as the name of a category in composed form, None where there is none.

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
    """Returns whether a cell is empty: None, NaN, or one of the texts that stand for no value."""
    if isinstance(value, str):
        return not value.strip() or value.strip() in missing
    return value is None or isinstance(value, (float, np.floating)) and math.isnan(value)


def texts_of(setting: str, values: Any) -> tuple[str, ...]:
    """Returns a setting's names as text, also where a flag made numbers of them (2003).

    Raises:
      UserError: for what is no name or list of names.
    """
    values = values if isinstance(values, (tuple, list)) else (values,)
    if any(isinstance(each, (bool, dict, list, tuple)) or each is None for each in values):
        raise UserError(f'config.task.{setting}: expected names, got {values!r}')
    return tuple(normal(label_text(each)) for each in values)


class Column(NamedTuple):
    """How the values of a column read: counts, and the first that is no number."""

    numbers: int = 0
    others: int = 0
    number: int = -1  # the row of the first value that is no number
    value: str = ''

    @property
    def is_number(self) -> bool:
        """Whether all values are numbers, or there is none."""
        return not self.others


def read_columns(
    rows: Iterable[Mapping[str, Any]], ignored: Sequence[str], missing: Sequence[str] = MISSING, decimal: str = '.'
) -> dict[str, Column]:
    """Returns what each column holds, in the order of the file.

    Raises:
      UserError: for a column of lists.
    """
    counts: dict[str, list] = {}
    for number, row in enumerate(rows):
        for name, value in row.items():
            if name == 'label' or name in ignored:
                continue
            if isinstance(value, (list, dict, bytes)):
                raise UserError(f'column {name!r} holds {value!r:.40}: put it in config.task.ignore')
            found = counts.setdefault(name, [0, 0, -1, ''])
            try:
                found[0] += read_number(value, missing, decimal) is not None
            except ValueError:
                if not found[1]:
                    found[2:] = number, str(value)
                found[1] += 1
    return {name: Column(*found) for name, found in counts.items()}


def column_note(name: str, column: Column, where: str, decimal: str = '.') -> str:
    """Returns a message about a column that is numeric but for some values or the decimal mark; '' otherwise.

    Args:
      name: of the column.
      column: what it holds.
      where: the place of the first value that is no number.
      decimal: the mark that is set.
    """
    total = column.numbers + column.others
    if not column.others:
        return ''
    comma = decimal == '.' and re.fullmatch(r'[-+]?[0-9.]*,[0-9]+', column.value.strip())
    if not comma and column.numbers < MOSTLY * total:
        return ''
    text = (
        f'column {name!r}: {column.numbers:,} of {total:,} values are numbers; {where} has {column.value!r:.40}, '
        'so the column is read as categories'
    )
    if comma:
        return f"{text}; if a comma is the decimal mark, set config.task.decimal to ','"
    return f'{text}; add it to config.task.missing if it means a missing value'
