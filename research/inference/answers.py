"""Answers as JSON lines: of many requests in order, or of one typed line after another."""

import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from research.core.predictions import rendered
from research.core.task import Task
from research.data.outputs import plain, png, save
from research.errors import UserError
from research.inference.model import Model
from research.inference.requests import Unreadable, blank_requests, find_requests


class Line(NamedTuple):
    """The answer to one request, ready for JSON; `error` is its message if there is no answer."""

    answer: Any
    error: str = ''


def answer_lines(
    model: Model, requests: Sequence[Any], seed: int, folder: pathlib.Path | None, first: int = 0
) -> Iterator[Line]:
    """Yields the line of each request in order.

    Args:
      model: a trained model.
      requests: the requests, from `find_requests` or `blank_requests`.
      seed: seed of sampled answers.
      folder: an existing folder for pictures and sounds; None describes them.
      first: the index of the first request, which its randomness depends on.
    """
    shown, index = [], range(first, first + len(requests))
    results = model.answers(requests, seed, index, keep_errors=True)
    for number, (original, (request, outputs)) in enumerate(zip(requests, results, strict=True), first):
        name = getattr(original, 'name', '')
        if isinstance(outputs, UserError):
            yield error_line(outputs, name, number)
        else:
            yield Line(answer_record(model.task.decode(outputs), name, number, folder))
            shown.append((request, outputs))
        if shown and folder and (len(shown) == model.measure.batch_size or number == index[-1]):
            save_pictures(model.task, shown, folder, number + 1 - len(shown))
            shown = []


def answer_record(answer: Any, name: str, number: int, folder: pathlib.Path | None = None) -> Any:
    """A decoded answer for JSON, with the file of its request; pictures and sounds are saved, or else described."""
    if name and isinstance(answer, Mapping):
        answer = {'file': name, **answer}
    return save(answer, folder, f'{number:05d}') if folder else plain(answer)  # pyright: ignore[reportArgumentType]


def error_line(error: UserError, name: str, number: int) -> Line:
    """The line of a request without an answer: its error, and its file and line or else its number from 1."""
    message = str(error)
    reason = message.removeprefix(f'{name}: ') if name else message
    return Line({'error': reason, **({'file': name} if name else {'input': number + 1})}, message)


def save_pictures(task: Task, shown: Sequence[tuple[Any, Any]], folder: pathlib.Path, first: int) -> None:
    """Writes the pictures that the task renders of some answers; `first` is the number of the first answer."""
    for name, picture in rendered(task, *zip(*shown, strict=True)).items():
        (folder / f'{name}_{first:05d}.png').write_bytes(png(picture))


def json_text(answer: Any) -> str:
    return json.dumps(answer, ensure_ascii=False)


def converse(
    model: Model, lines: Iterable[str], seed: int, folder: pathlib.Path | None, write: Callable[[str], None]
) -> None:
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
        for each in answer_lines(model, requests, seed, folder, count):
            write(json_text(each.answer))
        count += len(requests)


def requests_of_line(task: Task, line: str, count: int) -> Sequence[Mapping[str, Any] | Unreadable]:
    """The requests in a typed line after `count` others; none in an empty one, unless the task needs no input."""
    if line.strip():
        return find_requests(task.inputs, [line], lambda text: print(text, file=sys.stderr))
    needs_input = any(field.kind not in ('category', 'number') for field in task.inputs.values())
    return [] if needs_input else blank_requests(task, count + 1)[-1:]
