"""The convolution against XLA's own: values, slopes of either order, batches of kernels, and its layout in a loop."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from research.nn.convolution import Conv
from research.ops.convolution import convolution

RNG = np.random.default_rng(0)
LAYOUTS = {1: ('NHC', 'HIO', 'NHC'), 2: ('NHWC', 'HWIO', 'NHWC')}
WAYS = [
    dict(window_strides=(1, 1), padding='SAME'),
    dict(window_strides=(2, 3), padding='VALID'),
    dict(window_strides=(2, 1), padding=((2, 0), (1, 3)), rhs_dilation=(1, 2)),
    dict(window_strides=(1, 2), padding=((1, 1), (0, 1)), lhs_dilation=(2, 1)),
]


def normal(*shape):
    return np.float32(RNG.normal(size=shape))


def theirs(x, kernel, **ways):
    return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=LAYOUTS[x.ndim - 2], **ways)


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.parametrize('ways', WAYS)
def test_values_and_gradients_of_first_and_second_order_and_changes_are_those_of_lax(ways):
    x, kernel, x_change, kernel_change = normal(3, 9, 8, 2), normal(3, 2, 2, 4), normal(3, 9, 8, 2), normal(3, 2, 2, 4)

    def everything(convolve):
        def run(x, kernel):
            return convolve(x, kernel, **ways)

        def loss(x, kernel):
            return jnp.sum(jnp.sin(run(x, kernel)))

        def penalty(x, kernel):
            return jnp.sum(jax.grad(loss)(x, kernel) ** 2)

        return (
            run(x, kernel),
            jax.grad(loss, (0, 1))(x, kernel),
            jax.grad(penalty, (0, 1))(x, kernel),
            jax.jvp(run, (x, kernel), (x_change, kernel_change)),
            jax.vmap(jax.grad(lambda kernel, row: loss(row[None], kernel)), (None, 0))(kernel, x),
        )

    close(jax.jit(lambda: everything(convolution))(), jax.jit(lambda: everything(theirs))())


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 7), kernel=st.integers(1, 4), stride=st.integers(1, 3), dilation=st.integers(1, 2),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)  # fmt: skip
@pytest.mark.slow
def test_slopes_of_a_series_are_those_of_a_sum_written_out_in_float64(size, kernel, stride, dilation, pads):
    """A convolution is linear in each argument, so that its slopes are sums of the other's numbers."""
    reach = (kernel - 1) * dilation + 1
    count = (size + sum(pads) - reach) // stride + 1
    if count < 1:
        return
    x, weights, out = normal(2, size, 3), normal(kernel, 3, 2), normal(2, count, 2)
    x_slope, weights_slope = np.zeros(x.shape), np.zeros(weights.shape)
    for place in range(count):
        for tap in range(kernel):
            at = place * stride + tap * dilation - pads[0]
            if 0 <= at < size:
                x_slope[:, at] += out[:, place].astype(np.float64) @ weights[tap].T
                weights_slope[tap] += x[:, at].astype(np.float64).T @ out[:, place]
    _, back = jax.vjp(lambda x, w: convolution(x, w, (stride,), (pads,), rhs_dilation=(dilation,)), x, weights)
    close(back(jnp.float32(out)), (x_slope, weights_slope))


def test_groups_and_half_precision():
    x, kernel = normal(2, 6, 5, 4), normal(3, 3, 2, 6)
    grouped = dict(window_strides=(1, 1), padding='SAME', feature_group_count=2)
    close(convolution(x, kernel, **grouped), theirs(x, kernel, **grouped))
    kernel = jnp.bfloat16(normal(3, 3, 4, 6))
    total = jax.grad(lambda x, w: convolution(x, w, (1, 1), 'SAME').sum(dtype='float32'), (0, 1))
    slopes = total(jnp.bfloat16(x), kernel)
    assert [each.dtype for each in slopes] == [jnp.bfloat16, jnp.bfloat16]


def test_the_layer_is_that_of_flax():
    x, ours, plain = normal(2, 6, 5, 4), Conv(3, (3, 3), (2, 2)), nn.Conv(3, (3, 3), (2, 2))
    params = plain.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x))
    close(ours.apply(params, x), plain.apply(params, x))


def layouts(convolve) -> set[str]:
    """Returns the layouts of all convolutions of a gradient within a loop, as they are compiled."""
    x, kernel = jnp.zeros((2, 4, 6, 6, 3)), jnp.zeros((3, 3, 3, 5))
    slope = jax.grad(lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel, (1, 1), 'SAME'))), (0, 1))

    def looped(x, kernel):
        return jax.lax.scan(lambda total, part: (total + slope(part, kernel)[1], slope(part, kernel)[0]), kernel * 0, x)

    text = jax.jit(looped).lower(x, kernel).compile().as_text()
    return set(re.findall(r' convolution\(.*dim_labels=(\w+->\w+)', text))


def test_in_a_loop_every_convolution_has_the_layout_that_is_fast_on_a_cpu():
    """XLA on CPU runs others there in plain loops; if the second line fails, it has learnt better and ours can go."""
    assert layouts(convolution) <= {'b01f_01io->b01f'}
    plain = layouts(lambda *args: jax.lax.conv_general_dilated(*args, dimension_numbers=LAYOUTS[2]))
    assert plain - {'b01f_01io->b01f'}
