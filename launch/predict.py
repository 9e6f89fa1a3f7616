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
from collections.abc import Sequence
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
    number = 0
    for number, (_, outputs) in enumerate(model.answers(requests, SEED.value), 1):
        answer = model.task.decode(outputs)
        name = getattr(requests[number - 1], 'name', '')
        if name and isinstance(answer, dict):
            answer = {'file': name, **answer}
        answer = save(answer, folder, f'{number - 1:05d}') if folder else plain(answer)  # pyright: ignore[reportArgumentType]
        print(json.dumps(answer, ensure_ascii=False), file=lines)
    if folder and unfinished:
        lines.close()
        unfinished.replace(folder / 'answers.jsonl')
        save_pictures(model, requests, folder)
        print(f'{number} answers in {folder}')


def save_pictures(model: Any, requests: Sequence[Any], folder: pathlib.Path) -> None:
    """Writes the images that the task renders from its answers, one per batch and name."""
    from research.data.outputs import png

    if not model.task.render or model.task.split or model.task.buckets:
        return
    start = 0
    for batch, outputs, count in model.outputs(requests, SEED.value):
        rows = [{name: value[:count] for name, value in values.items()} for values in (batch, outputs)]
        for name, picture in model.task.render(*rows).items():
            (folder / f'{name}_{start:05d}.png').write_bytes(png(picture))
        start += count


if __name__ == '__main__':
    launch.flags.run(main)
