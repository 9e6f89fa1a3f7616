"""Differentially private training: DP-SGD (Abadi et al. 2016, arXiv:1607.00133, algorithm 1).

Each row's gradient is clipped, the clipped gradients are summed, and noise is added to the sum once per step. This
protects the presence of any one row in the training split. It does not cover metrics on other splits, statistics that
the task's `prepare` computes from the training split, or logged losses, which have no noise.

The guarantee assumes that the noise is secret. A run draws the key of its noise at random, stores it in secret.json so
that an interrupted run resumes with the same noise, and deletes it at the end. Noise and sums are float32, so attacks
on floating-point noise (Mironov 2012) are possible.
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
from research.errors import Count, NonNegative, OpenFraction, Positive, UserError, in_section, nearest
from research.ops import accounting
from research.ops.constrain import BATCH, constrain

NOISE_PURPOSE = 'privacy noise'  # folded into the key


@dataclasses.dataclass(frozen=True)
class Settings:
    """Clipping norm, noise, privacy budget, and the groups that need no privacy."""

    clip: Positive = 1.0  # maximum L2 norm of a row's gradient over all parameters of a group
    noise_multiplier: Positive = 1.0  # standard deviation of the noise in the sum, in units of `clip`
    epsilon: NonNegative = 0.0  # above 0: budget of the whole run, which determines the noise multiplier
    delta: OpenFraction = 1e-5  # must be below 1 / (rows of the training split)
    public: tuple[str, ...] = ()  # groups whose losses read no rows, such as a GAN's generator; all others are private
    chunk: Count = 0  # rows per device whose gradients are computed at once (16 is fast on a CPU); 0: all

    def __post_init__(self):
        if self.epsilon and self.noise_multiplier != type(self).noise_multiplier:
            raise UserError(
                'config.privacy: set epsilon or noise_multiplier, not both: one determines the other'
            )


class Budget(NamedTuple):
    """Noise and accounting of a whole run, computed on the host before it starts."""

    noise_multiplier: float
    spent: Callable[[int], float]  # (completed steps) -> epsilon
    count: int  # rows of the training split
    steps: int


def apply(task: Task, settings: Settings, config: Any) -> Task:
    """Makes the gradients of all groups private, except those in `settings.public`.

    Works with any loss that is a sum over rows. The loss is applied to each row as a batch of one with its own key, so
    losses that compare rows of a batch are not supported. A row's loss is divided by its weight (for texts, the number
    of tokens), so that `clip` does not depend on the row's length: the gradient is that of the mean over rows of
    their means. The noised sum is divided by `config.train.batch_size` and not by the size of a Poisson sample, which
    is private.

    Uses `config.train` (batch size, sampling, steps) and each group's `optimizer.update_every`. Epsilon and the noise
    multiplier are computed on first use, so that serving a trained model needs neither the training data nor the
    accounting library.

    Raises:
      UserError: if a group cannot be private; when tracing, if a group in `public` reads rows.
    """
    check(task, settings)
    private = tuple(group for group in task.losses if group not in settings.public)
    intervals = tuple(config.optimizer[group].update_every for group in private if group in config.optimizer)

    @functools.cache
    def budget() -> Budget:
        return make_budget(len(task.source('train')), intervals, settings, config.train)

    def micro(loss: Callable, params: Tree, batch: Batch, context: Context):
        return clipped_sum(loss, params, batch, context, settings.clip, settings.chunk)

    def finish(gradient_sum: Tree, weight: Array, context: Context) -> Tree:
        deviation = settings.clip * budget().noise_multiplier
        noised = add_noise(gradient_sum, context.fold(NOISE_PURPOSE), deviation)
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
    """Raises `UserError` if the task cannot be trained privately with these settings."""
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
            f'config.methods: privacy cannot train with mixed rows ({task.couples_rows}): the gradient of one row '
            'would depend on its partner. Set it to 0'
        )
    extra = jax.eval_shape(lambda: task.init(jax.random.key(0))).extra  # traced, never compiled
    for group in task.losses:
        if 'batch_stats' in extra.get(group, {}):
            raise UserError(
                'config.methods: privacy cannot train with batch statistics, which mix the rows of a batch, '
                f'and group {group!r} keeps some. Use group norm: config.model.norm=group, or norm=group in its '
                'section; a model without group norm has norm=none'
            )


def make_budget(count: int, intervals: tuple[int, ...], settings: Settings, train: Any) -> Budget:
    """Computes the noise multiplier and the accountant of a run.

    Args:
      count: rows of the training split.
      intervals: for each private group, the number of steps between its updates.
      settings: of this method.
      train: `config.train`.

    Raises:
      UserError: if the library is missing, delta is too large, or no noise multiplier reaches epsilon.
    """
    if train.steps == 0:
        raise UserError('config.train.steps=0: privacy is a property of training, so it needs at least one step')
    if settings.delta >= 1 / count:
        raise UserError(
            f'config.privacy.delta={settings.delta:g} must be below {1 / count:.2g}, one over the {count:,} '
            'training rows: publishing one row at random would satisfy it'
        )
    accounting.library()
    poisson = train.sampling == 'poisson'
    size = train.batch_size
    if size > count and poisson:
        raise UserError(
            f'config.train.batch_size={size} exceeds the {count} training rows: privacy cannot sample it'
        )

    def releases(steps: int):
        if poisson:
            return accounting.updates_together(steps, intervals)
        return accounting.epochs_together(steps, size, count, len(intervals))

    def accountant(noise_multiplier: float) -> Callable:
        if poisson:
            return accounting.sampled_epsilon(noise_multiplier, size / count, settings.delta)
        return functools.partial(accounting.gaussian_epsilon, noise_multiplier, settings.delta)

    steps = train.total_steps(count)
    multiplier = settings.noise_multiplier
    if settings.epsilon:
        whole = releases(steps)
        with in_section('privacy'):
            multiplier = accounting.calibrate(lambda value: accountant(value)(whole), settings.epsilon)
    epsilon = accountant(multiplier)
    return Budget(multiplier, functools.cache(lambda step: epsilon(releases(step))), count, steps)


def clipped_sum(
    loss: Callable, params: Tree, batch: Batch, context: Context, clip: float, chunk: int
) -> tuple[Tree, Float[Array, ''], Aux]:
    """Computes the sum of the rows' clipped gradients, the sum of the loss, and Aux: the `Gradient.micro`.

    `shard_map` gives each device its own rows, because the gradient of a convolution under `vmap` is wrong if the
    partitioner splits the batch. `check_vma=False` prevents that gradients of replicated weights are summed over
    devices before clipping.
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
    """Sums (clipped gradients, losses, weights, logs) over the rows of a batch on one device.

    Rows with mask 0 do not contribute to the gradient, nor do rows with a non-finite gradient, which clipping cannot
    bound.
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
    """Computes the gradient of one row's mean loss, and (its loss, its weight, its logs)."""
    row_context = context._replace(key=jax.random.fold_in(context.key, row['index']))
    batch = jax.tree.map(lambda value: value[None], row)

    def mean(params: Tree):
        total, aux = loss(params, batch, row_context)
        if jax.tree.leaves(aux.extra):
            kept = ', '.join(f'{group}/{name}' for group, trees in aux.extra.items() for name in trees)
            raise UserError(
                f'config.methods: privacy has no noise for what a loss keeps besides parameters ({kept}): '
                'use a model without such state'
            )
        return total / jnp.where(aux.weight == 0, 1, aux.weight), (total, aux.weight, aux.logs)

    (_, sums), gradient = jax.value_and_grad(mean, has_aux=True)(params)
    return gradient, sums


