"""Files of lines: texts and JSON objects, indexed by byte offset and read on demand."""

import functools
import re
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from research.data.readers.archives import Entry, Part, open_part
from research.data.readers.fields import normal
from research.data.readers.json_text import parse_object
from research.data.readers.rows import Broken, Row, Rows
from research.errors import UserError

CHUNK = 1 << 22  # bytes read at once while lines are counted
MARK = b'\xef\xbb\xbf'  # the byte order mark that some programs write before UTF-8
WIDE = {b'\xff\xfe': 'UTF-16', b'\xfe\xff': 'UTF-16'}  # byte order marks of what Excel calls Unicode text


def open_text(entry: Entry) -> Part:
    """Returns the bytes of a text file; raises a `UserError` for UTF-16, which cannot be indexed by line feeds."""
    part = open_part(entry)
    if part.read(0, 2) in WIDE:
        raise UserError(f'{entry.name}: {WIDE[part.read(0, 2)]} text: save it as UTF-8')
    return part


def line_ranges(part: Part) -> Int[np.ndarray, 'lines 2']:
    """Returns where each line starts and stops, without its line feed; a last line needs none.

    Lines end with a line feed, or in a file without any, with a carriage return (old Mac files). Nothing else ends a
    line: not U+2028, U+0085 or a form feed, which `str.splitlines` takes for ends.
    """
    stops, position = ends_of(part, 10)
    if not len(stops):
        stops, position = ends_of(part, 13)
    if position and (not len(stops) or stops[-1] != position - 1):
        stops = np.append(stops, position)
    starts = np.concatenate([[len(MARK) if part.read(0, 3) == MARK else 0], stops[:-1] + 1])[: len(stops)]
    return np.stack([starts, stops], axis=1).astype(np.int64)


def ends_of(part: Part, byte: int) -> tuple[Int[np.ndarray, 'some'], int]:
    """Returns where a byte occurs, and how many bytes there are."""
    found, position = [], 0
    while chunk := part.read(position, CHUNK):
        found.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == byte) + position)
        position += len(chunk)
    return np.concatenate(found) if found else np.zeros(0, np.int64), position


def without_blank(part: Part, ranges: Int[np.ndarray, 'lines 2']) -> Int[np.ndarray, 'some']:
    """Returns the numbers of the lines that hold more than a carriage return."""
    short = ranges[:, 1] - ranges[:, 0] <= 1
    blank = [number for number in np.flatnonzero(short) if not part.read(*span(ranges[number])).strip()]
    return np.setdiff1d(np.arange(len(ranges)), blank)


def span(pair: Int[np.ndarray, '2']) -> tuple[int, int]:
    """Returns (start, size) of a range (start, stop)."""
    return int(pair[0]), int(pair[1] - pair[0])


def decode(data: bytes, where: str) -> str:
    """Returns a line as text without its end; raises `Broken` where it is not UTF-8."""
    try:
        return data.decode('utf-8').removesuffix('\r')
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise Broken(f'{where}: not UTF-8 text (byte 0x{byte:02x} at position {error.start + 1})') from None


def decode_file(data: bytes, where: str) -> str:
    """Returns the text of a whole file without its byte order mark; raises `Broken` where it is not UTF-8."""
    if data[:2] in WIDE:
        raise Broken(f'{where}: {WIDE[data[:2]]} text: save it as UTF-8')
    return decode(data.removeprefix(MARK), where)


def text_lines(text: str) -> list[str]:
    """Returns the lines of a text without their ends, by the rule of `line_ranges`."""
    lines = re.split(r'\r?\n' if '\n' in text else r'\r', text)
    return lines[:-1] if not lines[-1] else lines


def text_rows(
    entry: Entry, part: Part, ranges: np.ndarray, numbers: np.ndarray, parse: Callable[[str, str], Row]
) -> Rows:
    """Returns rows that `parse(text, where)` makes of byte ranges of a file.

    Args:
      entry: the file.
      part: its bytes.
      ranges: [rows, 2], where each record starts and stops.
      numbers: the line, counted from 1, that each record starts on.
      parse: raises `Broken` for a record that is not as it should be.
    """
    where = functools.partial(line_name, entry.name, numbers)
    return Rows(len(ranges), functools.partial(parsed, part, ranges, where, parse), where)


def line_name(name: str, numbers: np.ndarray, number: int) -> str:
    """Returns 'train.jsonl, line 7'."""
    return f'{name}, line {int(numbers[number]):,}'


def parsed(
    part: Part, ranges: np.ndarray, where: Callable[[int], str], parse: Callable[[str, str], Row], number: int
) -> Row:
    """Returns one row of a file of lines."""
    name = where(number)
    return parse(decode(part.read(*span(ranges[number])), name), name)


def read_lines(entry: Entry, field: str = 'text', label_pattern: str = '') -> Rows:
    """Returns one row {field: line} for each line of a text file, empty ones too.

    With `label_pattern`, rows also have the label that it finds in the file's path: one file a class.

    Raises:
      UserError: where it finds none.
    """
    part = open_text(entry)
    ranges = line_ranges(part)
    label = None
    if label_pattern:
        found = re.search(label_pattern, entry.name)
        if not found:
            raise UserError(f'{entry.name}: config.data.label_pattern={label_pattern!r} finds no label in this path')
        label = normal(found[1] if found.re.groups else found[0])
    return text_rows(entry, part, ranges, np.arange(1, len(ranges) + 1), functools.partial(as_field, field, label))


def as_field(field: str, label: str | None, text: str, where: str) -> Row:
    """Returns a line as a row of one field, or of two with a label."""
    return {field: text} if label is None else {field: text, 'label': label}


def read_jsonl(entry: Entry, finish: Callable[[Row, str], Row]) -> Rows:
    """Returns one row for each line of a file of JSON objects; empty lines are no rows."""
    part = open_text(entry)
    ranges = line_ranges(part)
    chosen = without_blank(part, ranges)
    return text_rows(entry, part, ranges[chosen], chosen + 1, functools.partial(parse_json, finish))


def parse_json(finish: Callable[[Row, str], Row], text: str, where: str) -> Row:
    """Returns a line of JSON as a row."""
    return finish(parse_object(text, where), where)
