"""Convolution whose gradients are as fast inside a loop or a conditional as outside."""

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
    """Convolves one or two spatial dimensions, channels last, like `jax.lax.conv_general_dilated`.

    It can replace the convolution of flax's layers (`conv_general_dilated=convolution`).

    XLA on a CPU brings convolutions into the layout of its fast routines only outside of loops and conditionals;
    inside, the gradient of a kernel runs in plain loops and takes 80 times as long. (A step with microbatches is a
    loop, a step that skips a group is a conditional.) Here the gradients are in that layout from the start, by
    transposed operands; results are bitwise equal. Second-order gradients, and other devices, use XLA's own rules.

    Rows and channels may be sharded over devices; heights and widths are not. XLA would shard those too if a reshape
    of sharded features suggests it, and then computed wrong sums over three mesh axes (jax 0.10.2).

    Args:
      x: images or series.
      kernel: [*window, input channels, output channels].
      window_strides: as in `jax.lax.conv_general_dilated`.
      padding: likewise.
      lhs_dilation: likewise.
      rhs_dilation: likewise.
      dimension_numbers: ignored; channels are last.
      feature_group_count: as in `jax.lax.conv_general_dilated`.
      precision: likewise.
    """
    del dimension_numbers
    x = constrain(x, BATCH, *(None for _ in x.shape[1:-1]), ANY)
    settings = dict(
        window_strides=tuple(window_strides),
        padding=padding if isinstance(padding, str) else tuple(map(tuple, padding)),
        lhs_dilation=lhs_dilation and tuple(lhs_dilation),
        rhs_dilation=rhs_dilation and tuple(rhs_dilation),
        precision=precision,
    )
    if feature_group_count == 1 and jax.default_backend() == 'cpu':
        return transposed(tuple(settings.items()), x, kernel)
    return laid_out(('N_C', '_IO', 'N_C'), x, kernel, feature_group_count=feature_group_count, **settings)


def laid_out(layout: tuple[str, str, str], x: Array, kernel: Array, **settings: Any) -> Array:
    """Convolves operands of the given layout, with '_' for the spatial dimensions."""
    numbers = tuple(axes.replace('_', SPATIAL[: x.ndim - 2]) for axes in layout)
    return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=numbers, **settings)  # pyright: ignore[reportArgumentType]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def transposed(settings: tuple, x: Array, kernel: Array) -> Array:
    """Convolves; both gradients are plain convolutions, channels last."""
    return laid_out(('N_C', '_IO', 'N_C'), x, kernel, **dict(settings))


@transposed.defjvp
def transposed_jvp(settings: tuple, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """The JVP rule, in layouts whose transposes are channels last."""
    x, kernel = primals
    x_tangent, kernel_tangent = tangents
    by_x = laid_out(('N_C', '_OI', 'N_C'), x_tangent, jnp.swapaxes(kernel, -1, -2), **dict(settings))
    swapped, tangent = jnp.swapaxes(x, 0, -1), jnp.moveaxis(kernel_tangent, -2, 0)
    by_kernel = laid_out(('C_N', 'I_O', '_NC'), swapped, tangent, **dict(settings))
    return transposed(settings, x, kernel), by_x + jnp.moveaxis(by_kernel, -2, 0)
