"""Sharding: the mesh, path rules, and a fallback that splits every other large array."""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from research.core.config import MeshSettings
from research.core.task import Tree
from research.errors import UserError
from research.ops import paths
from research.ops.constrain import BATCH

AXES = ('data', 'fsdp', 'tensor')

# (pattern of '/' + path, dimension counted from the end, mesh axes along it); the first match applies.
# Column-parallel projections split their outputs and row-parallel ones their inputs, so that attention and
# MLP each need one sum over 'tensor' (Shoeybi et al. 2019, section 3). Embeddings are split along the
# vocabulary only: over two dimensions the compiler may gather the whole table at every lookup.
RULES = (
    ('*/query/kernel', -1, ('tensor',)),
    ('*/key/kernel', -1, ('tensor',)),
    ('*/value/kernel', -1, ('tensor',)),
    ('*/up/kernel', -1, ('tensor',)),
    ('*/gate/kernel', -1, ('tensor',)),
    ('*/out/kernel', -2, ('tensor',)),
    ('*/down/kernel', -2, ('tensor',)),
    ('*/embedding', -2, ('tensor', 'fsdp')),
)


def make_mesh(settings: MeshSettings, devices: Sequence[jax.Device] | None = None) -> Mesh:  # pyright: ignore[reportInvalidTypeForm]
    """Makes the mesh of `data`, `fsdp` and `tensor`, all Auto: the compiler shards unconstrained arrays.

    Args:
      settings: sizes; -1 takes all remaining devices.
      devices: the devices to use; all devices of all processes by default.

    Raises:
      UserError: if the sizes do not match the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = {axis: getattr(settings, axis) for axis in AXES}
    given = math.prod(size for size in sizes.values() if size != -1)
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    text = ' x '.join(f'{axis} {size}' for axis, size in sizes.items() if size != -1)
    count = len(devices)
    if count % given or (not open_axes and given != count):
        raise UserError(
            f'config.mesh: {text} makes {given}, and the number of devices is {count}: the product must '
            f'{"divide" if open_axes else "equal"} it (one axis at -1 takes all remaining devices)'
        )
    sizes.update({axis: count // given for axis in open_axes})
    axis_types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=axis_types, devices=devices)


def param_specs(shapes: Tree, mesh: Mesh, min_shard_size: int) -> Tree:
    """A `PartitionSpec` for every leaf of `shapes`.

    The first of `RULES` that matches a leaf's path splits one dimension. If that rule does not use 'fsdp', 'fsdp'
    splits the largest other dimension that it divides (the last of equals). Never split: arrays with fewer than
    `min_shard_size` elements, dimensions that an axis does not divide, and the leading layer axis of stacked leaves (a
    path component 'blocks').

    Args:
      shapes: arrays or `jax.ShapeDtypeStruct`s. Only the end of a path is matched, so copies of a parameter in
        optimizer states and averages get the same spec.
      mesh: as made by `make_mesh`.
      min_shard_size: number of elements of the smallest array to split.
    """
    sizes = {axis: size for axis, size in mesh.shape.items() if size > 1}
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: leaf_spec(paths.join(keys), tuple(leaf.shape), sizes, min_shard_size), shapes
    )


def leaf_spec(path: str, shape: tuple[int, ...], sizes: Mapping[str, int], min_shard_size: int) -> PartitionSpec:
    """The spec of one leaf; `sizes` are the mesh axes with more than one device."""
    first = 1 if 'blocks' in path.split('/') else 0
    if math.prod(shape) < min_shard_size:
        return PartitionSpec()
    placed: list[tuple[str, ...]] = [() for _ in shape]
    for pattern, end, axes in RULES:
        if paths.match('/' + path, (pattern,)):
            dimension = len(shape) + end
            if dimension >= first:
                placed[dimension] = dividing(shape[dimension], axes, sizes)
            if 'fsdp' in axes and any(placed):
                return spec(placed)
            break
    fitting = [
        (shape[dimension], dimension)
        for dimension in range(first, len(shape))
        if not placed[dimension] and dividing(shape[dimension], ('fsdp',), sizes)
    ]
    if fitting:
        placed[max(fitting)[1]] = ('fsdp',)
    return spec(placed)


def dividing(size: int, axes: Sequence[str], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The longest selection of `axes`, in order, that together divides a dimension of `size`."""
    taken, ways = [], 1
    for axis in axes:
        if axis in sizes and size % (ways * sizes[axis]) == 0:
            taken.append(axis)
            ways *= sizes[axis]
    return tuple(taken)


def spec(placed: Sequence[tuple[str, ...]]) -> PartitionSpec:
    """A `PartitionSpec` from mesh axes per dimension, without trailing Nones."""
    entries = [axes[0] if len(axes) == 1 else axes or None for axes in placed]
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries)


def state_shardings(shapes: Tree, mesh: Mesh, settings: MeshSettings) -> Tree:
    """A `NamedSharding` for every leaf of a whole state: variables, optimizers, averages, counters.

    The path of a leaf in an optimizer state or average ends in its parameter's path, and the shapes agree, so it is
    split like the parameter in any wrapper (chain, mask, partition). Counters are replicated.

    Args:
      shapes: the state as from `jax.eval_shape`.
      mesh: as made by `make_mesh`.
      settings: for `min_shard_size`.
    """
    return jax.tree.map(lambda leaf: NamedSharding(mesh, leaf), param_specs(shapes, mesh, settings.min_shard_size))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: rows over `data` and `fsdp`, other dimensions replicated."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of replicated arrays."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch(size: int, mesh: Mesh, where: str = 'train.batch_size') -> None:
    """Raises `UserError` if `size` rows do not divide evenly over `data` and `fsdp`."""
    ways = mesh.shape['data'] * mesh.shape['fsdp']
    if size % ways:
        lower, upper = size - size % ways, size + ways - size % ways
        near = f'{lower} or {upper}' if lower else f'{upper}'
        raise UserError(
            f'config.{where}: {size} rows do not divide over {ways} devices '
            f'(data {mesh.shape["data"]} x fsdp {mesh.shape["fsdp"]}); the nearest that do: {near}'
        )


def round_up(size: int, mesh: Mesh) -> int:
    """The smallest batch size of at least `size` that divides evenly over `data` and `fsdp`."""
    ways = mesh.shape['data'] * mesh.shape['fsdp']
    return -(-size // ways) * ways


def bytes_per_device(tree: Tree) -> dict[jax.Device, int]:  # pyright: ignore[reportInvalidTypeForm]
    """Bytes of `tree` on each device of this process.

    `tree` contains arrays, or `jax.ShapeDtypeStruct`s with shardings if nothing is allocated yet.
    """
    total: dict[jax.Device, int] = {}  # pyright: ignore[reportInvalidTypeForm]
    for leaf in jax.tree.leaves(tree):
        size = math.prod(leaf.sharding.shard_shape(tuple(leaf.shape))) * leaf.dtype.itemsize
        for device in leaf.sharding.addressable_devices:
            total[device] = total.get(device, 0) + size
    return dict(sorted(total.items(), key=lambda item: item[0].id))
