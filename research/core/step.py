"""The training step: pure, jitted once, the same for every task.

For each group with a loss, in order, it differentiates the loss with respect to that group alone and applies the
group's own optimizer. Losses are sums with a weight and are divided once, so microbatches, padding and devices never
change the mean.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from research.core.state import State
from research.core.task import Aux, Batch, Context, Gradient, Loss, Task, Tree, Variables, fold

Logs = dict[str, tuple[Float[Array, ''], Float[Array, '']]]  # name -> (sum, weight)


def differentiate(loss: Callable, params: Tree, batch: Batch, context: Context):
    """The default `Gradient.micro`: (gradient of the summed loss, the sum, Aux)."""
    (total, aux), gradient = jax.value_and_grad(loss, has_aux=True)(params, batch, context)
    return gradient, total, aux


def divide(gradient: Tree, weight: Float[Array, ''], context: Context) -> Tree:
    """The default `Gradient.finish`: the gradient of the mean. Weight 0 gives zeros."""
    return jax.tree.map(lambda leaf: leaf / jnp.where(weight == 0, 1, weight).astype(leaf.dtype), gradient)


DEFAULT_GRADIENT = Gradient(differentiate, divide)


def split(batch: Batch, parts: int) -> Batch:
    """Reshapes a batch to [parts, batch / parts, ...]; interleaved rows avoid an all-gather of a sharded batch."""
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1), batch)


def accumulate(
    gradient: Gradient, loss: Callable, params: Tree, batch: Batch, context: Context, parts: int
) -> tuple[Tree, Float[Array, ''], Aux]:
    """Sums gradient, loss, weight and logs over `parts` microbatches; new extra collections are averaged.

    Every microbatch starts from the same `extra` and has its own key.
    """

    def micro(index, part):
        keyed = context._replace(key=jax.random.fold_in(context.key, index))
        total_gradient, total, aux = gradient.micro(loss, params, part, keyed)
        return total_gradient, total, aux._replace(outputs=None)

    if parts == 1:
        return micro(0, batch)
    batches = split(batch, parts)
    first = jax.tree.map(lambda x: x[0], batches)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(micro, 0, first))

    def add(carry, item):
        return jax.tree.map(jnp.add, carry, micro(*item)), None

    (gradient_sum, total, aux), _ = jax.lax.scan(add, zeros, (jnp.arange(parts), batches))
    extra = jax.tree.map(lambda leaf: (leaf / parts).astype(leaf.dtype), aux.extra)
    return gradient_sum, total, aux._replace(extra=extra)


def bind(loss: Loss, variables: Variables, group: str) -> Callable:
    """The loss as a function of one group's parameters; the other groups are constants."""

    def bound(params: Tree, batch: Batch, context: Context):
        return loss(variables._replace(params={**variables.params, group: params}), batch, context)

    return bound


def update_group(
    task: Task,
    group: str,
    optimizer: optax.GradientTransformation,
    parts: int,
    carried: tuple[Variables, Any],
    batch: Batch,
    context: Context,
) -> tuple[tuple[Variables, Any], dict[str, tuple[Array, Array]]]:
    """One update of `group`: the new variables and optimizer state, and the logs."""
    variables, optimizer_state = carried
    params = variables.params[group]
    gradient = task.gradients.get(group, DEFAULT_GRADIENT)
    loss = bind(task.losses[group], variables, group)
    total_gradient, total, aux = accumulate(gradient, loss, params, batch, context, parts)
    mean = gradient.finish(total_gradient, aux.weight, context)
    updates, optimizer_state = optimizer.update(mean, optimizer_state, params)
    variables = Variables(
        params={**variables.params, group: optax.apply_updates(params, updates)},
        extra={**variables.extra, **aux.extra},
    )
    logs = {name: (value, aux.weight) for name, value in {'loss': total, **aux.logs}.items()}
    logs['gradient_norm'] = (optax.tree.norm(mean), jnp.ones(()))
    return (variables, optimizer_state), logs


def average_variables(average: Variables, variables: Variables, step: Array, decay: float) -> Variables:
    """The exponential moving average after a step; early steps use the smaller decay (1 + t) / (10 + t)."""
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))

    def mix(old, new):
        return old * rate + new * (1 - rate) if jnp.issubdtype(new.dtype, jnp.floating) else new

    return jax.tree.map(mix, average, variables)


def make_step(
    task: Task,
    optimizers: Mapping[str, optax.GradientTransformation],
    update_every: Mapping[str, int],
    microbatches: int,
    ema: float,
    seed: int,
) -> Callable[..., tuple[State, Logs]]:
    """Makes the step, (state, batch, words=None) -> (state, logs).

    A group that skips an update has weight 0 in the logs. The random keys of all steps derive from `words`, uint32 [2],
    if given, and from `seed` otherwise.
    """

    def step(state: State, batch: Batch, words: Array | None = None) -> tuple[State, Logs]:
        base = jax.random.key(seed) if words is None else jax.random.wrap_key_data(words)
        key = jax.random.fold_in(base, state.step)
        variables, optimizer, logs = state.variables, dict(state.optimizer), {}
        for group in task.losses:
            context = Context(fold(key, group), state.step, True)

            def update(carried, group=group, context=context):
                return update_group(task, group, optimizers[group], microbatches, carried, batch, context)

            def skip(carried, update=update):
                shapes = jax.eval_shape(update, carried)[1]
                return carried, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

            carried, every = (variables, optimizer[group]), update_every[group]
            if every == 1:
                carried, group_logs = update(carried)
            else:
                carried, group_logs = jax.lax.cond((state.step + 1) % every == 0, update, skip, carried)
            variables, optimizer[group] = carried
            prefix = f'{group}/' if len(task.losses) > 1 else ''
            logs.update({prefix + name: pair for name, pair in group_logs.items()})
        mean = average_variables(state.ema, variables, state.step, ema) if ema else None  # pyright: ignore[reportArgumentType]
        return State(state.step + 1, variables, optimizer, mean), logs

    return step
