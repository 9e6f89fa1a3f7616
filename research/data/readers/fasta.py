"""FASTA: sequences under a line that starts with '>' and names them."""

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
    """Returns a row {'name', 'sequence', 'label'} for each sequence of a file.

    The label is what `label_pattern` finds in the line of the name, or else the name of the file, without folder
    and ending: one file for each class.

    Raises:
      UserError: for a file that does not start with '>'. A name without a sequence is a broken row.
    """
    part = open_text(entry)
    ranges = line_ranges(part)
    heads = np.array([number for number, each in enumerate(ranges) if part.read(int(each[0]), 1) == b'>'], np.int64)
    if len(ranges) and (not len(heads) or any(part.read(*span(each)).strip() for each in ranges[: heads[0]])):
        raise UserError(f"{entry.name}: no FASTA file: its first line must start with '>'")
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
    """Returns one sequence as a row."""
    place = where(number)
    lines = [decode(part.read(*span(each)), place).strip() for each in ranges[heads[number] : heads[number + 1]]]
    head, sequence = lines[0][1:].strip(), ''.join(lines[1:])
    if not sequence:
        raise Broken(f'{place}: {head[:40]!r} has no sequence')
    found = pattern.search(head) if pattern else None
    if pattern and not found:
        raise Broken(f'{place}: config.data.label_pattern finds no label in {head[:60]!r}')
    label = stem if found is None else found[1] if pattern.groups else found[0]  # pyright: ignore[reportOptionalMemberAccess]
    return finish({'name': head, 'sequence': sequence, 'label': label}, place)
