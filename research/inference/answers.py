"""Answers as JSON lines: of many requests in order, or of one typed line after another."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.core.predictions import rendered
from research.core.task import Raw, Task
from research.data.outputs import plain, png, save
from research.errors import UserError
from research.inference.model import Model
from research.inference.requests import Unreadable, blank_requests, find_requests


class Line(NamedTuple):
    """The answer to one request, ready for JSON; `error` is its message if there is no answer."""

    answer: Any
    request: Raw = {}  # with its files opened
    outputs: Mapping[str, np.ndarray] = {}
    error: str = ''


def answer_lines(
    model: Model, requests: Sequence[Any], seed: int, folder: Any = None, index: Sequence[int] | None = None
) -> Iterator[Line]:
    """Yields the line of each request in order.

    Args:
      model: a trained model.
      requests: the requests, from `find_requests` or `blank_requests`.
      seed: seed of sampled answers.
      folder: an existing folder for pictures and sounds; None describes them.
      index: the place of each request in a larger list, which its randomness and its files depend on.
    """
    index = range(len(requests)) if index is None else index
    results = model.answers(requests, seed, index, keep_errors=True)
    for place, original, (request, outputs) in zip(index, requests, results, strict=True):
        name = getattr(original, 'name', '')
        if isinstance(outputs, UserError):
            yield error_line(outputs, name, place)
        else:
            yield Line(answer_record(model.task.decode(outputs), name, place, folder), request, outputs)


def answer_lines_with_pictures(model: Model, requests: Sequence[Any], seed: int, folder: Any) -> Iterator[Line]:
    """`answer_lines`, which also writes the pictures that the task renders of each batch of answers."""
    shown = []
    for number, line in enumerate(answer_lines(model, requests, seed, folder), 1):
        shown += [] if line.error else [(line.request, line.outputs)]
        if shown and (len(shown) == model.measure.batch_size or number == len(requests)):
            for name, picture in rendered(model.task, *zip(*shown, strict=True)).items():
                (folder / f'{name}_{number - len(shown):05d}.png').write_bytes(png(picture))
            shown = []
        yield line


def answer_record(answer: Any, name: str, number: int, folder: Any = None) -> Any:
    """A decoded answer for JSON, with the file of its request; pictures and sounds are saved, or else described."""
    if name and isinstance(answer, Mapping):
        answer = {'file': name, **answer}
    return save(answer, folder, f'{number:05d}') if folder else plain(answer)


def error_line(error: UserError, name: str, number: int) -> Line:
    """The line of a request without an answer: its error, and its file and line or else its number from 1."""
    message = str(error)
    reason = message.removeprefix(f'{name}: ') if name else message
    return Line({'error': reason, **({'file': name} if name else {'input': number + 1})}, error=message)


def json_text(answer: Any) -> str:
    return json.dumps(answer, ensure_ascii=False)


def converse(model: Model, lines: Iterable[str], seed: int, folder: Any, write: Callable[[str], None]) -> None:
    """Answers each typed line (a text, the path of a file or folder, or a JSON object) before the next one is read.

    An empty line asks a model that needs no input for one answer. A mistake is written, and the conversation continues.
    The n-th request has the randomness of the n-th request of `answer_lines` with the same seed.
    """
    count = 0
    for line in lines:
        try:
            requests = requests_of_line(model.task, line.strip('\r\n'), count)
        except UserError as error:
            write(json_text({'error': str(error)}))
            continue
        for each in answer_lines(model, requests, seed, folder, range(count, count + len(requests))):
            write(json_text(each.answer))
        count += len(requests)


def requests_of_line(task: Task, line: str, count: int) -> Sequence[Mapping[str, Any] | Unreadable]:
    """The requests in a typed line after `count` others; none in an empty one, unless the task needs no input."""
    if line.strip():
        return find_requests(task.inputs, [line], lambda text: print(text, file=sys.stderr))
    needs_input = any(field.kind not in ('category', 'number') for field in task.inputs.values())
    return [] if needs_input else blank_requests(task, count + 1)[-1:]
