"""What a run shows while it learns: answers to a few requests, and pictures, per step."""

import io
import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from PIL import Image

from research.core.evaluate import Evaluator
from research.core.readable import readable
from research.core.task import Raw, Task, Variables
from research.data.batches import place, requests


def write_samples(
    task: Task, measure: Evaluator, variables: Variables, workdir: epath.Path, step: int, split: str, last: bool = False
) -> None:
    """Writes samples/<step>/examples.json and a PNG for each picture that the task renders.

    The requests are the task's examples, or rows of the split, always the same, one batch at the most. (Not its first
    rows: files often stand class by class.) With `last`, the pictures of the task's gallery are written too.
    """
    source: Any = task.examples or task.source(split)
    order = range(len(source)) if task.examples else np.random.default_rng(0).permutation(len(source)).tolist()
    raws = [source[row] for row in order[: measure.batch_size]]
    batch, outputs = answer(task, measure, variables, raws, 0)
    shown = {}
    if last and task.final_pictures:
        shown = task.final_pictures(lambda raws: answers(task, measure, variables, raws))
    if jax.process_index():
        return
    count = len(raws)
    batch = {name: np.asarray(value)[:count] for name, value in batch.items()}
    outputs = {name: value[:count] for name, value in outputs.items()}
    folder = workdir / 'samples' / f'{step:08d}'
    folder.mkdir(parents=True, exist_ok=True)
    examples = [
        {'input': readable(raws[row]), 'output': readable(task.decode({k: v[row] for k, v in outputs.items()}))}
        for row in range(min(count, 16))
    ]
    (folder / 'examples.json').write_text(json.dumps(examples, indent=2, ensure_ascii=False))
    for name, picture in ((task.render(batch, outputs) if task.render else {}) | shown).items():
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, 'PNG')
        (folder / f'{name}.png').write_bytes(buffer.getvalue())


def answer(
    task: Task, measure: Evaluator, variables: Variables, raws: Sequence[Raw], start: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (batch, outputs) of at most a batch of requests, the first of which is number `start`; padded."""
    batch = requests(task.encode, raws, measure.batch_size)
    batch['index'] = batch['index'] + start
    placed = place(batch, range(measure.batch_size), measure.batch_size, measure.sharding)
    return batch, jax.device_get(measure.predict(variables, placed, measure.seed))


def answers(task: Task, measure: Evaluator, variables: Variables, raws: Sequence[Raw]) -> dict[str, np.ndarray]:
    """Returns the outputs for any number of requests, as host arrays without padding."""
    parts, size = [], measure.batch_size
    for start in range(0, len(raws), size):
        part = raws[start : start + size]
        _, outputs = answer(task, measure, variables, part, start)
        parts.append({name: np.asarray(value)[: len(part)] for name, value in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
