"""Splits whose rows are encoded once, for tasks where encoding takes longer than a step."""

import collections.abc
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from research.data.notes import log_once
from research.data.readers.rows import Broken, check_limit, select
from research.errors import UserError


@dataclasses.dataclass(frozen=True)
class Encoded(collections.abc.Sequence):
    """A split whose rows were encoded once, because encoding them again would take longer than a step."""

    rows: Any  # rows of a data set, with `where`
    fields: dict[str, np.ndarray]
    refused: tuple[str, ...] = ()  # error messages of the rows left out because encoding failed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> 'EncodedRow':
        return EncodedRow(self.rows, range(len(self.rows))[number], self.fields)

    def where(self, number: int) -> str:
        """Location of a row, for messages."""
        return self.rows.where(number)


class EncodedRow(collections.abc.Mapping):
    """A row and its encoding; the row itself is read only when accessed."""

    __slots__ = ('rows', 'number', 'fields')

    def __init__(self, rows: Sequence[Mapping[str, Any]], number: int, fields: Mapping[str, np.ndarray]):
        self.rows, self.number, self.fields = rows, number, fields

    def encoded(self) -> dict[str, np.ndarray]:
        """The stored result of `encode` for this row."""
        return {name: values[self.number] for name, values in self.fields.items()}

    def __getitem__(self, name: str) -> Any:
        return self.rows[self.number][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows[self.number])

    def __len__(self) -> int:
        return len(self.rows[self.number])


def encode_split(source: Callable[[str], Any], encode: Callable, split: str) -> Encoded:
    """Encodes all rows of a split.

    If the reader allows it (`config.data.on_error='skip'`), rows that fail are left out and counted.

    Raises:
      UserError: names the row that cannot be encoded, or the first rows if more fail than the reader allows.
    """
    rows, examples, good, messages = source(split), [], [], []
    limit = getattr(rows, 'error_limit', -1)
    for number in range(len(rows)):
        try:
            examples.append(encode(rows[number]))
            good.append(number)
        except UserError as error:
            where = f'{rows.where(number)}: '
            messages.append(str(error) if str(error).startswith(where) else where + str(error))
            if limit < 0:
                raise (Broken if isinstance(error, Broken) else UserError)(messages[-1]) from None
            check_limit(messages, limit)
    if messages:
        text = f'{split}: {len(messages)} rows cannot be encoded and are left out, the first: {messages[0]}'
        log_once('warning', text)
        rows = select(rows, good, tuple(messages))
    if not examples:
        first = f': {messages[0]}' if messages else ''
        raise UserError(f'the {split} split has no row that can be encoded{first}')
    fields = {name: np.stack([example[name] for example in examples]) for name in examples[0]}
    return Encoded(rows, fields, tuple(messages))


def encoded_once(source: Callable[[str], Any], encode: Callable) -> tuple[Callable[[str], Encoded], Callable]:
    """Wraps a task's `source` and `encode` with a cache of encoded splits.

    A split is encoded on first access and kept. The returned `encode` looks up rows of such a split and encodes
    anything else, such as a request. Only for tasks without augmentation.
    """

    def cached(raw: Mapping[str, Any], rng: Any = None) -> dict[str, np.ndarray]:
        return raw.encoded() if isinstance(raw, EncodedRow) else encode(raw, rng)

    return functools.cache(functools.partial(encode_split, source, encode)), cached
