"""The optimizer and learning-rate schedule of one group, built with optax."""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from research.core.config import OptimizerSettings
from research.core.task import Tree
from research.errors import UserError, in_section
from research.ops import paths


def make_schedule(settings: OptimizerSettings, updates: int) -> optax.Schedule:
    """The learning rate as a function of `count`, the number of updates made before.

    With t = count + 1 the number of the update, W the updates of the warm-up, e = end_fraction and
    p = (count - W) / (updates - W) clipped to [0, 1], the rate is learning_rate * min(t / W, 1) times
        constant      1
        linear        1 - (1 - e) * p
        trapezoid     1 - (1 - e) * max(1 - (1 - p) / cooldown, 0)    (Hägele et al. 2024, arXiv:2405.18392)
        cosine        e + (1 - e) * (1 + cos(pi * p)) / 2    (Loshchilov & Hutter 2017, eq. 5)
        inverse_sqrt  min(1, sqrt(max(W, 1) / t))            (Vaswani et al. 2017, eq. 3)
    so the rate of the first update is above zero, and the schedule ends after the last update. A run shorter than
    its warm-up ends during it.

    Args:
      settings: `warmup_steps` counts steps of the run: with `update_every` 3, three for each update.
      updates: the number of updates that this group makes in the whole run.
    """
    warmup = -(-settings.warmup_steps // settings.update_every)
    end = settings.end_fraction

    def schedule(count: Int[Array, ''] | int) -> Float[Array, '']:
        count = jnp.asarray(count, jnp.float32)
        progress = jnp.clip((count - warmup) / max(updates - warmup, 1), 0.0, 1.0)
        factor = {
            'constant': lambda: jnp.ones_like(count),
            'linear': lambda: 1 - (1 - end) * progress,
            'trapezoid': lambda: 1 - (1 - end) * jnp.maximum(1 - (1 - progress) / settings.cooldown, 0.0),
            'cosine': lambda: end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * progress)),
            'inverse_sqrt': lambda: jnp.minimum(1.0, jnp.sqrt(max(warmup, 1) / (count + 1))),
        }[settings.schedule]()
        return settings.learning_rate * factor * jnp.minimum((count + 1) / max(warmup, 1), 1.0)

    return schedule  # pyright: ignore[reportReturnType]


def make_optimizer(
    settings: OptimizerSettings, updates: int, params_shapes: Tree, where: str = 'optimizer.model'
) -> optax.GradientTransformation:
    """Makes one group's optimizer; its `update` needs the parameters.

    Frozen leaves get zero updates and have no optimizer state. For the others, in this order: add the gradients of the
    L1 and L2 penalties on leaves that match `decay`; clip the global norm over all trained leaves; adam (Kingma & Ba
    2015, alg. 1; with `nesterov`, Dozat 2016), or sgd with momentum; decoupled weight decay on leaves that match
    `decay` (Loshchilov & Hutter 2019, alg. 2, with the decay multiplied by the learning rate); multiply by the
    scheduled learning rate and by the factor of the layer.

    Args:
      settings: the group's section of the config.
      updates: the number of updates that this group makes in the whole run.
      params_shapes: the group's parameters or their shapes; only paths and shapes are used.
      where: the section's name, for messages.

    Raises:
      UserError: if a pattern of `frozen` matches no path, or settings contradict each other.
    """
    check(settings, where)
    with in_section(where):
        paths.require(paths.flatten_paths(params_shapes), settings.frozen, 'frozen')
    parts = []
    if settings.l1 or settings.l2:
        parts.append(add_penalties(settings))
    if settings.clip:
        parts.append(optax.clip_by_global_norm(settings.clip))
    if settings.name == 'sgd':
        parts.extend([optax.trace(settings.momentum, settings.nesterov)] if settings.momentum else [])
    else:
        parts.append(optax.scale_by_adam(settings.b1, settings.b2, settings.eps, nesterov=settings.nesterov))
    if settings.weight_decay:
        decayed = functools.partial(paths.select, patterns=settings.decay)
        parts.append(optax.add_decayed_weights(settings.weight_decay, decayed))
    parts.append(optax.scale_by_learning_rate(make_schedule(settings, updates)))
    if settings.layer_decay != 1 or settings.frozen_blocks:
        parts.append(scale_layers(settings, params_shapes, where))
    trained = optax.chain(*parts)
    if not settings.frozen:
        return trained

    def labels(tree: Tree) -> Tree:
        frozen = paths.select(tree, settings.frozen)
        return jax.tree.map(lambda leaf: 'frozen' if leaf else 'trained', frozen)

    return optax.partition({'trained': trained, 'frozen': optax.set_to_zero()}, labels)


