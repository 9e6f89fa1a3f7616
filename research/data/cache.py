"""Splits whose rows are encoded once, where making arrays of a row would take longer than a step."""

import collections.abc
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from research.data.readers.rows import Broken, check_limit, select
from research.errors import UserError


@dataclasses.dataclass(frozen=True)
class Encoded(collections.abc.Sequence):
    """A split whose rows were encoded once: reading their text again would take longer than a step."""

    rows: Any  # rows of a data set, with `where`
    fields: dict[str, np.ndarray]
    refused: tuple[str, ...] = ()  # the messages of rows that could not be encoded and are left out

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> 'EncodedRow':
        return EncodedRow(self.rows, range(len(self.rows))[number], self.fields)

    def where(self, number: int) -> str:
        """Returns where a row comes from, for messages."""
        return self.rows.where(number)


class EncodedRow(collections.abc.Mapping):
    """A row as the table has it, read only when it is looked at, and how it was encoded."""

    __slots__ = ('rows', 'number', 'fields')

    def __init__(self, rows: Sequence[Mapping[str, Any]], number: int, fields: Mapping[str, np.ndarray]):
        self.rows, self.number, self.fields = rows, number, fields

    def encoded(self) -> dict[str, np.ndarray]:
        """Returns what `encode` gives for this row."""
        return {name: values[self.number] for name, values in self.fields.items()}

    def __getitem__(self, name: str) -> Any:
        return self.rows[self.number][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows[self.number])

    def __len__(self) -> int:
        return len(self.rows[self.number])


def encode_split(source: Callable[[str], Any], encode: Callable, split: str) -> Encoded:
    """Returns a split with all its rows encoded.

    Rows that cannot be are left out and counted where their reader allows it (`config.data.on_error='skip'`).

    Raises:
      UserError: for a row that cannot be encoded, or more of them than the reader allows; says where it is.
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
        text = '%s: %d rows cannot be encoded and are left out, the first: %s'
        logging.warning(text, split, len(messages), messages[0])
        rows = select(rows, good, tuple(messages))
    if not examples:
        first = f': {messages[0]}' if messages else ''
        raise UserError(f'the {split} split has no row that can be encoded{first}')
    fields = {name: np.stack([each[name] for each in examples]) for name in examples[0]}
    return Encoded(rows, fields, tuple(messages))


def encoded_once(source: Callable[[str], Any], encode: Callable) -> tuple[Callable[[str], Encoded], Callable]:
    """A task's `source` and `encode`, made from those that know nothing of a cache.

    A split is encoded when it is first asked for and kept. The new `encode` takes its rows as they were encoded, and
    anything else (a request) through `encode`. For tasks that augment nothing.
    """

    def cached(raw: Mapping[str, Any], rng: Any = None) -> dict[str, np.ndarray]:
        return raw.encoded() if isinstance(raw, EncodedRow) else encode(raw, rng)

    return functools.cache(functools.partial(encode_split, source, encode)), cached
