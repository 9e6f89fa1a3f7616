"""Rows of a data set: a count and functions of a row's number, put together from smaller ones.

Nothing is read before it is asked for. A record that cannot be read raises `Broken` when it is.
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
    """A record that cannot be read; its text names the file, the line and the reason."""


@dataclasses.dataclass(frozen=True)
class Rows(Sequence):
    """Random-access rows; `key` and `label` answer without decoding a row, or are None."""

    size: int  # how many rows there are
    get: Callable[[int], Row]  # (number) -> the row; raises `Broken`
    where: Callable[[int], str]  # (number) -> 'train.jsonl, line 7'
    key: Callable[[int], bytes] | None = None  # (number) -> digest of the content, without the label
    label: Callable[[int], Any] | None = None  # (number) -> the value of field 'label'
    skipped: tuple[str, ...] = ()  # the messages of broken records that were left out
    notes: tuple[Any, ...] = ()  # what was guessed or passed over when the files were opened, for people
    error_limit: int = -1  # of records that a task may leave out because it cannot encode them; -1: one stops the run

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int | slice) -> Any:
        if isinstance(number, slice):
            return [self.get(each) for each in range(self.size)[number]]
        return self.get(range(self.size)[number])


def in_memory(rows: Sequence[Row], name: str, key: Callable[[int], bytes] | None = None) -> Rows:
    """Returns rows that are in memory; `name` is that of their file or set, for messages."""
    return Rows(len(rows), rows.__getitem__, functools.partial(row_name, name), key)


def row_name(name: str, number: int) -> str:
    """Returns 'train.parquet, row 7'."""
    return f'{name}, row {number + 1:,}'


def chain(parts: Sequence[Rows]) -> Rows:
    """Returns the rows of several files, one after the other."""
    if len(parts) == 1:
        return parts[0]
    ends = list(itertools.accumulate(part.size for part in parts))

    def each(name: str) -> Any:
        functions = [getattr(part, name) for part in parts]
        return None if None in functions else functools.partial(of_part, functions, ends)

    skipped = tuple(text for part in parts for text in part.skipped)
    notes = tuple(dict.fromkeys(text for part in parts for text in part.notes))
    return Rows(ends[-1] if ends else 0, each('get'), each('where'), each('key'), each('label'), skipped, notes)


def of_part(functions: Sequence[Callable[[int], Any]], ends: Sequence[int], number: int) -> Any:
    """Calls the function of the part that row `number` lies in."""
    part = bisect.bisect_right(ends, number)
    return functions[part](number - (ends[part - 1] if part else 0))


def select(rows: Rows, numbers: Sequence[int] | np.ndarray, skipped: tuple[str, ...] = ()) -> Rows:
    """Returns some of the rows, in the order of `numbers`."""
    numbers = np.asarray(numbers, np.int64)

    def each(function: Callable[[int], Any] | None) -> Callable[[int], Any] | None:
        return None if function is None else functools.partial(of_number, function, numbers)

    return dataclasses.replace(
        rows,
        size=len(numbers),
        get=each(rows.get),
        where=each(rows.where),
        key=each(rows.key),
        label=each(rows.label),
        skipped=rows.skipped + skipped,
    )


def of_number(function: Callable[[int], Any], numbers: np.ndarray, number: int) -> Any:
    """Calls `function` with the number that the row had before the selection."""
    return function(int(numbers[number]))


def change(rows: Rows, function: Callable[[Row, str], Row], keeps_label: bool = True) -> Rows:
    """Returns rows after `function(row, where)`, which may change a row's form but not what it says."""
    get = functools.partial(changed, rows.get, rows.where, function)
    return dataclasses.replace(rows, get=get, label=rows.label if keeps_label else None)


def changed(
    get: Callable[[int], Row], where: Callable[[int], str], function: Callable[[Row, str], Row], number: int
) -> Row:
    """Returns one row after `function`."""
    return function(get(number), where(number))


def join(parts: Mapping[str, Rows]) -> Rows:
    """Returns rows with the fields of several files read side by side, {file name: its rows}.

    Raises:
      UserError: where the files differ in length.
    """
    if len({part.size for part in parts.values()}) > 1:
        lengths = ' and '.join(f'{name} has {part.size:,}' for name, part in parts.items())
        raise UserError(f'parallel files must have a row for each row of the other, but {lengths}')
    some = list(parts.values())
    notes = tuple(dict.fromkeys(text for part in some for text in part.notes))
    return Rows(some[0].size, functools.partial(joined, [part.get for part in some]), some[0].where, notes=notes)


def joined(gets: Sequence[Callable[[int], Row]], number: int) -> Row:
    """Returns one row with the fields of all parts."""
    return {name: value for get in gets for name, value in get(number).items()}