def add_penalties(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Adds the gradient of l1 * sum |w| + l2 / 2 * sum w^2 over the leaves that match `decay`."""

    def add(gradient: Tree, params: Tree) -> Tree:
        return jax.tree.map(
            lambda chosen, g, w: g + settings.l1 * jnp.sign(w) + settings.l2 * w if chosen else g,
            paths.select(gradient, settings.decay),
            gradient,
            params,
        )

    return optax.stateless(add)


def scale_layers(settings: OptimizerSettings, params_shapes: Tree, where: str) -> optax.GradientTransformation:
    """Scales updates per layer, so that learning rates fall with the distance from the output.

    With decay d, block i of L (from 0) gets the factor d ** (L - i); embeddings get d ** (L + 1); layers after the last
    block get 1 (Clark et al. 2020, arXiv:2003.10555, appendix B). The first `frozen_blocks` get 0. Blocks are stacked
    along the first axis of leaves below 'blocks'; each stack has its own L.

    Raises:
      UserError: if there are no blocks, or fewer than `frozen_blocks`.
    """
    decay, frozen = settings.layer_decay, settings.frozen_blocks
    flat = paths.flatten_paths(params_shapes)
    counts = {leaf.shape[0] for path, leaf in flat.items() if 'blocks' in path.split('/')}
    if not counts:
        name = 'frozen_blocks' if frozen else 'layer_decay'
        raise UserError(f"config.{where}.{name}: no parameter is below 'blocks', so there are no layers")
    if frozen > max(counts):
        raise UserError(f'config.{where}.frozen_blocks={frozen}: there are only {max(counts)} blocks')

    def scale(keys: tuple, leaf: Array) -> Array:
        path = paths.join(keys)
        if 'blocks' in path.split('/'):
            rates = decay ** jnp.arange(leaf.shape[0], 0, -1, dtype=jnp.float32)
            rates = rates.reshape(-1, *[1] * (leaf.ndim - 1)).astype(leaf.dtype)
            is_frozen = jnp.arange(leaf.shape[0]).reshape(rates.shape) < frozen
            return jnp.where(is_frozen, 0, leaf * rates)
        return leaf * decay ** (max(counts) + 1) if 'embedding' in path else leaf

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))


def check(settings: OptimizerSettings, where: str) -> None:
    """Raises `UserError` for values that would be ignored or contradict each other."""
    if settings.name == 'adam' and settings.weight_decay:
        raise UserError(
            f'config.{where}.weight_decay={settings.weight_decay}: adam has no decoupled weight decay; '
            "set name to 'adamw', or use l2 for a penalty in the gradient"
        )
    if settings.name == 'sgd' and settings.nesterov and not settings.momentum:
        raise UserError(f'config.{where}.nesterov: sgd needs momentum above zero for it')
    for name in ('b1', 'b2', 'momentum'):
        value = getattr(settings, name)
        if not 0 <= value < 1:
            raise UserError(f'config.{where}.{name} must be at least 0 and below 1, got {value!r}')
    if settings.end_fraction > 1:
        raise UserError(f'config.{where}.end_fraction must be at most 1, got {settings.end_fraction!r}')
    if settings.layer_decay > 1:
        raise UserError(f'config.{where}.layer_decay must be at most 1, got {settings.layer_decay!r}')
    for pattern in settings.decay:
        if not isinstance(pattern, str):
            raise UserError(f'config.{where}.decay: expected patterns of paths, got {pattern!r}')
