"""Lazy rows of a data set: a count and functions of the row number, composed from smaller ones.

Rows are read on access. A record that cannot be read raises `Broken` at that time.
"""

import bisect
import collections
import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from research.errors import UserError

SPLITS = ('train', 'validation', 'test')
Row = dict[str, Any]


class Broken(UserError):
    """A record that cannot be read; the message names the file, the line and the reason."""


@dataclasses.dataclass(frozen=True)
class Rows(Sequence):
    """Random-access rows; `key` and `label` avoid decoding a row, or are None."""

    size: int  # number of rows
    get: Callable[[int], Row]  # (number) -> the row; raises `Broken`
    where: Callable[[int], str]  # (number) -> 'train.jsonl, line 7'
    key: Callable[[int], bytes] | None = None  # (number) -> digest of the content, without the label
    label: Callable[[int], Any] | None = None  # (number) -> the value of field 'label'
    skipped: tuple[str, ...] = ()  # error messages of the broken records left out
    notes: tuple[Any, ...] = ()  # each a `walk.Note` on what was guessed or skipped when the files were opened
    error_limit: int = -1  # number of records that a task may fail to encode and leave out; -1: the first stops the run

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int | slice) -> Any:
        if isinstance(number, slice):
            return [self.get(index) for index in range(self.size)[number]]
        return self.get(range(self.size)[number])


def in_memory(rows: Sequence[Row], name: str, key: Callable[[int], bytes] | None = None) -> Rows:
    """Rows held in memory; `name` is the file or set, for messages."""
    return Rows(len(rows), rows.__getitem__, functools.partial(row_name, name), key)


def row_name(name: str, number: int) -> str:
    return f'{name}, row {number + 1:,}'


def chain(parts: Sequence[Rows]) -> Rows:
    """Concatenates the rows of several files."""
    if len(parts) == 1:
        return parts[0]
    ends = list(itertools.accumulate(part.size for part in parts))

    def chained(name: str) -> Any:
        functions = [getattr(part, name) for part in parts]
        return None if None in functions else functools.partial(of_part, functions, ends)

    skipped = tuple(text for part in parts for text in part.skipped)
    notes = tuple(dict.fromkeys(text for part in parts for text in part.notes))
    size = ends[-1] if ends else 0
    return Rows(size, chained('get'), chained('where'), chained('key'), chained('label'), skipped, notes)  # pyright: ignore[reportArgumentType]


def of_part(functions: Sequence[Callable[[int], Any]], ends: Sequence[int], number: int) -> Any:
    """Calls the function of the part that contains row `number`."""
    part = bisect.bisect_right(ends, number)
    return functions[part](number - (ends[part - 1] if part else 0))


def select(rows: Rows, numbers: Sequence[int] | np.ndarray, skipped: tuple[str, ...] = ()) -> Rows:
    """Selects rows by `numbers`, in that order."""
    numbers = np.asarray(numbers, np.int64)

    def selected(function: Callable[[int], Any] | None) -> Callable[[int], Any] | None:
        return None if function is None else functools.partial(of_number, function, numbers)

    return dataclasses.replace(
        rows,
        size=len(numbers),
        get=selected(rows.get),
        where=selected(rows.where),
        key=selected(rows.key),
        label=selected(rows.label),
        skipped=rows.skipped + skipped,
    )


def of_number(function: Callable[[int], Any], numbers: np.ndarray, number: int) -> Any:
    """Calls `function` with the row number before the selection."""
    return function(int(numbers[number]))


def change(rows: Rows, function: Callable[[Row, str], Row], keeps_label: bool = True) -> Rows:
    """Applies `function(row, where)` to each row; it may change the form of a row but not its content."""
    get = functools.partial(changed, rows.get, rows.where, function)
    return dataclasses.replace(rows, get=get, label=rows.label if keeps_label else None)


def changed(
    get: Callable[[int], Row], where: Callable[[int], str], function: Callable[[Row, str], Row], number: int
) -> Row:
    return function(get(number), where(number))


def join(parts: Mapping[str, Rows]) -> Rows:
    """Joins the fields of files read side by side, {file name: its rows}.

    Raises:
      UserError: if the files differ in length.
    """
    if len({part.size for part in parts.values()}) > 1:
        lengths = ' and '.join(f'{name} has {part.size:,}' for name, part in parts.items())
        raise UserError(f'parallel files must have equal numbers of rows, but {lengths}')
    files = list(parts.values())
    notes = tuple(dict.fromkeys(note for part in files for note in part.notes))
    return Rows(files[0].size, functools.partial(joined, [part.get for part in files]), files[0].where, notes=notes)


def joined(gets: Sequence[Callable[[int], Row]], number: int) -> Row:
    return {name: value for get in gets for name, value in get(number).items()}


def without_broken(rows: Rows, limit: int) -> Rows:
    """Reads all rows and leaves out those that cannot be read, keeping their messages.

    Raises:
      UserError: if there are more than `limit` of them.
    """
    good, messages = [], []
    for number in range(rows.size):
        try:
            rows.get(number)
            good.append(number)
        except Broken as error:
            messages.append(str(error))
            check_limit(messages, limit)
    return select(rows, good, tuple(messages)) if messages else rows


def check_limit(messages: Sequence[str], limit: int) -> None:
    """Raises UserError with the first messages if there are more than `limit`."""
    if len(messages) > limit:
        first = '\n'.join(f'  {text}' for text in messages[:3])
        raise UserError(f'more than {limit} broken records (config.data.error_limit), the first:\n{first}') from None


