"""Convolution whose gradients are as fast inside a loop or a condition as outside."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.ops.constrain import ANY, BATCH, constrain

SPATIAL = 'HW'


def convolution(
    x: Float[Array, 'batch ... channels'],
    kernel: Float[Array, '... channels_of_group channels_out'],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> Float[Array, 'batch ... channels_out']:
    """Returns `jax.lax.conv_general_dilated` of one or two dimensions, channels last; flax's layers can be given it.

    On a CPU, XLA brings convolutions into the layout that its fast routines read only where they stand outside of every
    loop and condition; elsewhere a kernel's gradient runs in plain loops, 80 times as long. (A step with microbatches
    is a loop, one that skips a group a condition.) Here the gradients are in that layout from the start, by transposed
    operands: the same numbers, bit for bit. Gradients of gradients are XLA's own, and so is all on other devices.

    Over several devices rows and channels may be split; heights and widths are kept whole. XLA would split those too,
    where a reshape of split features suggests it, and its sums over three mesh axes were wrong then (jax 0.10.2).

    Args:
      x: pictures or series.
      kernel: size along each dimension, channels read, channels made.
      window_strides, padding, lhs_dilation, rhs_dilation, feature_group_count, precision: as there.
      dimension_numbers: what flax says of them; channels are last.
    """
    del dimension_numbers
    x = constrain(x, BATCH, *(None for _ in x.shape[1:-1]), ANY)
    further = dict(
        window_strides=tuple(window_strides),
        padding=padding if isinstance(padding, str) else tuple(map(tuple, padding)),
        lhs_dilation=lhs_dilation and tuple(lhs_dilation),
        rhs_dilation=rhs_dilation and tuple(rhs_dilation),
        precision=precision,
    )
    if feature_group_count == 1 and jax.default_backend() == 'cpu':
        return transposed(tuple(further.items()), x, kernel)
    return laid_out(('N_C', '_IO', 'N_C'), x, kernel, feature_group_count=feature_group_count, **further)


def laid_out(layout: tuple[str, str, str], x: Array, kernel: Array, **further: Any) -> Array:
    """Returns the convolution of operands that are laid out as said, with '_' for the spatial dimensions."""
    numbers = tuple(each.replace('_', SPATIAL[: x.ndim - 2]) for each in layout)
    return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=numbers, **further)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def transposed(further: tuple, x: Array, kernel: Array) -> Array:
    """Returns the convolution, a function of which both gradients are plain convolutions, channels last."""
    return laid_out(('N_C', '_IO', 'N_C'), x, kernel, **dict(further))


@transposed.defjvp
def slopes(further: tuple, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """Returns the convolution and its change; the layouts are those whose transposes are channels last."""
    (x, kernel), (x_change, kernel_change) = primals, tangents
    by_x = laid_out(('N_C', '_OI', 'N_C'), x_change, jnp.swapaxes(kernel, -1, -2), **dict(further))
    turned, change = jnp.swapaxes(x, 0, -1), jnp.moveaxis(kernel_change, -2, 0)
    by_kernel = laid_out(('C_N', 'I_O', '_NC'), turned, change, **dict(further))
    return transposed(further, x, kernel), by_x + jnp.moveaxis(by_kernel, -2, 0)
