"""Activation constraints place what fits, and are nothing without a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from research.ops.constrain import BATCH, constrain


@pytest.fixture
def mesh():
    kinds = (AxisType.Auto,) * 3
    return jax.make_mesh((2, 2, 2), ('data', 'fsdp', 'tensor'), axis_types=kinds, devices=jax.devices()[:8])


def places(function, *shapes):
    """Returns the specs of the sharding constraints in the jaxpr of `function`."""
    equations = jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)).jaxpr.eqns
    return [
        each.params['sharding'].spec for each in equations if each.primitive.name == 'sharding_constraint'
    ]


def test_nothing_without_a_mesh():
    assert places(lambda x: constrain(x, BATCH, 'tensor'), (8, 4)) == []
    x = np.ones((8, 4))
    assert constrain(x, BATCH) is x


def test_nothing_outside_jit(mesh):
    with jax.set_mesh(mesh):
        x = jnp.ones((3, 4))
        assert constrain(x, BATCH, 'tensor') is x


def test_layout_under_jit(mesh):
    with jax.set_mesh(mesh):
        y = jax.jit(lambda x: constrain(x * 2, BATCH, None, 'tensor'))(jnp.ones((8, 3, 4)))
        assert y.sharding.spec == PartitionSpec(BATCH, None, 'tensor')
        assert y.addressable_shards[0].data.shape == (2, 3, 2)
        np.testing.assert_array_equal(y, np.full((8, 3, 4), 2))


def test_what_does_not_fit_is_left_open(mesh):
    free = PartitionSpec.UNCONSTRAINED
    with jax.set_mesh(mesh):
        assert places(lambda x: constrain(x, BATCH, 'tensor', 'expert'), (6, 4, 4)) == [
            PartitionSpec(free, 'tensor', free)
        ]
        assert float(jax.jit(lambda x: constrain(x, BATCH, 'tensor').sum())(jnp.ones((3, 5)))) == 15


def test_inside_shard_map_and_vmap(mesh):
    def double(x):
        return constrain(x * 2, BATCH, 'tensor')

    rows = PartitionSpec(BATCH)
    with jax.set_mesh(mesh):
        whole = jax.jit(jax.shard_map(double, in_specs=rows, out_specs=rows))
        partly = jax.jit(jax.shard_map(double, in_specs=rows, out_specs=rows, axis_names=set(BATCH)))
        for function in (whole, partly, jax.jit(jax.vmap(double))):
            np.testing.assert_array_equal(function(jnp.ones((8, 4, 4))), np.full((8, 4, 4), 2))


def test_gradients_pass(mesh):
    with jax.set_mesh(mesh):
        gradient = jax.jit(jax.grad(lambda x: (constrain(x, BATCH, 'tensor') ** 2).sum()))(jnp.ones((8, 4)))
    np.testing.assert_array_equal(gradient, np.full((8, 4), 2))
