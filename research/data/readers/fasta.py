"""FASTA: sequences below header lines that start with '>'."""

import functools
import os
import re
from collections.abc import Callable

import numpy as np

from research.data.readers.archives import Entry, Part
from research.data.readers.rows import Broken, Row, Rows
from research.data.readers.text import decode, line_name, line_ranges, open_text, span
from research.errors import UserError


def read_fasta(entry: Entry, finish: Callable[[Row, str], Row], label_pattern: str = '') -> Rows:
    """Reads a row {'name', 'sequence', 'label'} for each sequence of a file.

    The label is the match of `label_pattern` in the header line. Without a pattern it is the file name without folder
    and extension: one file per class.

    Raises:
      UserError: for a file that does not start with '>'. A header without a sequence is a broken row.
    """
    part = open_text(entry)
    ranges = line_ranges(part)
    heads = np.array([number for number, line in enumerate(ranges) if part.read(int(line[0]), 1) == b'>'], np.int64)
    if len(ranges) and (not len(heads) or any(part.read(*span(line)).strip() for line in ranges[: heads[0]])):
        raise UserError(f"{entry.name}: not a FASTA file: its first line must start with '>'")
    where = functools.partial(line_name, entry.name, heads + 1)
    stem = os.path.basename(entry.name).split('.')[0]
    pattern = re.compile(label_pattern) if label_pattern else None
    get = functools.partial(fasta_row, part, ranges, np.append(heads, len(ranges)), stem, pattern, finish, where)
    return Rows(len(heads), get, where)


def fasta_row(
    part: Part,
    ranges: np.ndarray,
    heads: np.ndarray,
    stem: str,
    pattern: re.Pattern | None,
    finish: Callable[[Row, str], Row],
    where: Callable[[int], str],
    number: int,
) -> Row:
    """One sequence as a row."""
    location = where(number)
    lines = [decode(part.read(*span(line)), location).strip() for line in ranges[heads[number] : heads[number + 1]]]
    head, sequence = lines[0][1:].strip(), ''.join(lines[1:])
    if not sequence:
        raise Broken(f'{location}: {head[:40]!r} has no sequence')
    match = pattern.search(head) if pattern else None
    if pattern and not match:
        raise Broken(f'{location}: config.data.label_pattern finds no label in {head[:60]!r}')
    label = stem if match is None else match[1] if pattern.groups else match[0]  # pyright: ignore[reportOptionalMemberAccess]
    return finish({'name': head, 'sequence': sequence, 'label': label}, location)
