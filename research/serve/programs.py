"""The device program of a one-shot model: the shapes it is compiled for, and how a batch of jobs runs."""

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from research.core.task import Raw, Task
from research.data.batches import narrow, stack
from research.errors import UserError
from research.inference.model import Model
from research.serve.batcher import Job, Outputs
from research.serve.samples import sample_requests

MAX_BUCKETS = 64  # of a task; each is compiled for every size of a batch

Example = Mapping[str, np.ndarray]


def batch_sizes(largest: int, devices: int, exact: bool) -> tuple[int, ...]:
    """The sizes of batches: powers of two up to `largest`, each divisible by the number of devices."""
    top = -(-largest // devices) * devices
    if exact:
        return (top,)
    powers = itertools.takewhile(lambda size: size < largest, (2**power for power in itertools.count()))
    return tuple(sorted({-(-size // devices) * devices for size in powers} | {top}))


def shaped(task: Task, example: Example) -> Example:
    """An example in one of the few shapes that the model is compiled for."""
    if task.buckets:
        example = task.buckets.pad(example, task.buckets.bucket(example))
    trim = getattr(task, 'trim', None)
    return trim(example) if trim else example


def shape_of(example: Example) -> Hashable:
    """The names, shapes and types of an example's arrays."""
    arrays = {name: narrow(np.asarray(value)) for name, value in example.items()}
    return tuple((name, array.shape, array.dtype.name) for name, array in sorted(arrays.items()))


def variants(task: Task, example: Example) -> Iterator[Example]:
    """The example in the shape of each bucket that holds it; the example itself for a task without buckets."""
    if not task.buckets:
        yield shaped(task, example)
        return
    for bucket in range(task.buckets.bucket(example), MAX_BUCKETS):
        try:
            yield task.buckets.pad(example, bucket)
        except IndexError:  # beyond the last bucket
            return


def reads_seed(model: Model, batch: Mapping[str, Any]) -> bool:
    """Whether an answer may depend on the seed, by the operations that its outputs need."""
    jaxpr = jax.make_jaxpr(model.measure.predict)(model.variables, batch, np.int32(0)).jaxpr
    while len(jaxpr.eqns) == 1 and 'jaxpr' in jaxpr.eqns[0].params:  # a call of the jitted function
        inner = jaxpr.eqns[0].params['jaxpr'].jaxpr
        if len(inner.invars) != len(jaxpr.invars) or list(jaxpr.eqns[0].invars) != list(jaxpr.invars):
            break
        jaxpr = inner
    needed = {id(variable) for variable in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(variable) in needed for variable in equation.outvars):
            needed |= {id(variable) for variable in equation.invars}
    return id(jaxpr.invars[-1]) in needed


class Programs:
    """The compiled `predict` of a model for a few sizes of batches and shapes of examples.

    Args:
      model: the model.
      largest: the largest batch.
      exact: compile only the largest batch.
    """

    def __init__(self, model: Model, largest: int, exact: bool = False):
        self.model = model
        devices = model.mesh.devices.size
        self.sizes = batch_sizes(largest, devices, exact)
        self.shapes: dict[Hashable, Example] = {}  # that are compiled, each with an example
        self.seeded = True

    def key(self, example: Example, seed: int) -> Hashable:
        """What examples of one batch have in common."""
        return (shape_of(example), seed if self.seeded else 0)

    def collect(self, raws: Sequence[Raw] = ()) -> None:
        """Finds the shapes of examples.

        Args:
          raws: requests; (): samples made from the inputs of the task.
        """
        task = self.model.task
        for raw in raws or sample_requests(task):
            for part in task.split(raw) if task.split else [raw]:
                for example in variants(task, task.encode(part)):
                    self.shapes.setdefault(shape_of(example), example)

    def compile(self) -> None:
        """Runs every program once, so that no request has to wait for a compilation."""
        jobs = [Job(example, (), 0, 0, '') for example in self.shapes.values()]
        self.seeded = any(reads_seed(self.model, self.batch([job], self.sizes[0])) for job in jobs[:1])
        for job in jobs:
            for size in self.sizes:
                self.run([job] * size)

    def size(self, count: int) -> int:
        """The size of the batch that `count` jobs run in."""
        return next(size for size in self.sizes if size >= count)

    def batch(self, jobs: Sequence[Job], size: int) -> dict[str, Any]:
        """The jobs as one batch on the devices, padded with masked copies of the first."""
        spare = size - len(jobs)
        examples = [job.example for job in jobs]
        index = np.array([job.index for job in jobs] + [jobs[0].index] * spare, np.int32)
        mask = (np.arange(size) < len(jobs)).astype(np.float32)
        batch = {**stack([*examples, *examples[:1] * spare]), 'index': index, 'mask': mask}
        return jax.device_put(batch, self.model.measure.sharding)

    def run(self, jobs: Sequence[Job]) -> list[Outputs]:
        """The outputs of jobs of one key, as host arrays of single examples."""
        size = self.size(len(jobs))
        with jax.set_mesh(self.model.mesh):
            result = self.model.measure.predict(self.model.variables, self.batch(jobs, size), np.int32(jobs[0].seed))
            host = jax.device_get(result)
        return [{name: value[row] for name, value in host.items()} for row in range(len(jobs))]

    def check(self, example: Example) -> None:
        """Checks the arrays of an encoded example from outside; raises UserError for other names, types or shapes."""
        if shape_of(example) in self.shapes or not self.shapes:
            return
        expected = ' or '.join(
            ', '.join(f'{name} {type_name}{list(shape)}' for name, shape, type_name in shape)  # pyright: ignore[reportGeneralTypeIssues]
            for shape in self.shapes
        )
        raise UserError(f'the encoded arrays must be {expected}')
