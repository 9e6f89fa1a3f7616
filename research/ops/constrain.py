"""Where an activation lives on the mesh: a one-line hint to the compiler that models may give."""

import jax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array

BATCH = ('data', 'fsdp')  # mesh axes over which the rows of a batch are spread
ANY = ()  # no axis in particular


def constrain(x: Array, *axes: str | tuple[str, ...] | None) -> Array:
    """Returns `x` laid out over the mesh that `jax.set_mesh` set; unchanged without a mesh or outside jit.

    `axes` holds mesh axes for the leading dimensions of `x`: `constrain(x, BATCH, None, 'tensor')`; None, and
    dimensions that are not named, are kept whole. Axes that the mesh lacks, that are manual (inside
    `jax.shard_map`) or that do not divide the dimension leave the layout of that dimension to the compiler, and so
    does `ANY`.

    Args:
      x: any array, [dimension, ...].
      *axes: a mesh axis, several, None or `ANY` for each leading dimension.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not isinstance(x, jax.core.Tracer):
        return x
    auto = {
        name: size
        for name, size, kind in zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
        if kind == AxisType.Auto
    }
    if not auto:
        return x
    return jax.lax.with_sharding_constraint(
        x, PartitionSpec(*(place(size, axis, auto) for size, axis in zip(x.shape, axes, strict=False)))
    )


def place(size: int, axis: str | tuple[str, ...] | None, auto: dict[str, int]):
    """Returns the entry of a `PartitionSpec` for one dimension: `axis` where it fits, else left open."""
    if axis is None:
        return None
    ways = 1
    names = (axis,) if isinstance(axis, str) else tuple(axis)
    for name in names:
        ways *= auto.get(name, 0)
    return names if names and ways and size % ways == 0 else PartitionSpec.UNCONSTRAINED
