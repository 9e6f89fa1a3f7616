"""Finds problems in data in one pass: broken rows, leaks between splits, odd values.

An error makes training fail or its metrics wrong; a warning deserves a look. The survey is independent of the task: it
uses only the kinds of the inputs, the rows, and the result of `encode`.
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
    """One problem ('error'), suspicion ('warning') or remark ('note')."""

    level: str
    split: str
    text: str


@dataclasses.dataclass
class Survey:
    """What one pass over a split collected."""

    split: str
    where: Callable[[int], str]  # (row number) -> its location, for messages
    total: int = 0  # number of rows
    numbers: list[int] = dataclasses.field(default_factory=list)  # of the rows read, in order
    broken: list[str] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)  # by `encode`
    encoded: list[int] = dataclasses.field(default_factory=list)  # labels after `encode`
    keys: list[bytes] = dataclasses.field(default_factory=list)  # content, without the label
    labels: list[str] = dataclasses.field(default_factory=list)
    texts: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    pictures: dict[str, list[tuple[int, np.ndarray]]] = dataclasses.field(default_factory=dict)
    shapes: dict[str, collections.Counter] = dataclasses.field(default_factory=dict)
    sounds: dict[str, list[tuple[float, int, float]]] = dataclasses.field(default_factory=dict)
    values: dict[str, list[Any]] = dataclasses.field(default_factory=dict)  # of numbers and categories


def kind_of(name: str, value: Any, inputs: Mapping[str, Any]) -> str:
    """Classifies a field of a row: 'text', 'image', 'audio', 'number', 'category' or ''."""
    if name in inputs:
        return 'text' if inputs[name].kind == 'sequence' else inputs[name].kind
    if isinstance(value, np.ndarray):
        return 'audio' if name == 'audio' else 'image' if name == 'image' or value.ndim == 3 else ''
    return 'text' if isinstance(value, str) and name in ('text', 'source', 'target') else ''


def chosen_numbers(total: int, limit: int) -> list[int]:
    """Numbers of at most `limit` rows (0 for all), evenly spaced."""
    if not limit or total <= limit:
        return list(range(total))
    return (np.arange(limit) * total // limit).tolist()


def silent(text: str) -> None:
    del text


def paced(numbers: Sequence[int], what: str, say: Callable[[str], None], seconds: float = 2.0) -> Iterator[int]:
    """Yields numbers and reports progress every few seconds."""
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
    """Surveys a split; rows that cannot be read are counted and skipped.

    Args:
      split: its name.
      rows: its raw rows.
      inputs: {field: an object with `kind`}, such as the inputs of a task; {} if the task is unknown.
      limit: number of rows to read, evenly spaced; 0 for all.
      say: receives lines of progress.
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
            continue  # `encode_all` reports it too
        seen.numbers.append(number)
        content = [name for name in row if name != 'label']
        # A request to a generator may be only a label, which is not content.
        fields = [name for name in content if name in inputs] or content
        seen.keys.append(digest(row, fields))
        if row.get('label') is not None:
            seen.labels.append(label_text(row['label']))
        for name, value in row.items():
            if name != 'label':
                record_value(seen, name, kind_of(name, value, inputs), value, row)
    return seen


def record_value(seen: Survey, name: str, kind: str, value: Any, row: Mapping[str, Any]) -> None:
    """Adds one value of one row to the survey."""
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
    elif kind in ('number', 'category') and not (name == 'rate' and 'audio' in row):  # recorded with its sound
        seen.values.setdefault(name, []).append(value)


def encode_all(
    seen: Survey,
    rows: Sequence[Mapping[str, Any]],
    encode: Callable,
    bounds: Mapping[str, int],
    limit: int = 0,
    say: Callable[[str], None] = silent,
    one_shape: bool = True,
) -> list[Finding]:
    """Encodes every row as for evaluation and checks the result: shapes, labels and ids out of range.

    Args:
      seen: the survey of the split; records the rows that fail to encode.
      rows: of the task.
      encode: of the task.
      bounds: {encoded integer field: exclusive upper bound}.
      limit, say: as in `survey`.
      one_shape: all rows must have the same shapes; False for a task with buckets.
    """
    findings, shapes, beyond = [], {}, {}
    seen.refused = list(getattr(rows, 'refused', ()))
    for number in paced(chosen_numbers(len(rows), limit), f'{seen.split}: encoding', say):
        try:
            example = encode(rows[number])
        except Broken:
            continue  # already in the survey
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
        if len(counter) > 1 and one_shape:
            shapes_text = ', '.join(f'{list(shape)} x{count:,}' for shape, count in counter.most_common(SHOWN))
            findings.append(
                Finding('error', seen.split, f'encoded field {name!r} has several shapes: {shapes_text}')
            )
    if seen.refused:
        findings.append(Finding('error', seen.split, summarize_messages(seen.refused, 'rows cannot be encoded')))
    return findings


