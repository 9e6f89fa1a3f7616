"""The fields of a row, checked in one place: labels as names of classes, texts that are texts, names of columns.

What is wrong with one record raises `Broken`, so that `config.data.on_error='skip'` leaves it out and counts it.
"""

import collections
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from research.data.readers.rows import Broken, Row, label_text

MISSING = ('', '?', 'NA', 'N/A', '#N/A', 'NaN', 'nan', 'null', 'NULL')  # cells that hold no value
TEXTS = ('text', 'pair', 'source', 'target', 'sequence')  # fields that hold text where they are required


def printable(text: str) -> str:
    """Returns a name as it can be printed: bytes that are not UTF-8 as escapes."""
    return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')


def normal(name: str) -> str:
    """Returns a name in Unicode's composed form (NFC) without blanks around it: 'café' is one name, however typed."""
    return unicodedata.normalize('NFC', name).strip()


def is_missing(value: Any, missing: Sequence[str] = MISSING) -> bool:
    """Returns whether a value stands for none: None, NaN, or one of some texts."""
    if isinstance(value, str):
        return not value.strip() or value.strip() in missing
    return value is None or isinstance(value, float) and math.isnan(value)


def read_label(value: Any, where: str, missing: Sequence[str] = MISSING) -> Any:
    """Returns a label: text as `normal` has it, a list of such, or a number as it is.

    Raises:
      Broken: for a missing label, or a value that names nothing (an object).
    """
    if is_missing(value, missing):
        shown = '' if value is None else f' (it is {value!r}; config.data.missing lists what means no label)'
        raise Broken(f'{where}: no label{shown}')
    if isinstance(value, Mapping) or isinstance(value, (list, tuple)) and any(
        isinstance(each, (Mapping, list, tuple)) for each in value
    ):
        raise Broken(f'{where}: the label must be a name, a number or a list of names, got {value!r:.60}')
    if isinstance(value, (list, tuple)):
        return [read_label(each, where, missing) for each in value]
    return normal(value) if isinstance(value, str) else value


def check_texts(row: Mapping[str, Any], required: Sequence[str], where: str) -> None:
    """Raises `Broken` where a required text is not a text, or is blank in a row with a label."""
    for name in required:
        value = row.get(name)
        if name not in TEXTS:
            continue
        if not isinstance(value, str):
            raise Broken(f'{where}: {name!r} must be a text, got {value!r:.60}')
        if 'label' in required and not value.strip():
            raise Broken(f'{where}: {name!r} is empty: there is nothing to classify')


def checked(row: Row, required: Sequence[str], where: str, missing: Sequence[str] = MISSING) -> Row:
    """Returns a row with normal names of its columns and its label; see `read_label` and `check_texts`.

    Raises:
      Broken: where a required field is missing or is not what its name promises.
    """
    row = normal_names(row, where)
    absent = [name for name in required if row.get(name) is None]
    if absent:
        raise Broken(f'{where}: no {absent[0]!r} (there: {some(row)}); {remedy(absent[0], row)}')
    check_texts(row, required, where)
    return {**row, 'label': read_label(row['label'], where, missing)} if 'label' in required else row


def normal_names(row: Row, where: str) -> Row:
    """Returns a row with the names of its columns in composed form; raises `Broken` where two become one."""
    if all(name.isascii() for name in row):
        return row
    found = {normal(name): value for name, value in row.items()}
    if len(found) < len(row):
        twice = next(name for name, count in collections.Counter(map(normal, row)).items() if count > 1)
        raise Broken(f'{where}: several columns are called {twice!r} (they differ only in how letters are composed)')
    return found


def some(names: Iterable[str]) -> str:
    """Returns the first names of columns, shortened."""
    names = [name if len(name) <= 30 else name[:27] + '...' for name in map(str, names)]
    return ', '.join(names[:8]) + (f' and {len(names) - 8} more' if len(names) > 8 else '') or 'nothing'


def remedy(name: str, columns: Iterable[str]) -> str:
    """Returns what to do about a column that is not there."""
    text = f'config.data.fields=column:{name} renames one'
    if looks_like_data(list(columns)):
        text += "; where the file has no header line, give the names of its columns by config.data.columns='a,b,...'"
    return text


def looks_like_data(header: Sequence[str]) -> bool:
    """Returns whether a header line seems to be a row: a cell is a number, blank or a date."""
    return any(re.fullmatch(r'[-+]?\d[\d.,:/ -]*|', name.strip()) for name in header)


def same_but_form(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Returns the groups of labels that differ only in case, blanks or the format of a number: 'Cat' and 'cat'."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(plain(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def plain(name: str) -> str:
    """Returns a label without what does not tell classes apart: case, blanks, and leading or trailing zeros."""
    text = ''.join(unicodedata.normalize('NFKC', name).casefold().split())
    if re.fullmatch(r'[-+]?\d+(\.\d*)?|[-+]?\.\d+', text) and text.isascii():
        return repr(float(text) + 0.0)
    return text


def label_notes(names: Iterable[str]) -> list[str]:
    """Returns a sentence for each group of labels that are probably one class."""
    return [
        f'the classes {" and ".join(map(repr, group))} differ only in case, spaces or number format'
        for group in same_but_form(map(label_text, names))
    ]