def digest(row: Mapping[str, Any], fields: Sequence[str] = (), ignored: Sequence[str] = ()) -> bytes:
    """SHA-256 of a row's content: of `fields`, or of all but 'label' and `ignored`."""
    names = sorted(fields or (name for name in row if name != 'label' and name not in ignored))
    result = hashlib.sha256()
    for name in names:
        result.update(name.encode() + b'\0' + content(row.get(name)) + b'\0')
    return result.digest()


def content(value: Any) -> bytes:
    """Serializes a value so that equal values give equal bytes."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode('utf-8', 'surrogatepass')
    if isinstance(value, (np.ndarray, np.generic)):
        return f'{value.dtype.str}{value.shape}'.encode() + np.ascontiguousarray(value).tobytes()
    return json.dumps(value, sort_keys=True, default=str).encode()


def key_of(rows: Rows, number: int, fields: Sequence[str] = (), ignored: Sequence[str] = ()) -> bytes:
    """Digest of a row's content without its label."""
    return rows.key(number) if rows.key else digest(rows.get(number), fields, ignored)


def label_of(rows: Rows, number: int) -> Any:
    """A row's label, or None if it has none."""
    return rows.label(number) if rows.label else rows.get(number).get('label')


def parts_by_hash(
    rows: Rows,
    fractions: Mapping[str, float],
    fields: Sequence[str] = (),
    ignored: Sequence[str] = (),
    every_class: bool = False,
) -> dict[str, Rows]:
    """{split: rows}: assigns each row by a hash of its content, the rest to 'train'.

    The assignment never changes, does not depend on the order of the rows, and keeps rows that differ only in their
    label in one split.

    Args:
      rows: of one source.
      fractions: of the splits to cut off, such as {'test': 0.1, 'validation': 0.1}.
      fields: fields to hash; () for all but 'label' and `ignored`.
      ignored: fields excluded from the hash.
      every_class: ensure that each class with enough rows has one in every split (`represent`).
    """
    keys, labels = keys_and_labels(rows, fields, ignored, every_class)
    words = np.array([int.from_bytes(key, 'big') for key in keys], np.uint64)
    hashes = words.astype(np.float64) / 2.0**64
    bounds, start = {}, 0.0
    for split, fraction in fractions.items():
        bounds[split] = (start, start + fraction)
        start += fraction
    bounds['train'] = (start, 1.0)
    chosen = np.full(rows.size, len(bounds) - 1)
    for number, (low, high) in enumerate(list(bounds.values())[:-1]):
        chosen[(hashes >= low) & (hashes < high)] = number
    if every_class:
        represent(chosen, hashes, labels, list(bounds.values()))
    return {split: select(rows, np.flatnonzero(chosen == number)) for number, split in enumerate(bounds)}


def keys_and_labels(
    rows: Rows, fields: Sequence[str], ignored: Sequence[str], labelled: bool
) -> tuple[list[bytes], list[str]]:
    """First bytes of each row's digest and, if `labelled`, its label; reads no row twice."""
    keys, labels = [], []
    for number in range(rows.size):
        row = None if rows.key else rows.get(number)
        key = rows.key(number) if row is None else digest(row, fields, ignored)  # pyright: ignore[reportOptionalCall]
        keys.append(key[:8])
        if labelled:
            labels.append(label_text(label_of(rows, number) if row is None else row.get('label')))
    return keys, labels


def represent(
    chosen: np.ndarray, hashes: np.ndarray, labels: Sequence[str], bounds: Sequence[tuple[float, float]]
) -> None:
    """Moves the fewest rows, in place, so that each class with enough rows has one in every split.

    If a split lacks a class, the rows with the nearest hash move there, copies together, from a split that keeps at
    least one other. Classes are processed by name, so the order of the rows does not matter.

    Args:
      chosen: the number of the split of each row; changed.
      hashes: the hash of each row, 0 to 1; equal for copies.
      labels: the class of each row.
      bounds: the range of hashes of each split.
    """
    groups: dict[str, dict[float, list[int]]] = {}
    first: dict[float, str] = {}  # copies with several labels count for the first alphabetically
    for value, label in zip(hashes.tolist(), labels, strict=True):
        first[value] = min(first.get(value, label), label)
    for number, value in enumerate(hashes.tolist()):
        groups.setdefault(first[value], {}).setdefault(value, []).append(number)
    for label in sorted(groups):
        members = groups[label]
        if len(members) < len(bounds):
            continue
        held = {value: int(chosen[numbers[0]]) for value, numbers in members.items()}
        for split, (low, high) in enumerate(bounds):
            if split in held.values() or high <= low:
                continue
            counts = collections.Counter(held.values())
            spare = [value for value, holder in held.items() if counts[holder] > 1]
            nearest_value = min(spare, key=lambda value: (max(low - value, value - high, 0.0), value))
            held[nearest_value] = split
            chosen[members[nearest_value]] = split


def class_names(rows: Rows) -> tuple[str, ...]:
    """Distinct labels as text, sorted; integers by value.

    Raises:
      UserError: for a row without a label.
    """
    names = set()
    for number in range(rows.size):
        label = label_of(rows, number)
        if label is None:
            raise UserError(
                f"{rows.where(number)}: no 'label'; name its column in config.data.fields='column:label'"
            )
        names.add(label_text(label))
    return sort_names(names)


def label_text(label: Any) -> str:
    """The class name of a label: True and 1.0 become 'True' and '1'."""
    if isinstance(label, (float, np.floating)) and float(label).is_integer():
        label = int(label)
    return str(label)


def sort_names(names: Any) -> tuple[str, ...]:
    """Sorts names; integers by value."""
    whole = all(name.lstrip('-').isdecimal() for name in names)
    return tuple(sorted(names, key=(lambda name: (int(name), name)) if whole else None))
