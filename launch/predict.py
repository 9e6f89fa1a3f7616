"""Answers requests with a trained run: JSON lines out, and pictures into --output.

An answer to what a file holds begins with its name, {"file": "digit.png", ...}.

    python -m launch.predict --workdir=runs/python_lm --input='import os'
    python -m launch.predict --workdir=runs/digits --input=digit.png --input=folder_of_digits
    python -m launch.predict --workdir=runs/digits_gan --count=16 --seed=7 --output=samples
"""

import functools
import json
import pathlib
import sys

import numpy as np
from absl import flags

import launch.flags
import research

WORKDIR = flags.DEFINE_string('workdir', '', 'The folder of the run.')
INPUT = flags.DEFINE_multi_string('input', [], 'A text, a file or a folder; may be given several times.')
COUNT = flags.DEFINE_integer('count', 0, 'How many answers of a model that needs no input.', lower_bound=0)
SEED = flags.DEFINE_integer('seed', 0, 'Seed of sampled answers.', lower_bound=0, upper_bound=2**31 - 1)
OUTPUT = flags.DEFINE_string('output', '', 'Folder for answers.jsonl and pictures; default: standard output.')


def main(overrides: dict[str, str]) -> None:
    """Prints or writes one JSON line a request."""
    from research.core.requests import blank_requests, read_requests
    from research.errors import UserError

    if bool(INPUT.value) == bool(COUNT.value):
        raise UserError('give either --input (a text, file or folder) or --count (a model that needs no input)')
    model = research.load(WORKDIR.value, overrides)
    say = functools.partial(print, file=sys.stderr)  # standard output is for answers
    if INPUT.value:
        requests = read_requests(model.task.inputs, INPUT.value, say)
    else:
        requests = blank_requests(model.task, COUNT.value)
    folder = pathlib.Path(OUTPUT.value).expanduser() if OUTPUT.value else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / 'answers.jsonl.unfinished' if folder else None
    lines = unfinished.open('w', encoding='utf-8') if unfinished else sys.stdout
    number = 0
    for batch, outputs, count in model.outputs(requests, SEED.value):
        rows = {name: value[:count] for name, value in outputs.items()}
        for row in range(count):
            answer = model.task.decode({name: value[row] for name, value in rows.items()})
            name = getattr(requests[number + row], 'name', '')
            if name and isinstance(answer, dict):
                answer = {'file': name, **answer}
            print(json.dumps(answer, ensure_ascii=False), file=lines)
            if folder and 'image' in rows:
                save_image(rows['image'][row], folder / f'{number + row:05d}.png')
        if folder and model.task.render:
            pictures = model.task.render({name: value[:count] for name, value in batch.items()}, rows)
            for name, picture in pictures.items():
                save_image(picture, folder / f'{name}_{number:05d}.png')
        number += count
    if folder:
        lines.close()
        unfinished.replace(folder / 'answers.jsonl')
        print(f'{number} answers in {folder}')


def save_image(values: np.ndarray, path: pathlib.Path) -> None:
    """Writes an image, uint8 or float in [0, 1], with 1 or 3 channels, as PNG."""
    from PIL import Image

    if values.dtype != np.uint8:
        values = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values).save(path)


if __name__ == '__main__':
    launch.flags.run(main)
