"""The state of a run: one pytree, saved and restored whole."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from research.core.task import Task, Variables, fold
from research.errors import UserError


class State(NamedTuple):
    """Step (updates made), variables, optimizer state per group, and the moving average of the variables or None."""

    step: Int[Array, '']
    variables: Variables
    optimizer: dict[str, Any]
    ema: Variables | None


def init_state(task: Task, optimizers: Mapping[str, optax.GradientTransformation], ema: float, seed: int) -> State:
    """The state before the first step; a pure function, so that `jax.eval_shape` gives its shapes."""
    variables = task.init(fold(jax.random.key(seed), 'init'))
    optimizer = {group: optimizers[group].init(variables.params[group]) for group in task.losses}
    return State(jnp.zeros((), jnp.int32), variables, optimizer, jax.tree.map(jnp.array, variables) if ema else None)


def eval_variables(state: State) -> Variables:
    """The variables for evaluation and prediction: the moving average if there is one."""
    return state.variables if state.ema is None else state.ema


def check_groups(task: Task, shapes: Variables, optimizers: Mapping[str, Any]) -> None:
    """Raises `UserError` if losses, gradients, parameters and optimizer sections have different groups."""
    groups = set(shapes.params)
    for group in task.losses:
        if group not in groups:
            raise UserError(f'the task has a loss for group {group!r} but no parameters; groups: {sorted(groups)}')
        if group not in optimizers:
            raise UserError(
                f'config.optimizer.{group} is missing: every group with a loss needs one; '
                f'present: {sorted(optimizers) or "none"}'
            )
    for group in optimizers:
        if group not in task.losses:
            raise UserError(
                f'config.optimizer.{group}: the task trains no such group; it trains {", ".join(task.losses)}'
            )
    for group in task.gradients:
        if group not in task.losses:
            raise UserError(f'a method replaced the gradient of group {group!r}, which has no loss')


def eval_variables_from(weights: dict[str, Any], workdir: Any) -> Variables:
    """The variables for evaluation and prediction in the result of `read_weights`, as host arrays."""
    tree = weights.get('ema') or weights['variables']
    if isinstance(tree, Variables):
        return tree
    return Variables(tree['params'], tree.get('extra') or {})
