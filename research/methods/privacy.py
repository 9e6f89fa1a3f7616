"""Differentially private training: DP-SGD (Abadi et al. 2016, arXiv:1607.00133, algorithm 1).

Every row's gradient is clipped, the clipped gradients are summed, and noise is added to the sum once a step.
What is protected is whether any one row of the training split was there. What is not: metrics measured on
other splits, what the task's `prepare` read from the training split, and the logs of the losses, which are
without noise.

The guarantee is against those who do not know the noise. A run draws the key of its noise at random, keeps it in
secret.json while it goes on, so that a killed run continues with the same noise, and deletes it at the end.
Noise and sums are float32, so attacks on floating-point noise (Mironov 2012) are not ruled out.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray

from research.core.task import Aux, Batch, Context, Gradient, Loss, Task, Tree, Variables, fold
from research.errors import UserError, nearest
from research.ops import accounting
from research.ops.constrain import BATCH, constrain

NOISE = 'privacy noise'  # the purpose of the key


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much each row may count, how much noise is added, and which groups need none."""

    clip: float = 1.0  # the largest L2 norm of a row's gradient, over all parameters of a group
    noise_multiplier: float = 1.0  # standard deviation of the noise in the sum, divided by `clip`
    epsilon: float = 0.0  # above 0: the noise multiplier is computed so that the whole run spends this
    delta: float = 1e-5  # must be below 1 / (rows of the training split)
    public: tuple = ()  # groups whose losses read no row, as a GAN's generator; all others are private
    chunk: int = 0  # rows whose gradients a device holds at a time (on CPU 16 is fast); 0: all it has

    def __post_init__(self):
        for name in ('clip', 'noise_multiplier'):
            if not getattr(self, name) > 0:
                raise UserError(f'config.privacy.{name} must be above zero, got {getattr(self, name)!r}')
        if not 0 < self.delta < 1:
            raise UserError(f'config.privacy.delta must be between 0 and 1, got {self.delta!r}')
        if not self.epsilon >= 0 or self.chunk < 0:
            raise UserError(
                'config.privacy.epsilon and chunk must be zero or more, '
                f'got {self.epsilon!r} and {self.chunk!r}'
            )
        if self.epsilon and self.noise_multiplier != type(self).noise_multiplier:
            raise UserError(
                'config.privacy: give epsilon or noise_multiplier, not both: one follows from the other'
            )


class Budget(NamedTuple):
    """What is known of a whole run on the host before it starts."""

    noise_multiplier: float
    spent: Callable[[int], float]  # (steps made) -> epsilon
    count: int  # rows of the training split
    steps: int


def apply(task: Task, settings: Settings, config: Any) -> Task:
    """Returns `task` with private gradients for every group but `settings.public`.

    Works with any loss that is a sum over rows. Each row goes through the loss by itself, as a batch of one,
    with a key of its own; a loss that compares the rows of a batch therefore sees nothing to compare. A row's
    loss is first divided by its own weight (of a text, its tokens), so that `clip` does not depend on the
    row's length: the gradient is that of the mean over rows of their means. The noised sum is divided by
    `config.train.batch_size` whatever number of rows a Poisson sample has: that number is private too.

    Of `config` it reads `train` (batch size, sampling, steps) and each group's `optimizer.update_every`.
    Epsilon and the noise multiplier are computed when they are first asked for, so that a trained model can
    be served where neither training data nor the accounting library are.

    Raises:
      UserError: for a group that cannot be private; when it is traced, for one in `public` that reads rows.
    """
    check(task, settings)
    private = tuple(group for group in task.losses if group not in settings.public)
    every = tuple(config.optimizer[group].update_every for group in private if group in config.optimizer)

    @functools.cache
    def budget() -> Budget:
        return make_budget(len(task.source('train')), every, settings, config.train)

    def micro(loss: Callable, params: Tree, batch: Batch, context: Context):
        return clipped_sum(loss, params, batch, context, settings.clip, settings.chunk)

    def finish(gradient_sum: Tree, weight: Array, context: Context) -> Tree:
        deviation = settings.clip * budget().noise_multiplier
        noised = add_noise(gradient_sum, context.fold(NOISE), deviation)
        return jax.tree.map(lambda leaf: leaf / config.train.batch_size, noised)

    def spent(step: int) -> dict[str, float]:
        return {'epsilon': budget().spent(step), 'delta': settings.delta}

    losses = {
        group: without_rows(loss, group) if group in settings.public else loss
        for group, loss in task.losses.items()
    }
    gradient = Gradient(micro, finish)
    return task._replace(
        losses=losses,
        gradients={**task.gradients, **{group: gradient for group in private}},
        budget=spent,
        notes=lambda: [
            *(task.notes() if task.notes else ()),
            *notes(budget(), settings, config.train, private),
        ],
    )


