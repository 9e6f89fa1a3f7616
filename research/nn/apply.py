"""Flax modules as pure functions of parameters and other collections. Tasks call these and do not import flax.

A task, or a family of tasks, applies its module in one function and derives loss, prediction and score from it:

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

`label_score` and similar functions are in `research/ops/claims.py`. `run_group` accepts the keywords of the module's
method, and `method='...'` to call a method other than `__call__`. It also passes `context.watch` on, so taps need no
further code.
"""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from jaxtyping import Array, PRNGKeyArray

from research.nn.tap import DELTAS, OBSERVED
from research.ops.paths import flatten_paths, unflatten_paths

Tree = Any


def initialize(module: nn.Module, key: PRNGKeyArray, *inputs: Any) -> tuple[Tree, dict[str, Tree]]:
    """Initializes a module; returns its parameters and its other collections ({} if it has none)."""
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
    """Applies a module; returns its outputs and its updated collections (unchanged outside training).

    Args:
      module: has a field `train`, or its method takes the keyword `train`.
      params: its parameters.
      collections: everything else, such as {'batch_stats': ...}.
      *inputs: positional arguments of its method.
      train: enables dropout and updates of batch statistics.
      key: for dropout; unused outside training.
      watch: {path of a tap: delta}. The returned collections then also contain 'observed', {path: activation}.
        None: taps are off.
      **keywords: further arguments of the method, and `method` (default `__call__`).

    Raises:
      ValueError: if a delta's path names no tap.
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
    """Calls `run` with the parameters and collections of one group, and the key and taps of a `Context`."""
    watch = None if context.watch is None else context.watch.get(group, {})
    key = context.fold('dropout') if context.train else None
    collections = variables.extra.get(group, {})
    return run(
        module, variables.params[group], collections, *inputs, train=context.train, key=key, watch=watch, **keywords
    )


def seen_of(group: str, changed: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
    """Extracts watched activations as {group: {path of a tap: activation}}; {} if taps are off.

    `changed` is the second value that `run` or `run_group` returns.
    """
    return {group: changed[OBSERVED]} if OBSERVED in changed else {}
