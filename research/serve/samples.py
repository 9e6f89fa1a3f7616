"""Requests that a model can answer, made from the inputs of its task: for warm-up and as examples."""

import io
import wave
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from research.core.task import Input, Raw, Task
from research.data.outputs import png
from research.errors import UserError

TEXTS = ('a', 'A', '0', 'ACGT' * 16, 'a b', 'the ' * 16)
SECONDS = (1.0, 0.2, 3.0)
ROWS = 4  # of the test split that are tried


def sample_requests(task: Task) -> list[Raw]:
    """At least one request that `encode` accepts: an example of the task, a made one, or a row of its test split.

    Raises:
      UserError: if none is accepted and there is no data.
    """
    error = None
    for raw in candidates(task):
        try:
            for part in task.split(raw) if task.split else [raw]:
                task.encode(part)
            return [raw]
        except (UserError, KeyError, TypeError, ValueError) as problem:
            error = problem
    raise UserError(f'no request could be made to compile the model with ({error})')


def candidates(task: Task) -> Iterator[Raw]:
    """Yields requests, the smallest first."""
    for number in range(len(TEXTS)):
        yield {name: made(field, number) for name, field in task.inputs.items()}
    for raw in task.examples:
        yield {name: raw[name] for name in task.inputs if name in raw}
    yield from rows(task, ROWS)


def rows(task: Task, count: int) -> Iterator[Raw]:
    """Yields the inputs of the first rows of the test split; nothing if the data is not on this machine."""
    try:
        source = task.source('test')
        for number in range(min(count, len(source))):
            row = source[number]
            yield {name: row[name] for name in [*task.inputs, 'rate'] if name in row}
    except Exception:  # the data of a run need not be where it is served
        return


def made(field: Input, number: int) -> Any:
    """A small value for a field; `number` chooses among several."""
    if field.kind in ('text', 'sequence'):
        return TEXTS[number % len(TEXTS)]
    if field.kind == 'image':
        height, width, channels = (*field.shape, 0, 0, 0)[:3]
        return png(np.full((height or 32, width or 32, channels or 3), 128, np.uint8))
    if field.kind == 'audio':
        return silence(SECONDS[number % len(SECONDS)])
    if field.kind == 'array':
        return np.zeros([size or 1 for size in field.shape], np.float32)
    if field.kind == 'list':
        return [{name: made(item, number) for name, item in field.items.items()}]
    return 0 if field.kind == 'number' else ''


def silence(seconds: float, rate: int = 22_050) -> bytes:
    """A quiet tone as a WAV file, at a rate that has to be changed: so the warm-up imports what that needs."""
    samples = (np.sin(np.arange(int(seconds * rate)) * 0.1) * 1000).astype('<i2')
    buffer = io.BytesIO()
    with wave.open(buffer, 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def example_inputs(task: Task, count: int = 3) -> list[Mapping[str, Any]]:
    """Requests to show: the examples of the task, rows of the test split, or made ones."""
    shown: list[Raw] = [{name: raw[name] for name in task.inputs if name in raw} for raw in task.examples]
    whole = [row for row in rows(task, count) if row.keys() >= task.inputs.keys()]
    return (shown or whole or sample_requests(task))[:count]
