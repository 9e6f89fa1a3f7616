"""Flax modules as pure functions of parameters and other collections; tasks call these and import no flax.

A task, or a family of tasks, applies its module in one function and makes loss, prediction and score from it:

    def scores(variables, batch, context):
        return run_group(module, variables, 'model', context, batch['image'])  # (outputs, changed collections)

    def loss(variables, batch, context):
        logits, changed = scores(variables, batch, context)
        return ..., Aux(weight, {'model': changed} if changed else {}, logs, {'logits': logits, 'mask': batch['mask']})

    def score(variables, batch, context):
        logits, changed = scores(variables, batch, context._replace(train=False))
        return label_score(logits, batch['label']), seen_of('model', changed)

    def claim(batch, outputs):
        return {**batch, 'label': claim_label(outputs['logits'])}

`label_score` and its like are in `research/ops/claims.py`. `run_group` takes any keyword of the module's method, and
`method='...'` for another than `__call__`. Taps need nothing more: `context.watch` reaches the module through it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn
from jaxtyping import Array, PRNGKeyArray

from research.errors import SettingError
from research.nn.tap import DELTAS, OBSERVED
from research.ops.paths import flatten_paths, unflatten_paths

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
    key: PRNGKeyArray | None,
    watch: Mapping[str, Array] | None = None,
    **keywords: Any,
) -> tuple[Any, dict[str, Any]]:
    """Returns what a module computes and the new values of its collections (unchanged ones outside training).

    Args:
      module: it has a field `train`, or its method takes `train` as a keyword.
      params: its parameters.
      collections: everything else, such as {'batch_stats': ...}.
      *inputs: arguments of its method.
      train: whether dropout and batch statistics act as in training.
      key: for dropout; read only in training.
      watch: {path of a tap: delta}; the collections that are returned then also hold 'observed', {path: activation}.
        None: nobody watches.
      **keywords: further arguments of the method, and `method`, by default `__call__`.

    Raises:
      ValueError: for the path of a delta at which there is no tap.
    """
    variables, mutable, new = {'params': params, **collections}, [], collections
    if 'train' in module.__dataclass_fields__:
        module = module.clone(train=train)
    else:
        keywords['train'] = train
    if train:
        keywords['rngs'] = {'dropout': key}
        mutable = list(collections)
    if watch is not None:
        mutable = [*mutable, OBSERVED]
        variables |= {DELTAS: unflatten_paths(watch)} if watch else {}
    if not train and watch is None:
        return module.apply(variables, *inputs, **keywords), new
    outputs, changed = module.apply(variables, *inputs, mutable=mutable, **keywords)
    changed = dict(changed)
    seen = flatten_paths(changed.pop(OBSERVED, {}))
    new = changed if train else collections
    if watch is None:
        return outputs, new
    unknown = sorted(set(watch) - set(seen))
    if unknown:
        raise ValueError(f'there is no tap {unknown[0]!r}; there are: {", ".join(seen) or "none"}')
    return outputs, {**new, OBSERVED: seen}


def run_group(
    module: nn.Module, variables: Any, group: str, context: Any, *inputs: Any, **keywords: Any
) -> tuple[Any, dict[str, Any]]:
    """Returns `run` of a module whose parameters are a group of a task's `Variables`, in a `Context`."""
    watch = None if context.watch is None else context.watch.get(group, {})
    key = context.fold('dropout') if context.train else None
    collections = variables.extra.get(group, {})
    return run(
        module, variables.params[group], collections, *inputs, train=context.train, key=key, watch=watch, **keywords
    )


def seen_of(group: str, changed: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
    """Returns what a score reports, {group: {path of a tap: activation}}; {} where nobody watched.

    `changed` is the second value of `run` or `run_group`.
    """
    return {group: changed[OBSERVED]} if OBSERVED in changed else {}


def check_settings(dropout: float = 0.0, **sizes: Sequence[int]) -> None:
    """Raises a `SettingError` for a module's dropout outside [0, 1), or a named size that is not above 0."""
    if not 0 <= dropout < 1:
        raise SettingError('dropout', f'must be at least 0 and below 1, got {dropout!r}')
    for name, values in sizes.items():
        if not values or min(values) < 1:
            given = ', '.join(map(str, values)) or '()'
            raise SettingError(name, f'must be above zero, got {given}')
