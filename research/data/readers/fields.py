"""Validation of row fields: labels, texts and column names.

An invalid record raises `Broken`, so `config.data.on_error='skip'` can leave it out and count it.
"""

import collections
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from research.data.readers.rows import Broken, Row, label_text

MISSING = ('', '?', 'NA', 'N/A', '#N/A', 'NaN', 'nan', 'null', 'NULL')  # cells without a value
TEXTS = ('text', 'pair', 'source', 'target', 'sequence', 'question', 'context')  # fields that must be text if required


def printable(text: str) -> str:
    """Escapes bytes of a name that are not UTF-8."""
    return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')


def normal(name: str) -> str:
    """Normalizes a name to Unicode's composed form (NFC) without surrounding space."""
    return unicodedata.normalize('NFC', name).strip()


def is_missing(value: Any, missing: Sequence[str] = MISSING) -> bool:
    """Whether a value is missing: None, NaN, blank, or one of some texts."""
    if isinstance(value, str):
        return not value.strip() or value.strip() in missing
    return value is None or isinstance(value, float) and math.isnan(value)


def read_label(value: Any, where: str, missing: Sequence[str] = MISSING) -> Any:
    """Validates a label: text is normalized, a list is checked item by item, a number is unchanged.

    Raises:
      Broken: for a missing label, or an object.
    """
    if is_missing(value, missing):
        shown = '' if value is None else f' (it is {value!r}; config.data.missing lists what means no label)'
        raise Broken(f'{where}: no label{shown}')
    if isinstance(value, Mapping) or isinstance(value, (list, tuple)) and any(
        isinstance(item, (Mapping, list, tuple)) for item in value
    ):
        raise Broken(f'{where}: the label must be a name, a number or a list of names, got {value!r:.60}')
    if isinstance(value, (list, tuple)):
        return [read_label(item, where, missing) for item in value]
    return normal(value) if isinstance(value, str) else value


def check_texts(row: Mapping[str, Any], required: Sequence[str], where: str) -> None:
    """Raises `Broken` if a required text is not a string, or is blank in a labelled row."""
    for name in required:
        value = row.get(name)
        if name not in TEXTS:
            continue
        if not isinstance(value, str):
            raise Broken(f'{where}: {name!r} must be a text, got {value!r:.60}')
        if 'label' in required and not value.strip():
            raise Broken(f'{where}: {name!r} is empty: there is nothing to classify')


def checked(row: Row, required: Sequence[str], where: str, missing: Sequence[str] = MISSING) -> Row:
    """Normalizes column names and the label of a row and checks its required fields.

    Raises:
      Broken: if a required field is missing or has the wrong type.
    """
    row = normal_names(row, where)
    absent = [name for name in required if row.get(name) is None]
    if absent:
        raise Broken(f'{where}: no {absent[0]!r} (there: {some(row)}); {remedy(absent[0], row)}')
    check_texts(row, required, where)
    return {**row, 'label': read_label(row['label'], where, missing)} if 'label' in required else row


def normal_names(row: Row, where: str) -> Row:
    """Normalizes column names; raises `Broken` if two become equal."""
    if all(name.isascii() for name in row):
        return row
    normalized = {normal(name): value for name, value in row.items()}
    if len(normalized) < len(row):
        twice = next(name for name, count in collections.Counter(map(normal, row)).items() if count > 1)
        raise Broken(f'{where}: several columns are called {twice!r} (they differ only in how letters are composed)')
    return normalized


def some(names: Iterable[str]) -> str:
    """Lists the first column names, shortened."""
    names = [name if len(name) <= 30 else name[:27] + '...' for name in map(str, names)]
    return ', '.join(names[:8]) + (f' and {len(names) - 8} more' if len(names) > 8 else '') or 'nothing'


def remedy(name: str, columns: Iterable[str]) -> str:
    """Suggests what to do about a missing column."""
    text = f'config.data.fields=column:{name} renames one'
    if looks_like_data(list(columns)):
        text += "; where the file has no header line, give the names of its columns by config.data.columns='a,b,...'"
    return text


def looks_like_data(header: Sequence[str]) -> bool:
    """Whether a header line seems to be a data row: a cell is a number, blank or a date."""
    return any(re.fullmatch(r'[-+]?\d[\d.,:/ -]*|', name.strip()) for name in header)


def same_but_form(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups labels that differ only in case, spaces or number format, such as 'Cat' and 'cat'."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(plain(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def plain(name: str) -> str:
    """A label without case, spaces, and leading or trailing zeros."""
    text = ''.join(unicodedata.normalize('NFKC', name).casefold().split())
    if re.fullmatch(r'[-+]?\d+(\.\d*)?|[-+]?\.\d+', text) and text.isascii():
        return repr(float(text) + 0.0)
    return text


def label_notes(names: Iterable[str]) -> list[str]:
    """One sentence per group of labels that are probably the same class."""
    return [
        f'the classes {" and ".join(map(repr, group))} differ only in case, spaces or number format'
        for group in same_but_form(map(label_text, names))
    ]