def summarize_messages(messages: Sequence[str], what: str) -> str:
    """Formats messages as '7 rows cannot be read, the first: ...'."""
    first = ''.join(f'\n      {message}' for message in messages[:SHOWN])
    more = f'\n      ... and {len(messages) - SHOWN:,} more' if len(messages) > SHOWN else ''
    return f'{len(messages):,} {what}:{first}{more}'


def check_split(seen: Survey, inputs: Mapping[str, Any], error_limit: int = -1) -> list[Finding]:
    """Reports problems within one split.

    Args:
      seen: its survey.
      inputs: {field: an object with `kind`, `shape` and `limit`}.
      error_limit: number of broken records that may be skipped; -1 if the first stops the run.
    """
    findings = []

    def add_finding(level: str, text: str) -> None:
        findings.append(Finding(level, seen.split, text))

    if not seen.total:
        add_finding('error', 'the split is empty')
    if seen.broken:
        level = 'error' if len(seen.broken) > error_limit else 'warning'
        add_finding(level, summarize_messages(seen.broken, 'broken records'))
    if seen.labels and len(seen.labels) < len(seen.numbers):
        add_finding(
            'error', f'{len(seen.numbers) - len(seen.labels):,} of {len(seen.numbers):,} rows have no label'
        )
    for name, texts in seen.texts.items():
        empty = [number for number, text in zip(seen.numbers, texts, strict=False) if not text.strip()]
        if empty:
            rows = ', '.join(map(seen.where, empty[:SHOWN]))
            add_finding(
                'error' if len(empty) == len(texts) else 'warning',
                f'{len(empty):,} {"text is" if len(empty) == 1 else "texts are"} empty in {name!r} ({rows})',
            )
        limit = inputs[name].limit if name in inputs else 0
        long = sum(len(text) > limit for text in texts) if limit else 0
        if long:
            add_finding(
                'warning',
                f'{long:,} texts in {name!r} are longer than the {limit:,} characters of a request',
            )
    for name, counter in seen.shapes.items():
        shape = tuple(inputs[name].shape) if name in inputs else ()
        if 0 not in shape:  # a task may read pictures of any size
            check_shapes(name, counter, shape, add_finding)
    for name, sounds in seen.sounds.items():
        silent_count = sum(peak == 0 for _, _, peak in sounds)
        rates = collections.Counter(rate for _, rate, _ in sounds)
        if silent_count:
            add_finding('warning', f'{silent_count:,} sounds in {name!r} are silent')
        if len(rates) > 1:
            shown = ', '.join(f'{rate} Hz x{count:,}' for rate, count in rates.most_common(SHOWN))
            add_finding('warning', f'sounds in {name!r} differ in sample rate: {shown}')
    if conflicts := conflicting(seen):
        add_finding('warning', f'{conflicts:,} rows have the same content as an earlier row and another label')
    copies = len(seen.keys) - len(set(seen.keys))
    if copies:
        add_finding('warning', f'{copies:,} of {len(seen.keys):,} rows are copies of an earlier row of the split')
    return findings


def check_shapes(
    name: str, counter: collections.Counter, wanted: tuple[int, ...], add_finding: Callable[[str, str], None]
) -> None:
    """Reports pictures whose size or channels differ from the others or from the model input."""
    total = sum(counter.values())
    sizes, channels = collections.Counter(), collections.Counter()
    for (height, width, depth), count in counter.items():
        sizes[(height, width)] += count
        channels[depth] += count
    common = wanted[2] if len(wanted) == 3 else channels.most_common(1)[0][0]
    other = total - channels[common]
    if other:
        add_finding(
            'warning',
            f'{other:,} of {total:,} pictures in {name!r} do not have {common} channels: they will be converted',
        )
    if len(sizes) > 1:
        shown = ', '.join(
            f'{height}x{width} x{count:,}' for (height, width), count in sizes.most_common(SHOWN)
        )
        add_finding('warning', f'pictures in {name!r} have {len(sizes):,} sizes, and will be fitted to one: {shown}')
    elif len(wanted) == 3 and next(iter(sizes)) != wanted[:2]:
        (height, width), shown = next(iter(sizes)), f'{wanted[0]}x{wanted[1]}'
        add_finding('warning', f'all pictures in {name!r} are {height}x{width} and will be fitted to {shown}')


def conflicting(seen: Survey) -> int:
    """Number of rows with the content of an earlier row and a different label."""
    if len(seen.labels) != len(seen.keys):
        return 0
    first: dict[bytes, str] = {}
    return sum(
        first.setdefault(key, label) != label for key, label in zip(seen.keys, seen.labels, strict=True)
    )