def check(task: Task, settings: Settings) -> None:
    """Raises a `UserError` where the task cannot be trained privately as the settings say."""
    for group in settings.public:
        if group not in task.losses:
            raise UserError(
                f'config.privacy.public: the task trains no group {group!r}; {nearest(group, task.losses)}'
            )
    private = [group for group in task.losses if group not in settings.public]
    if not private:
        raise UserError('config.privacy.public names every group with a loss: nothing is left to be private')
    for group in private:
        if group in task.gradients:
            raise UserError(
                f'config.methods: privacy and a method before it both replace the gradient of {group!r}'
            )
    if task.couples_rows:
        raise UserError(
            f'config.methods: privacy cannot train with mixed rows ({task.couples_rows}): what one row adds to the '
            'gradient could not be told from what its partner adds. Set that to 0'
        )
    extra = jax.eval_shape(lambda: task.init(jax.random.key(0))).extra  # traced, never compiled
    for group in task.losses:
        if 'batch_stats' in extra.get(group, {}):
            raise UserError(
                'config.methods: privacy cannot train with batch statistics, which mix the rows of a batch, '
                f'and group {group!r} keeps some. Use group norm: config.model.norm=group, or norm=group in its section'
            )


def make_budget(count: int, every: tuple[int, ...], settings: Settings, train: Any) -> Budget:
    """Returns the noise multiplier and the accountant of a run.

    Args:
      count: rows of the training split.
      every: for each private group, the steps from one of its updates to the next.
      settings: of this method.
      train: `config.train`.

    Raises:
      UserError: where the library is missing, delta is no guarantee, or no noise gives the epsilon asked for.
    """
    if settings.delta >= 1 / count:
        raise UserError(
            f'config.privacy.delta={settings.delta:g} must be below {1 / count:.2g}, one over the {count:,} '
            'training rows: a method that publishes one row at random would pass it'
        )
    accounting.library()
    poisson, size = train.sampling == 'poisson', train.batch_size
    if size > count and poisson:
        raise UserError(
            f'config.train.batch_size={size} is more than the {count} rows: privacy cannot sample it'
        )

    def releases(steps: int):
        if poisson:
            return accounting.updates_together(steps, every)
        return accounting.epochs_together(steps, size, count, len(every))

    def accountant(noise_multiplier: float) -> Callable:
        if poisson:
            return accounting.sampled_epsilon(noise_multiplier, size / count, settings.delta)
        return functools.partial(accounting.gaussian_epsilon, noise_multiplier, settings.delta)

    steps, multiplier = train.total_steps(count), settings.noise_multiplier
    if settings.epsilon:
        whole = releases(steps)
        multiplier = accounting.calibrate(lambda value: accountant(value)(whole), settings.epsilon)
    epsilon = accountant(multiplier)
    return Budget(multiplier, functools.cache(lambda step: epsilon(releases(step))), count, steps)