def over_chunks(function: Callable, batch: Batch, chunk: int) -> Tree:
    """Computes `function(batch)`, a tree of sums over rows, on `chunk` rows at a time (0: all at once)."""
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
    """Adds independent normal noise to a tree; a leaf's noise depends on its path, not on devices."""

    def noised(path: Any, leaf: Array) -> Array:
        leaf_key = fold(key, jax.tree_util.keystr(path))
        return leaf + deviation * jax.random.normal(leaf_key, leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(noised, tree)


def without_rows(loss: Loss, group: str) -> Loss:
    """Wraps a loss so that it cannot read rows: fields are zeros, the mask is 1, the index counts from 0.

    Raises:
      UserError: if the loss reads another field of the rows.
    """

    def public(variables: Variables, batch: Batch, context: Context):
        def sums(batch):
            total, aux = loss(variables, batch, context)
            return total, aux._replace(outputs=None)

        read = fields_read(sums, batch) - {'index', 'mask'}
        if read:
            raise UserError(
                f'config.privacy.public: the loss of group {group!r} reads {", ".join(sorted(read))} of the '
                'rows, so it is not public: remove it from there, to train it privately'
            )
        blank = {name: jnp.zeros_like(value) for name, value in batch.items()}
        number = jnp.arange(len(batch['index']), dtype=batch['index'].dtype)
        blank.update(index=constrain(number, BATCH), mask=jnp.ones_like(batch['mask']))
        return loss(variables, blank, context)

    return public


def fields_read(function: Callable, batch: Batch) -> set[str]:
    """Finds the fields of `batch` that a result of `function(batch)` may depend on, from its jaxpr."""
    jaxpr = jax.make_jaxpr(function)(dict(batch)).jaxpr
    names = [path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(dict(batch))]
    sources = {id(variable): {name} for variable, name in zip(jaxpr.invars, names, strict=True)}

    def of(variables: Sequence[Any]) -> set[str]:
        return set().union(*(sources.get(id(variable), set()) for variable in variables))

    for equation in jaxpr.eqns:  # every output may depend on every input
        names_read = of(equation.invars)
        sources.update({id(variable): names_read for variable in equation.outvars})
    return of(jaxpr.outvars)


def notes(budget: Budget, settings: Settings, train: Any, private: Sequence[str]) -> list[str]:
    """Describes the guarantee and its limits, as sentences for the log."""
    size = train.batch_size
    count = budget.count
    groups = ' and '.join(private)
    if train.sampling == 'poisson':
        sampling = f'every batch a Poisson sample that includes each row with probability {size}/{count:,}'
    else:
        epochs = math.ceil(budget.steps * size / count)
        sampling = (
            f'no amplification by the shuffled order: each row counts once in each of {epochs:,} epochs'
            + ('' if count % size == 0 else ', or twice if a batch spans two epochs')
            + "; config.train.sampling='poisson' would spend less"
        )
    origin = 'computed from epsilon' if settings.epsilon else 'as set'
    return [
        f'{groups} is trained privately: epsilon {budget.spent(budget.steps):.3g} at delta '
        f'{settings.delta:g} after {budget.steps:,} steps, for one row more or less among {count:,}; noise '
        f'multiplier {budget.noise_multiplier:.4g} ({origin}), clip {settings.clip:g}, {sampling}',
        'not private: the logged losses and accuracies of training rows, which have no noise; metrics on other '
        'splits; data prepared from the training split (statistics, vocabularies, class counts)',
        'noise and samples are derived from a random key, which secret.json contains until the run is finished: '
        'keep that file secret',
    ]
