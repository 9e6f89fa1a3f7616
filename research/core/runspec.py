"""The spec of a run before its first step: shapes, shardings, sizes and the compiled step."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from research.core import sharding as sharding_module
from research.core.config import Config, TrainSettings
from research.core.optimizer import make_optimizer, make_schedule
from research.core.private import Secret
from research.core.state import State, check_groups, init_state
from research.core.step import make_step
from research.core.task import Task
from research.data.batches import Row, encode_rows, poisson_capacity, sampler
from research.data.buckets import batches_per_epoch, bucket_sampler
from research.errors import UserError


class BucketSteps(NamedTuple):
    """Compiled steps, one for each batch shape, called like one step; `arguments` follow state and batch."""

    compiled: Mapping[Any, Any]
    arguments: tuple = ()

    def __call__(self, state: State, batch: Mapping[str, Any]) -> tuple[State, Any]:
        return self.compiled[shapes_of(batch)](state, batch, *self.arguments)

    @property
    def largest(self) -> Any:
        """The step of the last bucket, which needs the most memory if buckets are ascending."""
        return list(self.compiled.values())[-1]

    def memory_analysis(self) -> Any:
        """The memory of the largest step."""
        return self.largest.memory_analysis()

    def runtime_executable(self) -> Any:
        """The program of the largest step."""
        return self.largest.runtime_executable()


def shapes_of(batch: Mapping[str, Any]) -> tuple:
    return tuple(sorted((name, value.shape) for name, value in batch.items()))


class RunSpec(NamedTuple):
    """Everything that is fixed before step 1; contains shapes, but no values, of the model."""

    config: Config
    task: Task
    mesh: jax.sharding.Mesh
    optimizers: Mapping[str, optax.GradientTransformation]
    schedules: Mapping[str, optax.Schedule]
    update_every: Mapping[str, int]
    steps: int
    state: State  # ShapeDtypeStructs with shardings
    batch: Mapping[str, Any]  # the same
    batch_sharding: jax.sharding.NamedSharding
    rows: Callable[[int], list[Row]]  # (step) -> the rows of its batch, including padding
    capacity: int = 0  # maximum number of rows in a Poisson batch; 0: shuffled epochs
    bucketed: Mapping[int, Any] = {}  # {bucket: shapes of its batches}; `batch` is that of the last bucket
    secret: Secret | None = None  # of a private run

    @property
    def pad(self) -> Callable | None:
        """The function that pads an example to its bucket; None without buckets."""
        return self.task.buckets.pad if self.task.buckets else None

    @property
    def seed(self) -> int:
        """The seed of row order and augmentation."""
        return self.secret.seed if self.secret else self.config.seed

    def step(self) -> Callable:
        """The pure step, (state, batch) -> (state, logs), not compiled."""
        train = self.config.train
        return make_step(
            self.task, self.optimizers, self.update_every, train.microbatches, train.ema_decay, self.config.seed
        )

    def compile(self) -> Any:
        """Compiles the step for this run, once per bucket; the state is donated.

        The key of a private run is an argument of the program, so that compilation caches do not contain it.
        """
        step, whole, key = self.step(), sharding_module.replicated(self.mesh), ()
        if self.secret:
            key = (jax.device_put(np.array(self.secret.words, np.uint32), whole),)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.state)
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, whole))
        with jax.set_mesh(self.mesh):
            if not self.bucketed and not key:
                return jitted.lower(self.state, self.batch).compile()
            batches = [self.bucketed[bucket] for bucket in sorted(self.bucketed)] or [self.batch]
            programs = {shapes_of(batch): jitted.lower(self.state, batch, *key).compile() for batch in batches}
            return BucketSteps(programs, key)

    def init(self) -> State:
        """Creates the state before step 1, sharded, on the devices."""
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.state)
        with jax.set_mesh(self.mesh):
            return jax.jit(self._init, out_shardings=shardings)()

    def _init(self) -> State:
        return init_state(self.task, self.optimizers, self.config.train.ema_decay, self.config.seed)


def make_run_spec(config: Config, task: Task, devices: Any = None, secret: Secret | None = None) -> RunSpec:
    """Makes the spec of a run; reads one example for the batch shapes and computes no values of the model.

    Raises:
      UserError: if groups, optimizers, mesh and batch size are inconsistent, or the training split is empty.
    """
    train, seed = config.train, secret.seed if secret else config.seed
    mesh = sharding_module.make_mesh(config.mesh, devices)
    source = task.source('train')
    if not len(source):
        raise UserError('the training split is empty')
    if task.budget is not None:
        task.budget(0)  # fail before compiling if a dependency is missing
    numbers = task.buckets.of('train') if task.buckets else None
    steps = train.total_steps(len(source), numbers if numbers is None else epoch_steps(task, numbers, train))
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    check_groups(task, shapes, config.optimizer)
    update_every = {group: settings.update_every for group, settings in config.optimizer.items()}
    updates = {group: max(1, steps // every) for group, every in update_every.items()}
    optimizers = {
        group: make_optimizer(settings, updates[group], shapes.params[group], f'optimizer.{group}')
        for group, settings in config.optimizer.items()
    }
    schedules = {group: make_schedule(settings, updates[group]) for group, settings in config.optimizer.items()}
    state = jax.eval_shape(lambda: init_state(task, optimizers, train.ema_decay, config.seed))
    state = with_shardings(state, sharding_module.state_shardings(state, mesh, config.mesh))
    capacity = batch_capacity(train, len(source), mesh)
    batch_sharding, size = sharding_module.batch_sharding(mesh), capacity or train.batch_size

    def batch_of(row: int, bucket: int = -1) -> dict[str, jax.ShapeDtypeStruct]:
        pad = task.buckets.pad if task.buckets else None
        example = encode_rows(source, task.encode, [Row(row, 0, True, bucket)], config.seed, pad)
        return {
            name: jax.ShapeDtypeStruct((size, *value.shape[1:]), value.dtype, sharding=batch_sharding)
            for name, value in example.items()
        }

    if numbers is None:
        rows, bucketed, batch = sampler(len(source), train.batch_size, seed, capacity), {}, batch_of(0)
    else:
        assert task.buckets is not None
        rows = bucket_sampler(numbers, train.batch_size, seed, task.buckets.rising)
        bucketed = {int(bucket): batch_of(int(np.argmax(numbers == bucket)), int(bucket)) for bucket in set(numbers)}
        batch = bucketed[max(bucketed)]
    return RunSpec(
        config, task, mesh, optimizers, schedules, update_every, steps, state, batch, batch_sharding, rows, capacity,
        bucketed, secret,
    )  # fmt: skip


def epoch_steps(task: Task, numbers: np.ndarray, train: TrainSettings) -> int:
    """The number of steps per epoch of a task with buckets.

    Raises:
      UserError: with Poisson sampling, whose batches mix shapes.
    """
    if train.sampling == 'poisson':
        raise UserError(
            "config.train.sampling='poisson': the examples of this task differ in shape, and a Poisson batch may mix "
            "them; use sampling='shuffle'"
        )
    assert task.buckets is not None
    return batches_per_epoch(numbers, train.batch_size, task.buckets.rising)


def batch_capacity(train: TrainSettings, count: int, mesh: jax.sharding.Mesh) -> int:
    """The maximum number of rows in a Poisson batch; 0 for shuffled epochs, whose batch size must fit the mesh."""
    if train.sampling == 'poisson':
        ways = sharding_module.round_up(1, mesh)
        return poisson_capacity(count, train.batch_size, ways * train.microbatches)
    sharding_module.check_batch(train.batch_size // train.microbatches, mesh)
    return 0


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """Adds shardings to ShapeDtypeStructs, for init, compile and restore."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
    )
