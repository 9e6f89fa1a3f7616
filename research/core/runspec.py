"""What is known of a run before its first step: shapes, shardings, sizes and the compiled step."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from research.core import sharding as sharding_module
from research.core.config import Config, TrainSettings
from research.core.optimizer import make_optimizer, make_schedule
from research.core.state import State, check_groups, init_state
from research.core.step import make_step
from research.core.task import Task
from research.data.batches import Row, encode_rows, poisson_capacity, sampler
from research.errors import UserError


class RunSpec(NamedTuple):
    """Everything that is fixed before step 1; nothing in it holds a value of the model."""

    config: Config
    task: Task
    mesh: jax.sharding.Mesh
    optimizers: Mapping[str, optax.GradientTransformation]
    schedules: Mapping[str, optax.Schedule]
    update_every: Mapping[str, int]
    steps: int
    state: State  # ShapeDtypeStructs with shardings
    batch: Mapping[str, Any]  # likewise
    batch_sharding: jax.sharding.NamedSharding
    capacity: int = 0  # rows set aside for a Poisson batch; 0: shuffled epochs

    def rows(self, step: int) -> list[Row]:
        """Returns the rows of the batch of a step, padding included."""
        count, size = len(self.task.source('train')), self.config.train.batch_size
        return sampler(count, size, self.config.seed, self.capacity)(step)

    def step(self) -> Callable:
        """Returns the step: (state, batch) -> (state, logs), pure and not compiled."""
        train = self.config.train
        return make_step(
            self.task, self.optimizers, self.update_every, train.microbatches, train.ema, self.config.seed
        )

    def compile(self) -> Any:
        """Returns the step compiled for this run; the state is donated."""
        step = self.step()
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.state)
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, sharding_module.replicated(self.mesh)))
        with jax.set_mesh(self.mesh):
            return jitted.lower(self.state, self.batch).compile()

    def init(self) -> State:
        """Returns the state before step 1, created sharded on the devices."""
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.state)
        with jax.set_mesh(self.mesh):
            return jax.jit(self._init, out_shardings=shardings)()

    def _init(self) -> State:
        return init_state(self.task, self.optimizers, self.config.train.ema, self.config.seed)


def make_run_spec(config: Config, task: Task, devices: Any = None) -> RunSpec:
    """Returns the spec of a run; reads one example for the shapes of a batch and computes nothing else.

    Raises:
      UserError: when groups, optimizers, mesh and batch size do not go together, or there is no training data.
    """
    train = config.train
    mesh = sharding_module.make_mesh(config.mesh, devices)
    source = task.source('train')
    if not len(source):
        raise UserError('the training split is empty')
    if task.budget is not None:
        task.budget(0)  # whatever it lacks is said before anything compiles
    steps = train.total_steps(len(source))
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    check_groups(task, shapes, config.optimizer)
    update_every = {group: settings.update_every for group, settings in config.optimizer.items()}
    updates = {group: max(1, steps // every) for group, every in update_every.items()}
    optimizers = {
        group: make_optimizer(settings, updates[group], shapes.params[group], f'optimizer.{group}')
        for group, settings in config.optimizer.items()
    }
    schedules = {group: make_schedule(settings, updates[group]) for group, settings in config.optimizer.items()}
    state = jax.eval_shape(lambda: init_state(task, optimizers, train.ema, config.seed))
    state = with_shardings(state, sharding_module.state_shardings(state, mesh, config.mesh))
    capacity = batch_capacity(train, len(source), mesh)
    example = encode_rows(source, task.encode, [Row(0, 0, True)], config.seed)
    batch_sharding, rows = sharding_module.batch_sharding(mesh), capacity or train.batch_size
    batch = {
        name: jax.ShapeDtypeStruct((rows, *value.shape[1:]), value.dtype, sharding=batch_sharding)
        for name, value in example.items()
    }
    return RunSpec(
        config, task, mesh, optimizers, schedules, update_every, steps, state, batch, batch_sharding, capacity
    )


def batch_capacity(train: TrainSettings, count: int, mesh: jax.sharding.Mesh) -> int:
    """Returns the rows set aside for a Poisson batch; 0 for shuffled epochs, which must fit the mesh."""
    if train.sampling == 'poisson':
        ways = sharding_module.round_up(1, mesh)
        return poisson_capacity(count, train.batch_size, ways * train.microbatches)
    sharding_module.check_batch(train.batch_size // train.microbatches, mesh)
    return 0


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """Returns ShapeDtypeStructs that carry their shardings: the targets of init, compile and restore."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
    )
