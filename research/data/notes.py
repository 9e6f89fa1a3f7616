"""Notes on data before a run starts: what was left out, guessed, or will be truncated."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from absl import logging

MAX_MEASURED_ROWS = 2000  # rows whose length is measured
MAX_NOTE_CHARACTERS = 200


@functools.cache
def log_once(level: str, message: str) -> None:
    """Logs a 'warning' or 'note' once per process, because a run opens each split several times."""
    (logging.warning if level == 'warning' else logging.info)('%s', message)


def data_notes(rows: Any) -> list[str]:
    """Collects the notes of a split: warnings of its reader, and the number of broken records.

    Args:
      rows: `Rows`, or a wrapper that holds them as `rows`.
    """
    notes: list[str] = []
    for _ in range(10):
        notes += [note.text for note in getattr(rows, 'notes', ()) if note.level == 'warning']
        if skipped := getattr(rows, 'skipped', ()):
            notes.append(f'{len(skipped):,} broken records are left out, the first: {skipped[0]}')
        rows = getattr(rows, 'rows', None)
        if rows is None:
            break
    return [shorten(text) for text in dict.fromkeys(notes)]


def shorten(text: str, limit: int = MAX_NOTE_CHARACTERS) -> str:
    """Shortens a long text by leaving out its middle."""
    head = limit * 2 // 3
    return text if len(text) <= limit else f'{text[:head]} ... {text[head + 5 - limit:]}'


def cut_notes(
    rows: Sequence[Any], count: Callable[[Any], float], room: float, unit: str, setting: str = 'length'
) -> list[str]:
    """Reports how much of long rows is truncated; [] if nothing is.

    Args:
      rows: of the training split; at most 2,000 evenly spaced rows are measured.
      count: (row) -> its length in units.
      room: the length that the model reads.
      unit: 'tokens' or another name of the unit.
      setting: of config.task, that determines `room`.
    """
    measured = min(len(rows), MAX_MEASURED_ROWS)
    chosen = np.arange(measured) * len(rows) // max(measured, 1)
    return loss_notes([count(rows[int(number)]) for number in chosen], room, unit, setting)


def loss_notes(sizes: Iterable[float], room: float, unit: str, setting: str = 'length') -> list[str]:
    """Reports how much is truncated of rows of some sizes if at most `room` units are read."""
    array = np.asarray(list(sizes))
    lost = np.maximum(array - room, 0)
    if not lost.any():
        return []
    return [
        f'{(lost > 0).mean():.1%} of the training rows are longer than the {amount(room)} {unit} that the model reads '
        f'(config.task.{setting}) and lose {lost.sum() / array.sum():.1%} of all {unit}; '
        f'the longest has {amount(array.max())}'
    ]


def amount(value: float) -> str:
    """A count or a measurement as text."""
    return f'{value:,}' if isinstance(value, (int, np.integer)) else f'{value:,.1f}'