def clipped_sum(
    loss: Callable, params: Tree, batch: Batch, context: Context, clip: float, chunk: int
) -> tuple[Tree, Float[Array, ''], Aux]:
    """Returns the sum of the rows' clipped gradients, the sum of the loss, and Aux: the `Gradient.micro`.

    On a mesh every device takes its own rows. The gradient of a convolution under `vmap` is wrong where the
    compiler splits the batch, hence `shard_map`; and there the gradient of a weight that all devices share
    would be summed over them before it is clipped, unless varying axes are not tracked (`check_vma`).
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(axis for axis in BATCH if axis in mesh.axis_names and mesh.shape[axis] > 1)

    def local(params: Tree, batch: Batch):
        sums = over_chunks(functools.partial(rows_sum, loss, params, context, clip), batch, chunk)
        return jax.lax.psum(sums, axes) if axes else sums

    if axes:
        local = jax.shard_map(
            local, in_specs=(PartitionSpec(), PartitionSpec(axes)), out_specs=PartitionSpec(),
            axis_names=set(axes), check_vma=False,
        )  # fmt: skip
    gradient, total, weight, logs = local(params, dict(batch))
    return gradient, total, Aux(weight, logs=logs)


def rows_sum(loss: Callable, params: Tree, context: Context, clip: float, batch: Batch):
    """Returns (clipped gradients, losses, weights, logs) summed over the rows of a batch on one device.

    A row with mask 0 adds nothing to the gradient; nor does one whose gradient is not finite, which no
    clipping could bound.
    """
    gradients, sums = jax.vmap(functools.partial(row_gradient, loss, params, context))(batch)
    squares = [jnp.sum(jnp.square(leaf), range(1, leaf.ndim)) for leaf in jax.tree.leaves(gradients)]
    norm = jnp.sqrt(sum(squares))
    used = (batch['mask'] > 0) & jnp.isfinite(norm)
    factor = jnp.where(used, jnp.minimum(1.0, clip / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)), 0.0)

    def add(leaf: Array) -> Array:
        finite = jnp.where(used.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0.0)
        return jnp.tensordot(factor, finite, 1, precision=jax.lax.Precision.HIGHEST)

    total, weight, logs = jax.tree.map(lambda values: jnp.sum(values, 0), sums)
    return jax.tree.map(add, gradients), total, weight, logs


def row_gradient(loss: Callable, params: Tree, context: Context, row: Batch):
    """Returns the gradient of one row's mean loss, and (its loss, its weight, its logs)."""
    own = context._replace(key=jax.random.fold_in(context.key, row['index']))
    batch = jax.tree.map(lambda value: value[None], row)

    def mean(params: Tree):
        total, aux = loss(params, batch, own)
        if jax.tree.leaves(aux.extra):
            kept = ', '.join(f'{group}/{name}' for group, trees in aux.extra.items() for name in trees)
            raise UserError(
                f'config.methods: privacy has no noise for what a loss keeps besides parameters ({kept}): '
                'use a model that keeps nothing'
            )
        return total / jnp.where(aux.weight == 0, 1, aux.weight), (total, aux.weight, aux.logs)

    (_, sums), gradient = jax.value_and_grad(mean, has_aux=True)(params)
    return gradient, sums


