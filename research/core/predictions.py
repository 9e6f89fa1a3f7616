"""Predictions for any number of requests: split into model inputs, batched by bucket, joined again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from research.core.task import Raw, Task, Variables
from research.data.batches import place, requests, stack

CHUNK_BATCHES = 8  # batches of requests encoded together, to fill buckets


class Evaluator(NamedTuple):
    """The compiled device functions of a task, made once and used for every evaluation of a run."""

    sums: Callable  # (variables, batch) -> {name: sums}
    predict: Callable  # (variables, batch, seed) -> outputs
    seed: int
    batch_size: int
    sharding: Any  # of the batches


def predictions(
    task: Task,
    evaluator: Evaluator,
    variables: Variables,
    raws: Sequence[Raw],
    seed: int | None = None,
    encode: Callable[[Raw], Mapping[str, np.ndarray]] | None = None,
    limit: int = 0,
) -> Iterator[tuple[Raw, dict[str, np.ndarray]]]:
    """Yields (request, outputs of one example as host arrays) in the order of the requests.

    The randomness of an answer depends on `seed` and on the position of the request, not on its batch.

    Args:
      task: the task; its `split`, `buckets` and `join` are used if set.
      evaluator: the compiled functions of the task.
      variables: the variables of the model.
      raws: the requests.
      seed: seed of sampled answers; None for that of the evaluator.
      encode: replaces `task.encode`, for error messages that name files.
      limit: answer only the first `limit` requests; 0 answers all. Requests are read chunk by chunk.
    """
    encode, start = encode or task.encode, 0
    chunk = evaluator.batch_size * (CHUNK_BATCHES if task.buckets or task.split else 1)
    count = min(limit, len(raws)) if limit else len(raws)
    for first in range(0, count, chunk):
        rows = [raws[number] for number in range(first, min(first + chunk, count))]
        parts = [list(task.split(raw)) if task.split else [raw] for raw in rows]
        examples = [encode(part) for group in parts for part in group]
        outputs = predict_examples(task, evaluator, variables, examples, start, seed)
        start += len(examples)
        position = 0
        for raw, group in zip(rows, parts, strict=True):
            parts_outputs = outputs[position : position + len(group)]
            position += len(group)
            yield raw, dict(task.join(raw, parts_outputs)) if task.join else parts_outputs[0]


def predict_examples(
    task: Task,
    evaluator: Evaluator,
    variables: Variables,
    examples: Sequence[Mapping[str, np.ndarray]],
    start: int,
    seed: int | None,
) -> list[dict[str, np.ndarray]]:
    """The outputs of encoded examples in order, without padding; `start` is the index of the first."""
    size, outputs = evaluator.batch_size, [{} for _ in examples]
    for bucket, positions in groups(task, examples, size):
        padded = [task.buckets.pad(examples[p], bucket) if task.buckets else examples[p] for p in positions]
        spare = size - len(positions)
        index = np.array([start + p for p in positions] + [start] * spare, np.int32)
        mask = (np.arange(size) < len(positions)).astype(np.float32)
        batch = {**stack([*padded, *padded[:1] * spare]), 'index': index, 'mask': mask}
        placed = place(batch, range(size), size, evaluator.sharding)
        result = jax.device_get(evaluator.predict(variables, placed, evaluator.seed if seed is None else seed))
        for row, position in enumerate(positions):
            outputs[position] = {name: value[row] for name, value in result.items()}
    return outputs


def groups(task: Task, examples: Sequence[Mapping[str, np.ndarray]], size: int) -> Iterator[tuple[int, list[int]]]:
    """Yields (bucket, positions of at most `size` examples in it)."""
    members: dict[int, list[int]] = {}
    for position, example in enumerate(examples):
        members.setdefault(task.buckets.bucket(example) if task.buckets else -1, []).append(position)
    for bucket in sorted(members):
        for start in range(0, len(members[bucket]), size):
            yield bucket, members[bucket][start : start + size]


def decoded(
    task: Task, evaluator: Evaluator, variables: Variables, raws: Sequence[Raw], limit: int = 0
) -> Iterator[tuple[Raw, Any]]:
    """Yields (raw row, decoded answer) in order."""
    for raw, outputs in predictions(task, evaluator, variables, raws, limit=limit):
        yield raw, task.decode(outputs)


def rendered(task: Task, raws: Sequence[Raw], outputs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The pictures that the task renders of requests and their outputs; {} if it renders none."""
    if not task.render or not raws or task.split or task.buckets:
        return {}
    return task.render(requests(task.encode, raws, len(raws)), stacked(outputs))


def stacked(outputs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The outputs of single examples as one batch."""
    return {name: np.stack([row[name] for row in outputs]) for name in outputs[0]}