def without_broken(rows: Rows, limit: int) -> Rows:
    """Returns the rows that can be read, all of which it reads, and the messages of the others.

    Raises:
      UserError: when more than `limit` cannot.
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
    """Raises a `UserError` with the first messages where there are more than `limit`."""
    if len(messages) > limit:
        first = '\n'.join(f'  {text}' for text in messages[:3])
        raise UserError(f'more than {limit} broken records (config.data.error_limit), the first:\n{first}') from None


def digest(row: Mapping[str, Any], fields: Sequence[str] = (), ignored: Sequence[str] = ()) -> bytes:
    """Returns the SHA-256 of a row's content: of `fields`, or of all but 'label' and `ignored`."""
    names = sorted(fields or (name for name in row if name != 'label' and name not in ignored))
    result = hashlib.sha256()
    for name in names:
        result.update(name.encode() + b'\0' + content(row.get(name)) + b'\0')
    return result.digest()


def content(value: Any) -> bytes:
    """Returns a value as bytes that are equal for equal values."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode('utf-8', 'surrogatepass')
    if isinstance(value, (np.ndarray, np.generic)):
        return f'{value.dtype.str}{value.shape}'.encode() + np.ascontiguousarray(value).tobytes()
    return json.dumps(value, sort_keys=True, default=str).encode()


def key_of(rows: Rows, number: int, fields: Sequence[str] = (), ignored: Sequence[str] = ()) -> bytes:
    """Returns the digest of a row's content without its label."""
    return rows.key(number) if rows.key else digest(rows.get(number), fields, ignored)


def label_of(rows: Rows, number: int) -> Any:
    """Returns a row's label, or None where it has none."""
    return rows.label(number) if rows.label else rows.get(number).get('label')


def parts_by_hash(
    rows: Rows,
    fractions: Mapping[str, float],
    fields: Sequence[str] = (),
    ignored: Sequence[str] = (),
    every_class: bool = False,
) -> dict[str, Rows]:
    """Returns {split: rows}: each row goes where the hash of its content says, the rest to 'train'.

    The choice is the same for ever, does not depend on the order of the rows, and keeps rows that differ in
    nothing but their label together.

    Args:
      rows: of one source.
      fractions: of the splits to be cut off, such as {'test': 0.1, 'validation': 0.1}.
      fields: what the hash reads; () for all but 'label' and `ignored`.
      ignored: fields that the hash does not read.
      every_class: see to it that each class which has enough rows has one in every split (`represent`).
    """
    keys, labels = keys_and_labels(rows, fields, ignored, every_class)
    words = np.array([int.from_bytes(key, 'big') for key in keys], np.uint64)
    place = words.astype(np.float64) / 2.0**64
    bounds, start = {}, 0.0
    for split, fraction in fractions.items():
        bounds[split] = (start, start + fraction)
        start += fraction
    bounds['train'] = (start, 1.0)
    chosen = np.full(rows.size, len(bounds) - 1)
    for number, (low, high) in enumerate(list(bounds.values())[:-1]):
        chosen[(place >= low) & (place < high)] = number
    if every_class:
        represent(chosen, place, labels, list(bounds.values()))
    return {split: select(rows, np.flatnonzero(chosen == number)) for number, split in enumerate(bounds)}


def keys_and_labels(
    rows: Rows, fields: Sequence[str], ignored: Sequence[str], labelled: bool
) -> tuple[list[bytes], list[str]]:
    """Returns the first bytes of each row's digest and, if asked, its label; reads no row twice."""
    keys, labels = [], []
    for number in range(rows.size):
        row = None if rows.key else rows.get(number)
        key = rows.key(number) if row is None else digest(row, fields, ignored)  # pyright: ignore[reportOptionalCall]
        keys.append(key[:8])
        if labelled:
            labels.append(label_text(label_of(rows, number) if row is None else row.get('label')))
    return keys, labels


def represent(
    chosen: np.ndarray, place: np.ndarray, labels: Sequence[str], bounds: Sequence[tuple[float, float]]
) -> None:
    """Moves the fewest rows so that each class with a row for every split has one in each; in place.

    Of a class that a split lacks, the rows with the nearest hash move there, copies of a content together, from a
    split that keeps another. Classes are taken by name, so that the order of the rows does not matter.

    Args:
      chosen: the number of the split of each row; changed.
      place: the hash of each row, 0 to 1; equal for copies.
      labels: the class of each row.
      bounds: where the hashes of each split begin and end.
    """
    groups: dict[str, dict[float, list[int]]] = {}
    first: dict[float, str] = {}  # copies with several labels count for the first by name
    for value, label in zip(place.tolist(), labels, strict=True):
        first[value] = min(first.get(value, label), label)
    for number, value in enumerate(place.tolist()):
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
            spare = [value for value, there in held.items() if counts[there] > 1]
            nearest_value = min(spare, key=lambda value: (max(low - value, value - high, 0.0), value))
            held[nearest_value] = split
            chosen[members[nearest_value]] = split


def class_names(rows: Rows) -> tuple[str, ...]:
    """Returns the distinct labels as text, sorted; whole numbers by value.

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
    """Returns a label as the name of its class: True and 1.0 are 'True' and '1'."""
    if isinstance(label, (float, np.floating)) and float(label).is_integer():
        label = int(label)
    return str(label)


def sort_names(names: Any) -> tuple[str, ...]:
    """Returns names in order, whole numbers by value."""
    whole = all(name.lstrip('-').isdecimal() for name in names)
    return tuple(sorted(names, key=(lambda name: (int(name), name)) if whole else None))
