"""Flax modules as pure functions of parameters and other collections; tasks call these and import no flax."""

from collections.abc import Callable, Sequence
from typing import Any

from flax import linen as nn
from jaxtyping import PRNGKeyArray

from research.errors import UserError

Tree = Any


def initialize(module: nn.Module, key: PRNGKeyArray, *inputs: Any) -> tuple[Tree, dict[str, Tree]]:
    """Returns a module's first parameters and its other collections ({} where it has none)."""
    collections = dict(module.init({'params': key}, *inputs))
    return collections.pop('params'), collections


def run(
    module: nn.Module,
    params: Tree,
    collections: dict[str, Tree],
    *inputs: Any,
    train: bool,
    key: PRNGKeyArray,
) -> tuple[Any, dict[str, Tree]]:
    """Returns what a module computes and the new values of its collections (unchanged ones outside training).

    Args:
      module: its `__call__` takes `inputs` and the keyword `train`.
      params: its parameters.
      collections: everything else, such as {'batch_stats': ...}.
      *inputs: arrays.
      train: whether dropout and batch statistics act as in training.
      key: for dropout.
    """
    variables = {'params': params, **collections}
    if not train:
        return module.apply(variables, *inputs, train=False), collections
    outputs, changed = module.apply(
        variables, *inputs, train=True, rngs={'dropout': key}, mutable=list(collections)
    )
    return outputs, dict(changed)


def check_settings(where: str, dropout: float = 0.0, **sizes: Sequence[int]) -> None:
    """Raises a `UserError` for a module's dropout outside [0, 1), or a named size that is not above 0."""
    if not 0 <= dropout < 1:
        raise UserError(f'config.{where}.dropout must be at least 0 and below 1, got {dropout!r}')
    for name, values in sizes.items():
        if not values or min(values) < 1:
            given = ', '.join(map(str, values)) or '()'
            raise UserError(f'config.{where}.{name} must be above zero, got {given}')


def capture_inputs(layer: str, function: Callable[[], Any]) -> list[Any]:
    """Returns what enters each layer called `layer` while `function` runs modules: features before a head."""
    found = []

    def note(following: Callable, inputs: tuple, keywords: dict, context: Any) -> Any:
        if context.module.name == layer and context.method_name == '__call__':
            found.append(inputs[0])
        return following(*inputs, **keywords)

    with nn.intercept_methods(note):
        function()
    return found
