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

MAX_CELL_CHARACTERS = 1 << 24  # Python's default of 131,072 is too small for documents
DELIMITERS = (',', ';', '\t', '|')
MAX_PARQUET_VALUES = 10**10  # run-length encoding makes huge tables possible in tiny files
SNIFFED_LINES = 20  # read to detect the delimiter
EPOCH, DAY = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(days=1)
Finish = Callable[[Row, str], Row]


def read_delimited(
    entry: Entry, finish: Finish, delimiter: str, quoted: bool, columns: Sequence[str] = ()
) -> Rows:
    """Reads a CSV or TSV file as rows of text; blank lines and rows without values are left out.

    Args:
      entry: the file.
      finish: converts a row to its final form.
      delimiter: the character between cells; if `quoted`, a space after it is ignored. '' detects it from the first
        lines and notes any other than a comma.
      quoted: whether "..." may contain delimiters and line feeds (RFC 4180), as in CSV; else quotes are literal.
      columns: names of the columns of a file without a header line.

    Raises:
      UserError: for a file without a header line.
    """
    part = open_text(entry)
    lines = line_ranges(part)
    chosen = without_blank(part, lines)
    notes: list[Note] = []
    if not delimiter:
        delimiter = sniffed(part, lines[chosen[:SNIFFED_LINES]])
        if delimiter != ',':
            text = f'{entry.name}: cells are separated by {delimiter!r} (set config.data.delimiter to change it)'
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
    """The delimiter that splits all first lines into the same number of cells, more than one; else a comma."""
    texts = [part.read(*span(line)).decode('utf-8', 'replace').removesuffix('\r') for line in lines]
    for delimiter in DELIMITERS:
        counts = set()
        for text in texts:
            try:
                counts.add(len(cells(text, delimiter, True, '')))
            except Broken:  # ignore lines with a quoted cell that continues on the next line
                continue
        if len(counts) == 1 and counts.pop() > 1:
            return delimiter
    return ','


def is_empty(part: Part, line: np.ndarray, delimiter: str) -> bool:
    """Whether all cells of a record are empty, as spreadsheets write blank rows."""
    return not part.read(*span(line)).strip(delimiter.encode() + b' "\r\n')


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """Makes column names unique: the second of a name becomes 'name_2', or the next free number."""
    taken, counts, distinct = set(names), collections.Counter(), []
    for name in names:
        counts[name] += 1
        chosen = name
        while counts[name] > 1 and (chosen := f'{name}_{counts[name]}') in taken:
            counts[name] += 1
        taken.add(chosen)
        distinct.append(chosen)
    return tuple(distinct)


def cells(text: str, delimiter: str, quoted: bool, where: str) -> list[str]:
    """Parses the cells of one record; raises `Broken` if its quotes do not match."""
    if not quoted:
        return text.split(delimiter)
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    try:
        lines = [line + '\n' for line in text.split('\n')]  # not splitlines(): it splits at U+2028
        records = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise Broken(f'{where}: not CSV ({error})') from None
    return records[0] if len(records) == 1 else [cell for record in records for cell in record]


def parse_row(
    names: Sequence[str], delimiter: str, quoted: bool, finish: Finish, text: str, where: str
) -> Row:
    """Parses one record as a row; raises `Broken` unless it has one cell per column."""
    values = cells(text, delimiter, quoted, where)
    if len(values) != len(names):
        raise Broken(f'{where}: {len(values)} cells where {len(names)} columns are named ({text!r:.60})')
    return finish(dict(zip(names, values, strict=True)), where)


def records(
    part: Part, lines: np.ndarray, chosen: np.ndarray, delimiter: str
) -> tuple[np.ndarray, np.ndarray]:
    """First line number of each record, counted from 0, and its byte range.

    Inside quotes, a record continues on the next line. A line whose quote is never closed is a record of its own, so
    one broken line does not swallow the rest of the file.
    """
    csv.field_size_limit(MAX_CELL_CHARACTERS)
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
    """Number of lines of the record that starts on line `start`; 1 if it never ends correctly."""
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
    """Reads a Parquet file, whose decompressed columns are held in memory."""
    pyarrow = require('pyarrow')
    require('pyarrow.parquet')
    try:
        data = pyarrow.BufferReader(open_part(entry).read())
        claimed = pyarrow.parquet.read_metadata(data)
        if claimed.num_rows * max(claimed.num_columns, 1) > MAX_PARQUET_VALUES:
            raise UserError(
                f'{entry.name}: {claimed.num_rows:,} rows of {claimed.num_columns:,} columns; at most '
                f'{MAX_PARQUET_VALUES:,} values are read from one file: split it'
            )
        table = pyarrow.parquet.read_table(data).combine_chunks()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f'{entry.name}: cannot be read as Parquet ({reason})') from None
    columns = dict(zip(unique(table.column_names), table.columns, strict=True))
    where = functools.partial(row_name, entry.name)
    return Rows(table.num_rows, functools.partial(table_row, columns, finish, where), where)


def table_row(columns: dict[str, Any], finish: Finish, where: Callable[[int], str], number: int) -> Row:
    return finish({name: plain_value(column[number].as_py()) for name, column in columns.items()}, where(number))


def plain_value(value: Any) -> Any:
    """Converts a Parquet value to numbers, texts and lists.

    Dates and time stamps become days since 1970-01-01 (UTC if they have a zone), durations days, times a fraction of a
    day, decimals floats.
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
        return [plain_value(item) for item in value]
    if isinstance(value, dict):
        return {name: plain_value(item) for name, item in value.items()}
    if isinstance(value, uuid.UUID):
        return str(value)
    return value
