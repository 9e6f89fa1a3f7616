"""Samples of a run during training: answers to a few requests, and pictures."""

import json
from typing import Any

import jax
import numpy as np
from etils import epath

from research.core.logs import write_text
from research.core.predictions import Evaluator, predictions, rendered, stacked
from research.core.private import is_private
from research.core.task import Task, Variables
from research.data.outputs import plain, png, save
from research.data.readable import readable

MAX_ANSWERS = 16  # in examples.json


def write_samples(
    task: Task, measure: Evaluator, variables: Variables, workdir: epath.Path, step: int, split: str, last: bool = False
) -> None:
    """Writes samples/<step>/examples.json and a PNG for each picture that the task renders.

    The requests are the task's examples, or a fixed random choice of rows of the split, at most one batch. (Not the
    first rows: files are often sorted by class.) With `last`, also writes the task's final pictures.
    """
    shows_rows = bool(task.examples) or not is_private(task)  # any split may contain training rows
    source: Any = task.examples or (task.source(split) if shows_rows else ())
    order = range(len(source)) if task.examples else np.random.default_rng(0).permutation(len(source)).tolist()
    raws = [source[row] for row in order[: measure.batch_size]]
    answers = [outputs for _, outputs in predictions(task, measure, variables, raws)]
    pictures = rendered(task, raws, answers)
    if last and task.final_pictures:
        pictures |= task.final_pictures(
            lambda raws: stacked([outputs for _, outputs in predictions(task, measure, variables, raws)])
        )
    if jax.process_index() or not (raws or pictures):
        return
    folder = workdir / 'samples' / f'{step:08d}'
    folder.mkdir(parents=True, exist_ok=True)

    def as_json(answer: Any, name: str) -> Any:
        return plain(answer) if task.render else save(answer, folder, name)  # rendered pictures show the answers

    examples = [
        {'input': readable(raw), 'output': readable(as_json(task.decode(outputs), f'answer_{number:02d}'))}
        for number, (raw, outputs) in enumerate(zip(raws[:MAX_ANSWERS], answers, strict=False))
    ]
    write_text(folder / 'examples.json', json.dumps(examples, indent=2, ensure_ascii=False))
    for name, picture in pictures.items():
        (folder / f'{name}.png').write_bytes(png(picture))
