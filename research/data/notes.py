"""What people should know of data before a run starts: what was left out, guessed, or will be cut."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

LOOKED_AT = 2000  # rows whose length is counted
SHOWN = 200  # characters of a message


def data_notes(rows: Any) -> list[str]:
    """Returns what is to be said of a split: the notes of its reader, and how many broken records it lacks.

    Args:
      rows: `Rows`, or rows made of others, which they hold as `rows`.
    """
    found: list[str] = []
    for _ in range(10):
        found += [each.text for each in getattr(rows, 'notes', ()) if each.level == 'warning']
        if skipped := getattr(rows, 'skipped', ()):
            found.append(f'{len(skipped):,} broken records are left out, the first: {skipped[0]}')
        rows = getattr(rows, 'rows', None)
        if rows is None:
            break
    return [shorten(text) for text in dict.fromkeys(found)]


def shorten(text: str, most: int = SHOWN) -> str:
    """Returns a text with its middle left out where it is long."""
    head = most * 2 // 3
    return text if len(text) <= most else f'{text[:head]} ... {text[head + 5 - most:]}'


def cut_notes(
    rows: Sequence[Mapping[str, Any]], count: Callable[[Mapping[str, Any]], int], room: int, unit: str
) -> list[str]:
    """Returns what is lost of rows that are longer than a model reads; [] where nothing is.

    Args:
      rows: of the training split; at most 2,000 of them, evenly spread, are counted.
      count: (row) -> how many units it has.
      room: how many the model reads.
      unit: 'tokens' or another name of what is counted.
    """
    chosen = range(len(rows)) if len(rows) <= LOOKED_AT else np.arange(LOOKED_AT) * len(rows) // LOOKED_AT
    return loss_notes([count(rows[int(number)]) for number in chosen], room, unit)


def loss_notes(sizes: Iterable[int], room: int, unit: str) -> list[str]:
    """Returns the sentence on rows of some sizes of which at most `room` units are read."""
    array = np.asarray(list(sizes), np.int64)
    lost = np.maximum(array - room, 0)
    if not lost.any():
        return []
    return [
        f'{(lost > 0).mean():.1%} of the training rows are longer than the {room:,} {unit} that the model reads '
        f'(config.task.length) and lose {lost.sum() / array.sum():.1%} of all {unit}; the longest has {array.max():,}'
    ]
