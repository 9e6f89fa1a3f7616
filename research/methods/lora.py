"""LoRA: trains a low-rank update of each frozen kernel (Hu et al. 2021).

    h = W x + (alpha / rank) B A x                                                     (their eq. 3)

The trained group keeps its name, and with it its optimizer section, logs and `extra`, but contains only the adapters;
the weights move to '<group>_base', a group without a loss. The task's functions receive weights with the adapters
added, so models need no change. This costs one low-rank product per kernel and call: `merge` before serving.
"""

import dataclasses
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from research.core.task import Task, Tree, Variables, fold, map_variables
from research.errors import NonEmpty, Positive, PositiveInt, UserError, in_section, nearest
from research.ops import paths


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rank, scale and targets of the adapters."""

    group: str = 'model'
    rank: PositiveInt = 8
    alpha: Positive = 16.0  # adapters are scaled by alpha / rank
    target: Annotated[tuple[str, ...], NonEmpty()] = ('*kernel',)  # patterns of paths; vectors (per layer) are skipped


def apply(task: Task, settings: Settings, config: Any = None) -> Task:
    """Splits `settings.group` of a task into frozen weights and trained adapters.

    Adapters are at the path of their kernel, {'a': [..., inputs, rank], 'b': [..., rank, outputs]}: A and B of the
    paper, transposed like kernels here. A convolution [height, width, in, out] has height * width * in inputs;
    stacked layers keep their leading axis. B is initialized to zero, so the function is unchanged at the start; A is
    normal (their section 4.1) with variance 1 / inputs. The gradient of the full kernel is still computed; only
    optimizer state is saved.

    Raises:
      UserError: if the task does not train the group, or no leaf can be adapted.
    """
    group = settings.group
    base = base_of(settings.group)
    if group not in task.losses:
        raise UserError(
            f'config.lora.group: the task trains no group {group!r}; {nearest(group, task.losses)} '
            f'(it trains {", ".join(task.losses)})'
        )
    shapes = jax.eval_shape(lambda: task.init(jax.random.key(0))).params  # traced, never compiled
    if base in shapes:
        raise UserError(f'config.methods: lora keeps frozen weights as {base!r}, but the task has that group')
    targets = find_targets(shapes[group], settings)

    def view(variables: Variables) -> Variables:
        return merge(variables, settings) if base in variables.params else variables

    def store(variables: Variables, key: PRNGKeyArray | None) -> Variables:
        if base in variables.params:  # loaded from a run with adapters
            return variables
        params = {base if name == group else name: tree for name, tree in variables.params.items()}
        if key is not None:
            params[group] = init_adapters(targets, settings.rank, fold(key, f'lora/{group}'))
        return variables._replace(params=params)

    return map_variables(task, view, store)


def merge(variables: Variables, settings: Settings) -> Variables:
    """Merges the adapters into the weights: each adapted kernel becomes W + (alpha / rank) A B.

    Raises:
      UserError: if `variables` has no frozen weights for `settings.group`.
    """
    group = settings.group
    base = base_of(settings.group)
    if base not in variables.params:
        raise UserError(f'there are no adapters to merge: no group {base!r} in {sorted(variables.params)}')
    params = dict(variables.params)
    weights = params.pop(base)
    adapters = paths.flatten_paths(params[group])
    flat = paths.flatten_paths(weights)
    scale = settings.alpha / settings.rank
    merged = {
        path: add_product(flat[path], adapters[f'{path}/a'], adapters[f'{path}/b'], scale)
        for path in (name.removesuffix('/a') for name in adapters if name.endswith('/a'))
    }
    return variables._replace(params={**params, group: paths.replace_paths(weights, merged)})


def base_of(group: str) -> str:
    return f'{group}_base'


def find_targets(shapes: Tree, settings: Settings) -> dict[str, tuple[int, ...]]:
    """Selects the leaves to adapt; returns {path: shape as [..., inputs, outputs]}.

    Raises:
      UserError: if a pattern matches nothing, or the patterns match no floating-point matrix.
    """
    flat = paths.flatten_paths(shapes)
    with in_section('lora'):
        paths.require(flat, settings.target, 'target')
    targets = {}
    for path, leaf in flat.items():
        layers = leaf.shape[:1] if 'blocks' in path.split('/') else ()
        rest = leaf.shape[len(layers) :]
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        if paths.match(path, settings.target) and len(rest) >= 2 and floating:
            targets[path] = (*layers, math.prod(rest[:-1]), rest[-1])
    if not targets:
        hint = paths.suggest(settings.target[0], flat)
        raise UserError(
            f'config.lora.target: {settings.target} matches only vectors of group {settings.group!r}; {hint}'
        )
    return targets


def init_adapters(targets: dict[str, tuple[int, ...]], rank: int, key: PRNGKeyArray) -> dict[str, Any]:
    """Initializes float32 adapters at the paths of `targets`: 'a' normal with variance 1 / inputs, 'b' zero."""
    flat = {}
    for path, (*layers, inputs, outputs) in targets.items():
        flat[f'{path}/a'] = jax.random.normal(fold(key, path), (*layers, inputs, rank)) / math.sqrt(inputs)
        flat[f'{path}/b'] = jnp.zeros((*layers, rank, outputs))
    return paths.unflatten_paths(flat)


def add_product(
    kernel: Float[Array | np.ndarray, '...'],
    a: Float[Array | np.ndarray, '*layers inputs rank'],
    b: Float[Array | np.ndarray, '*layers rank outputs'],
    scale: float,
) -> Float[Array, '...']:
    """Computes kernel + scale * A B in the kernel's shape and type.

    The product has full precision, so that a merged model equals the trained one.
    """
    product = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return (kernel + scale * product.reshape(kernel.shape)).astype(kernel.dtype)  # pyright: ignore[reportReturnType]