def over_chunks(function: Callable, batch: Batch, chunk: int) -> Tree:
    """Returns `function(batch)`, a tree of sums over rows, from `chunk` rows at a time (0: all at once)."""
    rows = len(batch['mask'])
    if not chunk or chunk >= rows:
        return function(batch)
    parts = -(-rows // chunk)
    missing = parts * chunk - rows

    def fill(values: Array) -> Array:
        more = jnp.broadcast_to(values[:1], (missing, *values.shape[1:]))
        return jnp.concatenate([values, more]).reshape(parts, chunk, *values.shape[1:])

    filled = {name: fill(values) for name, values in batch.items()}
    real = (jnp.arange(parts * chunk) < rows).reshape(parts, chunk)
    filled['mask'] = jnp.where(real, filled['mask'], 0)
    shapes = jax.eval_shape(function, jax.tree.map(lambda values: values[0], filled))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(sums: Tree, part: Batch):
        return jax.tree.map(jnp.add, sums, function(part)), None

    return jax.lax.scan(add, zeros, filled)[0]


def add_noise(tree: Tree, key: PRNGKeyArray, deviation: float) -> Tree:
    """Returns the tree plus independent normal noise; a leaf's depends on its path, and on no device."""

    def noised(path: Any, leaf: Array) -> Array:
        own = fold(key, jax.tree_util.keystr(path))
        return leaf + deviation * jax.random.normal(own, leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(noised, tree)


def without_rows(loss: Loss, group: str) -> Loss:
    """Returns a loss that cannot read the rows: it is given zeros, mask 1 and the numbers from 0 on instead.

    Raises:
      UserError: when the loss reads a field of the rows, for which zeros would be a wrong value.
    """

    def public(variables: Variables, batch: Batch, context: Context):
        def sums(batch):
            total, aux = loss(variables, batch, context)
            return total, aux._replace(outputs=None)

        read = fields_read(sums, batch) - {'index', 'mask'}
        if read:
            raise UserError(
                f'config.privacy.public: the loss of group {group!r} reads {", ".join(sorted(read))} of the '
                'rows, so it is not public: leave it out, and it is trained privately too'
            )
        given = {name: jnp.zeros_like(value) for name, value in batch.items()}
        number = jnp.arange(len(batch['index']), dtype=batch['index'].dtype)
        given.update(index=constrain(number, BATCH), mask=jnp.ones_like(batch['mask']))
        return loss(variables, given, context)

    return public


def fields_read(function: Callable, batch: Batch) -> set[str]:
    """Returns the fields of `batch` on which a result of `function(batch)` may depend, from its jaxpr."""
    jaxpr = jax.make_jaxpr(function)(dict(batch)).jaxpr
    names = [path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(dict(batch))]
    sources = {id(variable): {name} for variable, name in zip(jaxpr.invars, names, strict=True)}

    def of(variables: Sequence[Any]) -> set[str]:
        return set().union(*(sources.get(id(variable), set()) for variable in variables))

    for equation in jaxpr.eqns:  # whatever goes into an equation may come out of it
        found = of(equation.invars)
        sources.update({id(variable): found for variable in equation.outvars})
    return of(jaxpr.outvars)


def notes(budget: Budget, settings: Settings, train: Any, private: Sequence[str]) -> list[str]:
    """Returns what a person must know of the guarantee, as sentences."""
    size, count = train.batch_size, budget.count
    groups = ' and '.join(private)
    if train.sampling == 'poisson':
        sampling = f'every batch a Poisson sample in which each row is with probability {size}/{count:,}'
    else:
        epochs = math.ceil(budget.steps * size / count)
        sampling = (
            f'nothing claimed for the shuffled order: each row counts once in each of {epochs:,} epochs'
            + ('' if count % size == 0 else ', or twice where a batch runs over the end of one')
            + "; config.train.sampling='poisson' would spend less"
        )
    chosen = 'computed for it' if settings.epsilon else 'as given'
    return [
        f'{groups} is trained privately: epsilon {budget.spent(budget.steps):.3g} at delta '
        f'{settings.delta:g} after {budget.steps:,} steps, for one row more or less among {count:,}; noise '
        f'multiplier {budget.noise_multiplier:.4g} ({chosen}), clip {settings.clip:g}, {sampling}',
        'not private: the logged losses and accuracies, which are of training rows without noise; metrics of '
        'other splits; what was prepared from the training split (statistics, vocabularies, class counts)',
        'the noise and the samples follow from a key drawn at random, which secret.json holds until the run is '
        'finished: keep it from others',
    ]
