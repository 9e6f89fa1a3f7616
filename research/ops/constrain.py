"""Sharding constraints on activations, as one-line hints to the compiler."""

import jax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array

BATCH = ('data', 'fsdp')  # mesh axes that shard the rows of a batch
ANY = ()  # leave the layout to the compiler


def constrain(x: Array, *axes: str | tuple[str, ...] | None) -> Array:
    """Constrains the layout of `x` on the mesh of `jax.set_mesh`; identity without a mesh or outside jit.

    `axes` are mesh axes for the leading dimensions of `x`, as in `constrain(x, BATCH, None, 'tensor')`. Dimensions
    with None, and trailing ones, are replicated. The compiler chooses the layout of a dimension for `ANY`, and for
    axes that the mesh lacks, that are manual (inside `jax.shard_map`), or that do not divide the dimension.

    Args:
      x: any array, [dimension, ...].
      *axes: a mesh axis, a tuple of them, None or `ANY` for each leading dimension.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not isinstance(x, jax.core.Tracer):  # pyright: ignore[reportAttributeAccessIssue]
        return x
    auto = {
        name: size
        for name, size, axis_type in zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
        if axis_type == AxisType.Auto
    }
    if not auto:
        return x
    return jax.lax.with_sharding_constraint(
        x, PartitionSpec(*(dimension_spec(size, axis, auto) for size, axis in zip(x.shape, axes, strict=False)))
    )


def dimension_spec(size: int, axis: str | tuple[str, ...] | None, auto: dict[str, int]):
    """Entry of a `PartitionSpec` for one dimension: `axis` if it is applicable, else unconstrained."""
    if axis is None:
        return None
    ways = 1
    names = (axis,) if isinstance(axis, str) else tuple(axis)
    for name in names:
        ways *= auto.get(name, 0)
    return names if names and ways and size % ways == 0 else PartitionSpec.UNCONSTRAINED
