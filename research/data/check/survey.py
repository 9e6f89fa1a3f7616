"""What may be wrong with data, found by one pass over them: broken rows, leaks between splits, odd values.

An error makes training fail or its metrics false; a warning is worth a look. Knows no task: it works from the
kinds of a task's inputs, its rows, and what its `encode` makes of them.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.data.check import duplicates
from research.data.readers.rows import Broken, digest, label_text
from research.errors import UserError

SHOWN = 3  # examples in one message


class Finding(NamedTuple):
    """One thing that is wrong ('error'), worth a look ('warning') or good to know ('note')."""

    level: str
    split: str
    text: str


@dataclasses.dataclass
class Survey:
    """What one pass over a split saw."""

    split: str
    where: Callable[[int], str]  # (row number) -> where it stands, for messages
    total: int = 0  # rows there are
    numbers: list[int] = dataclasses.field(default_factory=list)  # of the rows that were read, in order
    broken: list[str] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)  # by `encode`
    encoded: list[int] = dataclasses.field(default_factory=list)  # labels as `encode` gives them
    keys: list[bytes] = dataclasses.field(default_factory=list)  # content, without the label
    labels: list[str] = dataclasses.field(default_factory=list)
    texts: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    pictures: dict[str, list[tuple[int, np.ndarray]]] = dataclasses.field(default_factory=dict)
    shapes: dict[str, collections.Counter] = dataclasses.field(default_factory=dict)
    sounds: dict[str, list[tuple[float, int, float]]] = dataclasses.field(default_factory=dict)
    values: dict[str, list[Any]] = dataclasses.field(default_factory=dict)  # of numbers and categories


def kind_of(name: str, value: Any, inputs: Mapping[str, Any]) -> str:
    """Returns 'text', 'image', 'audio', 'number', 'category' or '' for a field of a row."""
    if name in inputs:
        return 'text' if inputs[name].kind == 'sequence' else inputs[name].kind
    if isinstance(value, np.ndarray):
        return 'audio' if name == 'audio' else 'image' if name == 'image' or value.ndim == 3 else ''
    return 'text' if isinstance(value, str) and name in ('text', 'source', 'target') else ''


def chosen_numbers(total: int, limit: int) -> list[int]:
    """Returns the numbers of at most `limit` rows (0: all), evenly spread."""
    if not limit or total <= limit:
        return list(range(total))
    return (np.arange(limit) * total // limit).tolist()


def silent(text: str) -> None:
    """Says nothing."""
    del text


def paced(numbers: Sequence[int], what: str, say: Callable[[str], None], seconds: float = 2.0) -> Iterator[int]:
    """Yields numbers, and says from time to time how many are done."""
    start = time.monotonic()
    for done, number in enumerate(numbers):
        if time.monotonic() - start > seconds:
            start = time.monotonic()
            say(f'{what}: {done:,} of {len(numbers):,} rows')
        yield number


def survey(
    split: str,
    rows: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, Any],
    limit: int = 0,
    say: Callable[[str], None] = silent,
) -> Survey:
    """Returns what is in a split; a row that cannot be read is counted and passed over.

    Args:
      split: its name.
      rows: its raw rows.
      inputs: {field: an object with `kind`}, as of a task; {} where the task is not known.
      limit: rows that are looked at, evenly spread; 0 for all.
      say: takes a line on the progress.
    """
    where = getattr(rows, 'where', lambda number: f'{split} row {number}')
    seen = Survey(split, where, len(rows), broken=list(getattr(rows, 'skipped', ())))
    for number in paced(chosen_numbers(len(rows), limit), f'{split}: reading', say):
        try:
            row = dict(rows[number])
        except Broken as error:
            seen.broken.append(str(error))
            continue
        except UserError:
            continue  # `encode_all` meets it too
        seen.numbers.append(number)
        content = [name for name in row if name != 'label']
        # The request to a generator may be a label alone, which is no content.
        fields = [name for name in content if name in inputs] or content
        seen.keys.append(digest(row, fields))
        if row.get('label') is not None:
            seen.labels.append(label_text(row['label']))
        for name, value in row.items():
            if name != 'label':
                look(seen, name, kind_of(name, value, inputs), value, row)
    return seen


def look(seen: Survey, name: str, kind: str, value: Any, row: Mapping[str, Any]) -> None:
    """Notes one value of one row."""
    if kind == 'text' and isinstance(value, str):
        seen.texts.setdefault(name, []).append(value)
    elif kind == 'image' and isinstance(value, np.ndarray) and value.ndim in (2, 3):
        shape = value.shape if value.ndim == 3 else (*value.shape, 1)
        seen.shapes.setdefault(name, collections.Counter())[shape] += 1
        seen.pictures.setdefault(name, []).append(duplicates.small_picture(value))
    elif kind == 'audio' and isinstance(value, np.ndarray) and value.size:
        rate = int(row.get('rate', 0))
        peak = float(np.max(np.abs(value.astype(np.float32))))
        seen.sounds.setdefault(name, []).append((len(value) / max(rate, 1), rate, peak))
    elif kind in ('number', 'category') and not (name == 'rate' and 'audio' in row):  # looked at with its sound
        seen.values.setdefault(name, []).append(value)


def encode_all(
    seen: Survey,
    rows: Sequence[Mapping[str, Any]],
    encode: Callable,
    bounds: Mapping[str, int],
    limit: int = 0,
    say: Callable[[str], None] = silent,
) -> list[Finding]:
    """Encodes every row as for evaluation and checks what comes out: shapes, labels and ids out of range.

    Args:
      seen: the survey of the split; takes the rows that were refused.
      rows: as the task reads them.
      encode: the task's.
      bounds: {encoded field of whole numbers: the first number that is too large}.
      limit, say: as in `survey`.
    """
    findings, shapes, beyond = [], {}, {}
    seen.refused = list(getattr(rows, 'refused', ()))
    for number in paced(chosen_numbers(len(rows), limit), f'{seen.split}: encoding', say):
        try:
            example = encode(rows[number])
        except Broken:
            continue  # the survey has it
        except UserError as error:
            where = f'{rows.where(number)}: ' if hasattr(rows, 'where') else f'row {number}: '  # pyright: ignore[reportAttributeAccessIssue]
            text = str(error)
            seen.refused.append(text if text.startswith(where) else where + text)
            continue
        if 'label' in example and np.ndim(example['label']) == 0:
            seen.encoded.append(int(example['label']))
        for name, value in example.items():
            shapes.setdefault(name, collections.Counter())[np.shape(value)] += 1
            bound = bounds.get(name, 0)
            if bound and np.size(value) and not 0 <= np.min(value) <= np.max(value) < bound:
                beyond.setdefault(name, []).append((number, int(np.min(value)), int(np.max(value))))
    for name, rows_beyond in beyond.items():
        number, low, high = rows_beyond[0]
        what = 'labels beyond the classes' if name == 'label' else 'ids beyond the vocabulary'
        text = (
            f'{what}: {name!r} of {len(rows_beyond):,} rows is not in 0 to {bounds[name] - 1} '
            f'(row {number}: {low} to {high})'
        )
        findings.append(Finding('error', seen.split, text))
    for name, counter in shapes.items():
        if len(counter) > 1:
            each = ', '.join(f'{list(shape)} x{count:,}' for shape, count in counter.most_common(SHOWN))
            findings.append(
                Finding('error', seen.split, f'encoded field {name!r} has several shapes: {each}')
            )
    if seen.refused:
        findings.append(Finding('error', seen.split, several(seen.refused, 'rows cannot be encoded')))
    return findings


def several(messages: Sequence[str], what: str) -> str:
    """Returns '7 rows cannot be read, the first: ...'."""
    first = ''.join(f'\n      {message}' for message in messages[:SHOWN])
    more = f'\n      ... and {len(messages) - SHOWN:,} more' if len(messages) > SHOWN else ''
    return f'{len(messages):,} {what}:{first}{more}'


def check_split(seen: Survey, inputs: Mapping[str, Any], error_limit: int = -1) -> list[Finding]:
    """Returns what is odd within one split.

    Args:
      seen: its survey.
      inputs: {field: an object with `kind`, `shape` and `limit`}.
      error_limit: of broken records that are left out; -1 where one stops the run.
    """
    findings = []

    def found(level: str, text: str) -> None:
        findings.append(Finding(level, seen.split, text))

    if not seen.total:
        found('error', 'the split is empty')
    if seen.broken:
        level = 'error' if len(seen.broken) > error_limit else 'warning'
        found(level, several(seen.broken, 'broken records'))
    if seen.labels and len(seen.labels) < len(seen.numbers):
        found(
            'error', f'{len(seen.numbers) - len(seen.labels):,} of {len(seen.numbers):,} rows have no label'
        )
    for name, texts in seen.texts.items():
        empty = [number for number, text in zip(seen.numbers, texts, strict=False) if not text.strip()]
        if empty:
            rows = ', '.join(map(seen.where, empty[:SHOWN]))
            found(
                'error' if len(empty) == len(texts) else 'warning',
                f'{len(empty):,} empty texts in {name!r} ({rows})',
            )
        limit = inputs[name].limit if name in inputs else 0
        long = sum(len(text) > limit for text in texts) if limit else 0
        if long:
            found(
                'warning',
                f'{long:,} texts in {name!r} are longer than the {limit:,} characters of a request',
            )
    for name, counter in seen.shapes.items():
        check_shapes(name, counter, tuple(inputs[name].shape) if name in inputs else (), found)
    for name, sounds in seen.sounds.items():
        silent = sum(peak == 0 for _, _, peak in sounds)
        rates = collections.Counter(rate for _, rate, _ in sounds)
        if silent:
            found('warning', f'{silent:,} sounds in {name!r} are silent')
        if len(rates) > 1:
            each = ', '.join(f'{rate} Hz x{count:,}' for rate, count in rates.most_common(SHOWN))
            found('warning', f'sounds in {name!r} differ in sample rate: {each}')
    if conflicts := conflicting(seen):
        found('warning', f'{conflicts:,} rows have the same content as an earlier row and another label')
    copies = len(seen.keys) - len(set(seen.keys))
    if copies:
        found('warning', f'{copies:,} of {len(seen.keys):,} rows are copies of an earlier row of the split')
    return findings


def check_shapes(
    name: str, counter: collections.Counter, wanted: tuple[int, ...], found: Callable[[str, str], None]
) -> None:
    """Finds pictures of a size or a number of channels that is not that of the others or of the model."""
    total = sum(counter.values())
    sizes, channels = collections.Counter(), collections.Counter()
    for (height, width, depth), count in counter.items():
        sizes[(height, width)] += count
        channels[depth] += count
    common = wanted[2] if len(wanted) == 3 else channels.most_common(1)[0][0]
    other = total - channels[common]
    if other:
        found(
            'warning',
            f'{other:,} of {total:,} pictures in {name!r} have not {common} channels: they will be converted',
        )
    if len(sizes) > 1:
        each = ', '.join(
            f'{height}x{width} x{count:,}' for (height, width), count in sizes.most_common(SHOWN)
        )
        found('warning', f'pictures in {name!r} have {len(sizes):,} sizes, and will be fitted to one: {each}')
    elif len(wanted) == 3 and next(iter(sizes)) != wanted[:2]:
        (height, width), shown = next(iter(sizes)), f'{wanted[0]}x{wanted[1]}'
        found('warning', f'all pictures in {name!r} are {height}x{width} and will be fitted to {shown}')


def conflicting(seen: Survey) -> int:
    """Returns how many rows have the content of an earlier row and another label."""
    if len(seen.labels) != len(seen.keys):
        return 0
    first: dict[bytes, str] = {}
    return sum(
        first.setdefault(key, label) != label for key, label in zip(seen.keys, seen.labels, strict=True)
    )
