"""Tables: CSV and TSV by byte offset, Parquet through pyarrow."""

import collections
import csv
import dataclasses
import datetime
import decimal
import functools
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from research.data.readers.archives import Entry, Part, open_part
from research.data.readers.fields import looks_like_data, normal, some
from research.data.readers.rows import Broken, Row, Rows, row_name
from research.data.readers.text import decode, line_ranges, open_text, span, text_rows, without_blank
from research.data.readers.walk import Note
from research.errors import UserError
from research.extras import require

CELL = 1 << 24  # the most characters of one cell; Python's own limit of 131,072 cuts real documents off
DELIMITERS = (',', ';', '\t', '|')
PARQUET = 10**10  # values of a Parquet file, whose runs of equal ones take no space in it
SNIFFED = 20  # lines that are looked at for a delimiter
EPOCH, DAY = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(days=1)
Finish = Callable[[Row, str], Row]


def read_delimited(
    entry: Entry, finish: Finish, delimiter: str, quoted: bool, columns: Sequence[str] = ()
) -> Rows:
    """Returns the rows of a CSV or TSV file as text; lines without any character or any value are no rows.

    Args:
      entry: the file.
      finish: gives a row its final form.
      delimiter: the character between cells; a space after it is left out where `quoted`. '' for a comma, or the
        character on which the first lines agree, which the rows' notes then say.
      quoted: whether "..." may hold delimiters and line feeds (RFC 4180), as in CSV; else a quote is a quote.
      columns: their names where the file has no header line.

    Raises:
      UserError: for a file without a header line.
    """
    part = open_text(entry)
    lines = line_ranges(part)
    chosen = without_blank(part, lines)
    notes: list[Note] = []
    if not delimiter:
        delimiter = sniffed(part, lines[chosen[:SNIFFED]])
        if delimiter != ',':
            text = f'{entry.name}: cells are divided by {delimiter!r} (config.data.delimiter names another)'
            notes.append(Note('note', text))
    starts, ranges = records(part, lines, chosen, delimiter) if quoted else (chosen, lines[chosen])
    if not columns:
        if not len(ranges):
            raise UserError(f'{entry.name}: the file is empty; it needs a line with the names of the columns')
        where = f'{entry.name}, line {starts[0] + 1}'
        columns = cells(decode(part.read(*span(ranges[0])), where), delimiter, quoted, where)
        if looks_like_data(columns) and len(columns) > 1:
            text = (
                f'{where}: the names of the columns look like a row ({some(columns)}); where the file has no header '
                "line, give them by config.data.columns='a,b,...'"
            )
            notes.append(Note('warning', text))
        starts, ranges = starts[1:], ranges[1:]
    short = np.flatnonzero(ranges[:, 1] - ranges[:, 0] <= 4 * len(columns)) if len(columns) > 1 else ()
    empty = [number for number in short if is_empty(part, ranges[number], delimiter)]
    if empty:
        notes.append(Note('note', f'{entry.name}: {len(empty):,} rows without any value are left out'))
        starts, ranges = np.delete(starts, empty), np.delete(ranges, empty, axis=0)
    names = unique([normal(name) for name in columns])
    parse = functools.partial(parse_row, names, delimiter, quoted, finish)
    return dataclasses.replace(text_rows(entry, part, ranges, starts + 1, parse), notes=tuple(notes))


def sniffed(part: Part, lines: np.ndarray) -> str:
    """Returns the delimiter that gives all first lines as many cells, more than one; a comma where none does."""
    texts = [part.read(*span(each)).decode('utf-8', 'replace').removesuffix('\r') for each in lines]
    for delimiter in DELIMITERS:
        counts = set()
        for text in texts:
            try:
                counts.add(len(cells(text, delimiter, True, '')))
            except Broken:  # a quoted cell goes on over the end of the line: say nothing of it
                continue
        if len(counts) == 1 and counts.pop() > 1:
            return delimiter
    return ','


