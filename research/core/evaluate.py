"""Evaluation: streaming sums over a whole split, then metrics with their baselines."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from research.core.predictions import Evaluator, decoded
from research.core.task import Batch, Context, Metric, Task, Variables, fold
from research.data.batches import evaluation_loader
from research.data.buckets import Parts, evaluation_batches
from research.errors import UserError


class Evaluation(NamedTuple):
    """The metrics of a split. `failed` maps 'metrics' or 'finalize' to the reason why it could not be computed."""

    metrics: dict[str, Metric]
    count: int  # examples
    seconds: float
    failed: dict[str, str] = {}


def make_evaluator(task: Task, seed: int, batch_size: int, sharding: jax.sharding.NamedSharding) -> Evaluator:
    """Jits the device functions; the key depends only on the seed, and each example folds in its index."""
    replicated = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())

    def context(seed: Any) -> Context:
        return Context(fold(jax.random.key(seed), 'evaluate'), np.int32(0), False)  # pyright: ignore[reportArgumentType]

    def sums(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        return task.metric_sums(variables, batch, context(seed))

    def predict(variables: Variables, batch: Batch, seed: Any) -> dict[str, jax.Array]:
        return task.predict(variables, batch, context(seed))

    jit = functools.partial(jax.jit, out_shardings=replicated)
    return Evaluator(jit(sums), jit(predict), seed, batch_size, sharding)


def evaluate(
    task: Task, measure: Evaluator, variables: Variables, split: str, whole: bool = True
) -> Evaluation:
    """Measures a split.

    Sums are accumulated in float64 on the host, one batch late, so that the devices never wait. `whole` includes
    `finalize`, which reads predictions and can take far longer. An error in either is returned in `failed`, because a
    metric that cannot be computed must not end a run.

    Raises:
      UserError: if the split is empty.
    """
    started = time.perf_counter()
    source = task.source(split)
    if not len(source):
        raise UserError(f'split {split!r} is empty: nothing to evaluate')
    totals: dict[str, np.ndarray] = {}
    pending = None
    for batch in measured_batches(task, measure, source, split):
        sums = measure.sums(variables, batch)
        add(totals, pending)
        pending = sums
    add(totals, pending)
    failed: dict[str, str] = {}
    metrics = attempt('metrics', lambda: task.metrics(totals), failed)
    if whole and task.finalize is not None:
        finalize, answers = task.finalize, decoded(task, measure, variables, source, task.finalize_count)
        metrics |= attempt('finalize', lambda: finalize(answers), failed)
    return Evaluation(metrics, len(source), time.perf_counter() - started, failed)


def attempt(name: str, compute: Callable[[], Mapping[str, Metric]], failed: dict[str, str]) -> dict[str, Metric]:
    """Calls `compute`; if it fails, returns {} and stores the reason in `failed[name]`."""
    try:
        return dict(compute())
    except jax.errors.JaxRuntimeError:  # a device error, such as out of memory
        raise
    except Exception as error:
        logging.debug('metrics could not be computed', exc_info=True)
        text = (str(error).strip().splitlines() or [''])[0]
        failed[name] = text if isinstance(error, UserError) else f'{type(error).__name__}: {text}'
        return {}


def measured_batches(task: Task, measure: Evaluator, source: Any, split: str) -> Any:
    """A loader of device batches over all rows, or over all parts of the rows if the task has `split`."""
    rows, batches = Parts(source, task.split) if task.split else source, None
    if task.buckets:
        of_parts = (task.buckets.bucket(task.encode(part)) for part in rows)
        numbers = np.fromiter(of_parts, np.int64, len(rows)) if task.split else task.buckets.of(split)
        batches = evaluation_batches(numbers, measure.batch_size)
    pad = task.buckets.pad if task.buckets else None
    return evaluation_loader(rows, task.encode, measure.batch_size, measure.sharding, batches=batches, pad=pad)


def add(totals: dict[str, np.ndarray], sums: Mapping[str, jax.Array] | None) -> None:
    """Adds device sums to float64 totals in place."""
    for name, value in (sums or {}).items():
        totals[name] = totals.get(name, 0.0) + np.asarray(value, np.float64)


def scalars(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The metrics that are single numbers."""
    return {name: float(metric.value) for name, metric in metrics.items() if np.ndim(metric.value) == 0}
