"""Predictions for any number of requests: split into model inputs, batched by bucket, joined again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from research.core.task import Raw, Task, Variables
from research.data.batches import place, requests, stack
from research.errors import UserError

CHUNK_BATCHES = 8  # batches of requests encoded together, to fill buckets
PART_STRIDE = 1_000_003  # between the indices of a request's parts: a prime, so that few parts of requests share one


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
    read: Callable[[Raw], Raw] = lambda raw: raw,
    index: Sequence[int] | None = None,
    keep_errors: bool = False,
) -> Iterator[tuple[Raw, Any]]:
    """Yields (request, outputs of one example as host arrays) in the order of the requests.

    The randomness of an answer depends on `seed` and on the index of the request, not on its batch.

    Args:
      task: the task; its `split`, `buckets` and `join` are used if set.
      evaluator: the compiled functions of the task.
      variables: the variables of the model.
      raws: the requests.
      seed: seed of sampled answers; None for that of the evaluator.
      encode: replaces `task.encode`, for error messages that name files.
      limit: answer only the first `limit` requests; 0 answers all. Requests are read chunk by chunk.
      read: (request) -> request before `split`, for files that are opened only when their turn comes.
      index: the index of each request; None for its position in `raws`.
      keep_errors: yield (request, UserError) for a request that cannot be read or encoded, and go on.

    Raises:
      UserError: for a request that cannot be read or encoded, without `keep_errors`.
    """
    chunk = evaluator.batch_size * (CHUNK_BATCHES if task.buckets or task.split else 1)
    count = min(limit, len(raws)) if limit else len(raws)
    for first in range(0, count, chunk):
        numbers = range(first, min(first + chunk, count))
        rows = [encoded(task, raws[number], read, encode or task.encode, keep_errors) for number in numbers]
        indices = [
            part_index(number if index is None else index[number], part)
            for number, row in zip(numbers, rows, strict=True)
            for part in range(len(row.examples))
        ]
        examples = [example for row in rows for example in row.examples]
        outputs = predict_examples(task, evaluator, variables, examples, indices, seed)
        position = 0
        for row in rows:
            parts_outputs = outputs[position : position + len(row.examples)]
            position += len(row.examples)
            if row.error:
                yield row.raw, row.error
            else:
                yield row.raw, dict(task.join(row.raw, parts_outputs)) if task.join else parts_outputs[0]


class Encoded(NamedTuple):
    """A request with the model inputs of its parts, or the error that made it unusable."""

    raw: Raw
    examples: Sequence[Mapping[str, np.ndarray]]
    error: UserError | None = None


def encoded(
    task: Task, raw: Raw, read: Callable[[Raw], Raw], encode: Callable[[Raw], Mapping[str, np.ndarray]],
    keep_errors: bool,
) -> Encoded:  # fmt: skip
    """Reads, splits and encodes a request; with `keep_errors`, a mistake in it becomes its `error`."""
    try:
        opened = read(raw)
        return Encoded(opened, [encode(part) for part in (task.split(opened) if task.split else [opened])])
    except UserError as error:
        if not keep_errors:
            raise
        return Encoded(raw, [], error)


def part_index(index: int, part: int) -> int:
    """The index of one part of a request, which depends on no other request; that of the first part is `index`."""
    return (index + part * PART_STRIDE) % 2**31


def predict_examples(
    task: Task,
    evaluator: Evaluator,
    variables: Variables,
    examples: Sequence[Mapping[str, np.ndarray]],
    indices: Sequence[int],
    seed: int | None,
) -> list[dict[str, np.ndarray]]:
    """The outputs of encoded examples in order, without padding; `indices` are theirs."""
    size, outputs = evaluator.batch_size, [{} for _ in examples]
    for bucket, positions in groups(task, examples, size):
        padded = [task.buckets.pad(examples[p], bucket) if task.buckets else examples[p] for p in positions]
        spare = size - len(positions)
        index = np.array([indices[p] for p in positions] + [indices[positions[0]]] * spare, np.int32)
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