def is_empty(part: Part, line: np.ndarray, delimiter: str) -> bool:
    """Returns whether none of a record's cells holds anything, as spreadsheets write blank rows."""
    return not part.read(*span(line)).strip(delimiter.encode() + b' "\r\n')


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of columns, the second of the same name as 'name_2', or the next that no other column has."""
    taken, counts, found = set(names), collections.Counter(), []
    for name in names:
        counts[name] += 1
        chosen = name
        while counts[name] > 1 and (chosen := f'{name}_{counts[name]}') in taken:
            counts[name] += 1
        taken.add(chosen)
        found.append(chosen)
    return tuple(found)


def cells(text: str, delimiter: str, quoted: bool, where: str) -> list[str]:
    """Returns the cells of one record; raises `Broken` where its quotes do not match."""
    if not quoted:
        return text.split(delimiter)
    csv.field_size_limit(CELL)
    try:
        lines = [line + '\n' for line in text.split('\n')]  # not splitlines(): it splits at U+2028
        found = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise Broken(f'{where}: not CSV ({error})') from None
    return found[0] if len(found) == 1 else [cell for row in found for cell in row]


def parse_row(
    names: Sequence[str], delimiter: str, quoted: bool, finish: Finish, text: str, where: str
) -> Row:
    """Returns one record as a row; raises `Broken` where it has not one cell for each column."""
    values = cells(text, delimiter, quoted, where)
    if len(values) != len(names):
        raise Broken(f'{where}: {len(values)} cells where {len(names)} columns are named ({text!r:.60})')
    return finish(dict(zip(names, values, strict=True)), where)


def records(
    part: Part, lines: np.ndarray, chosen: np.ndarray, delimiter: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first line of each record, counted from 0, and where the record starts and stops.

    A record goes on over the end of its line inside quotes. A line whose quote is never closed is a record
    of its own, so that one broken line does not swallow the rest of the file.
    """
    csv.field_size_limit(CELL)
    odd = {number for number in chosen.tolist() if part.read(*span(lines[number])).count(b'"') % 2}
    if not odd:
        return chosen, lines[chosen]
    starts, stops, number, last = [], [], 0, len(lines)
    wanted = set(chosen.tolist())
    while number < last:
        used = continued(part, lines, number, delimiter) if number in odd else 1
        if number in wanted:
            starts.append(number)
            stops.append(number + used - 1)
        number += used
    first, final = np.array(starts, np.int64), np.array(stops, np.int64)
    return first, np.stack([lines[first, 0], lines[final, 1]], axis=1)


def continued(part: Part, lines: np.ndarray, start: int, delimiter: str) -> int:
    """Returns how many lines the record takes that starts on line `start`; 1 where it never ends well."""
    used = 0

    def following() -> Iterator[str]:
        nonlocal used
        for number in range(start, len(lines)):
            used += 1
            yield part.read(*span(lines[number])).decode('utf-8', 'replace').removesuffix('\r') + '\n'

    try:
        next(csv.reader(following(), delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error:
        return 1
    return used


def read_parquet(entry: Entry, finish: Finish) -> Rows:
    """Returns the rows of a Parquet file, whose columns are held in memory as they are stored, unpacked."""
    pyarrow = require('pyarrow')
    require('pyarrow.parquet')
    try:
        data = pyarrow.BufferReader(open_part(entry).read())
        claimed = pyarrow.parquet.read_metadata(data)
        if claimed.num_rows * max(claimed.num_columns, 1) > PARQUET:
            raise UserError(
                f'{entry.name}: {claimed.num_rows:,} rows of {claimed.num_columns:,} columns; at most {PARQUET:,} '
                'values are read of one file: divide it'
            )
        table = pyarrow.parquet.read_table(data).combine_chunks()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f'{entry.name}: cannot be read as Parquet ({reason})') from None
    columns = dict(zip(unique(table.column_names), table.columns, strict=True))
    where = functools.partial(row_name, entry.name)
    return Rows(table.num_rows, functools.partial(table_row, columns, finish, where), where)


def table_row(columns: dict[str, Any], finish: Finish, where: Callable[[int], str], number: int) -> Row:
    """Returns one row of a table of pyarrow columns."""
    return finish({name: plain_value(column[number].as_py()) for name, column in columns.items()}, where(number))


def plain_value(value: Any) -> Any:
    """Returns a value of a Parquet file as numbers, texts and lists.

    A date or a time stamp becomes days since 1970-01-01 (UTC, where it has a zone), a duration days, a time of day a
    share of the day, a decimal number a float.
    """
    if isinstance(value, datetime.datetime):
        value = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return (value - EPOCH) / DAY
    if isinstance(value, datetime.date):
        return float(value.toordinal() - EPOCH.toordinal())
    if isinstance(value, datetime.timedelta):
        return value / DAY
    if isinstance(value, datetime.time):
        return (datetime.datetime.combine(EPOCH.date(), value) - datetime.datetime(1970, 1, 1)) / DAY
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain_value(each) for each in value]
    if isinstance(value, dict):
        return {name: plain_value(each) for name, each in value.items()}
    if isinstance(value, uuid.UUID):
        return str(value)
    return value
