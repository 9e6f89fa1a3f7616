"""Answers requests with a trained run; writes JSON lines, and images to --output.

An answer to a file starts with the file's name, {"file": "digit.png", ...}.

    python -m launch.predict --workdir=runs/python_lm --input='import os'
    python -m launch.predict --workdir=runs/digits --input=digit.png --input=folder_of_digits
    python -m launch.predict --workdir=runs/digits_gan --count=16 --seed=7 --output=samples
"""

import functools
import json
import pathlib
import sys
from typing import Any

from absl import flags

import launch.flags
import research

WORKDIR = flags.DEFINE_string('workdir', '', 'The folder of the run.')
INPUT = flags.DEFINE_multi_string('input', [], 'A text, a file or a folder; repeatable.')
COUNT = flags.DEFINE_integer('count', 0, 'Number of answers of a model without input.', lower_bound=0)
SEED = flags.DEFINE_integer('seed', 0, 'Seed of sampled answers.', lower_bound=0, upper_bound=2**31 - 1)
OUTPUT = flags.DEFINE_string('output', '', 'Folder for answers.jsonl and images; default: standard output.')


def main(overrides: dict[str, str]) -> None:
    """Prints or writes one JSON line per request."""
    from research.data.outputs import plain, save
    from research.errors import UserError
    from research.inference.requests import blank_requests, read_requests

    if bool(INPUT.value) == bool(COUNT.value):
        raise UserError('give either --input (a text, file or folder) or --count (a model without input)')
    model = research.load(WORKDIR.value, overrides)
    log = functools.partial(print, file=sys.stderr)  # standard output is for answers
    if INPUT.value:
        requests = read_requests(model.task.inputs, INPUT.value, log)
    else:
        requests = blank_requests(model.task, COUNT.value)
    folder = pathlib.Path(OUTPUT.value).expanduser() if OUTPUT.value else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / 'answers.jsonl.unfinished' if folder else None
    lines = unfinished.open('w', encoding='utf-8', errors='backslashreplace') if unfinished else sys.stdout
    number, shown = 0, []
    for number, (request, outputs) in enumerate(model.answers(requests, SEED.value), 1):
        answer = model.task.decode(outputs)
        name = getattr(requests[number - 1], 'name', '')
        if name and isinstance(answer, dict):
            answer = {'file': name, **answer}
        answer = save(answer, folder, f'{number - 1:05d}') if folder else plain(answer)  # pyright: ignore[reportArgumentType]
        print(json.dumps(answer, ensure_ascii=False), file=lines)
        shown.append((request, outputs))
        if len(shown) == model.measure.batch_size or number == len(requests):
            save_pictures(model.task, shown, folder, number - len(shown))
            shown = []
    if folder and unfinished:
        lines.close()
        unfinished.replace(folder / 'answers.jsonl')
        print(f'{number} answers in {folder}')


def save_pictures(task: Any, shown: list[tuple[Any, Any]], folder: pathlib.Path | None, first: int) -> None:
    """Writes the pictures that the task renders of some answers; `first` is the number of the first answer."""
    from research.core.predictions import rendered
    from research.data.outputs import png

    if folder:
        for name, picture in rendered(task, *zip(*shown, strict=True)).items():
            (folder / f'{name}_{first:05d}.png').write_bytes(png(picture))


if __name__ == '__main__':
    launch.flags.run(main)
