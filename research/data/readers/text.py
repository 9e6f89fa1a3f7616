"""Files of text or JSON lines, indexed by byte offset and read on access."""

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

CHUNK_BYTES = 1 << 22  # read at once while lines are indexed
UTF8_BOM = b'\xef\xbb\xbf'  # byte order mark that some programs write before UTF-8
UTF16_BOMS = {b'\xff\xfe': 'UTF-16', b'\xfe\xff': 'UTF-16'}  # of what Excel calls Unicode text


def open_text(entry: Entry) -> Part:
    """Opens the bytes of a text file; raises UserError for UTF-16, which cannot be indexed by line feeds."""
    part = open_part(entry)
    if part.read(0, 2) in UTF16_BOMS:
        raise UserError(f'{entry.name}: {UTF16_BOMS[part.read(0, 2)]} text: save it as UTF-8')
    return part


def line_ranges(part: Part) -> Int[np.ndarray, 'lines 2']:
    """Byte range of each line, without its line feed; the last line needs none.

    Lines end with a line feed or, in a file without any, with a carriage return (old Mac files). U+2028, U+0085 and
    form feeds do not end a line, unlike in `str.splitlines`.
    """
    stops, position = ends_of(part, 10)
    if not len(stops):
        stops, position = ends_of(part, 13)
    if position and (not len(stops) or stops[-1] != position - 1):
        stops = np.append(stops, position)
    starts = np.concatenate([[len(UTF8_BOM) if part.read(0, 3) == UTF8_BOM else 0], stops[:-1] + 1])[: len(stops)]
    return np.stack([starts, stops], axis=1).astype(np.int64)


def ends_of(part: Part, byte: int) -> tuple[Int[np.ndarray, 'some'], int]:
    """Positions of a byte, and the number of bytes read."""
    positions, position = [], 0
    while chunk := part.read(position, CHUNK_BYTES):
        positions.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == byte) + position)
        position += len(chunk)
    return np.concatenate(positions) if positions else np.zeros(0, np.int64), position


def without_blank(part: Part, ranges: Int[np.ndarray, 'lines 2']) -> Int[np.ndarray, 'some']:
    """Numbers of the lines with more than a carriage return."""
    short = ranges[:, 1] - ranges[:, 0] <= 1
    blank = [number for number in np.flatnonzero(short) if not part.read(*span(ranges[number])).strip()]
    return np.setdiff1d(np.arange(len(ranges)), blank)


def span(pair: Int[np.ndarray, '2']) -> tuple[int, int]:
    """(start, size) of a range (start, stop)."""
    return int(pair[0]), int(pair[1] - pair[0])


def decode(data: bytes, where: str) -> str:
    """Decodes a line without its end; raises `Broken` if it is not UTF-8."""
    try:
        return data.decode('utf-8').removesuffix('\r')
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise Broken(f'{where}: not UTF-8 text (byte 0x{byte:02x} at position {error.start + 1})') from None


def decode_file(data: bytes, where: str) -> str:
    """Decodes a whole file without its byte order mark; raises `Broken` if it is not UTF-8."""
    if data[:2] in UTF16_BOMS:
        raise Broken(f'{where}: {UTF16_BOMS[data[:2]]} text: save it as UTF-8')
    return decode(data.removeprefix(UTF8_BOM), where)


def text_lines(text: str) -> list[str]:
    """Lines of a text without their ends, by the rule of `line_ranges`."""
    lines = re.split(r'\r?\n' if '\n' in text else r'\r', text)
    return lines[:-1] if not lines[-1] else lines


def text_rows(
    entry: Entry, part: Part, ranges: np.ndarray, numbers: np.ndarray, parse: Callable[[str, str], Row]
) -> Rows:
    """Rows that `parse(text, where)` makes from byte ranges of a file.

    Args:
      entry: the file.
      part: its bytes.
      ranges: [rows, 2], the byte range of each record.
      numbers: the first line of each record, counted from 1.
      parse: raises `Broken` for an invalid record.
    """
    where = functools.partial(line_name, entry.name, numbers)
    return Rows(len(ranges), functools.partial(parsed, part, ranges, where, parse), where)


def line_name(name: str, numbers: np.ndarray, number: int) -> str:
    return f'{name}, line {int(numbers[number]):,}'


def parsed(
    part: Part, ranges: np.ndarray, where: Callable[[int], str], parse: Callable[[str, str], Row], number: int
) -> Row:
    name = where(number)
    return parse(decode(part.read(*span(ranges[number])), name), name)


def read_lines(entry: Entry, field: str = 'text', label_pattern: str = '') -> Rows:
    """A row {field: line} for each line of a text file, including empty lines.

    With `label_pattern`, rows also have the label that it matches in the file's path: one file per class.

    Raises:
      UserError: if it does not match.
    """
    part = open_text(entry)
    ranges = line_ranges(part)
    label = None
    if label_pattern:
        match = re.search(label_pattern, entry.name)
        if not match:
            raise UserError(f'{entry.name}: config.data.label_pattern={label_pattern!r} finds no label in this path')
        label = normal(match[1] if match.re.groups else match[0])
    return text_rows(entry, part, ranges, np.arange(1, len(ranges) + 1), functools.partial(as_field, field, label))


def as_field(field: str, label: str | None, text: str, where: str) -> Row:
    return {field: text} if label is None else {field: text, 'label': label}


def read_jsonl(entry: Entry, finish: Callable[[Row, str], Row]) -> Rows:
    """A row for each line of a file of JSON objects; empty lines are skipped."""
    part = open_text(entry)
    ranges = line_ranges(part)
    chosen = without_blank(part, ranges)
    return text_rows(entry, part, ranges[chosen], chosen + 1, functools.partial(parse_json, finish))


def parse_json(finish: Callable[[Row, str], Row], text: str, where: str) -> Row:
    return finish(parse_object(text, where), where)
