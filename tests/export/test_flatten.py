"""A flattened function computes what the original does, in operations that converters read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from research.errors import UserError
from research.export.flatten import flatten, unsupported

RNG = np.random.default_rng(0)


def spec(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def names_of(flat):
    return [equation.primitive.name for equation in flat.closed.jaxpr.eqns]


def assert_same(function, specs, atol=0.0):
    """Asserts that the flattened function gives the same outputs for drawn inputs; returns it."""
    flat = flatten(function, specs)
    inputs = {name: RNG.normal(size=each.shape).astype(each.dtype) for name, each in specs.items()}
    wanted, got = jax.jit(function)(inputs), jax.jit(flat.call)(inputs)
    assert set(wanted) == set(got)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=atol, err_msg=name)
    return flat


@pytest.mark.parametrize('reverse', [False, True])
def test_loops_are_written_out_and_their_weights_are_constants(reverse):
    kernels = RNG.normal(size=(3, 4, 4)).astype(np.float32)

    def layer(carry, both):
        kernel, number = both
        new = jnp.tanh(carry @ kernel) + number
        return new, new * 2

    def function(inputs):
        numbers = np.arange(3, dtype=np.float32)
        last, every = jax.lax.scan(jax.checkpoint(layer), inputs['x'], (kernels, numbers), reverse=reverse)
        return {'last': last, 'every': every}

    flat = assert_same(function, {'x': spec(2, 4)}, atol=1e-6)
    assert 'scan' not in names_of(flat) and names_of(flat).count('dot_general') == 3
    assert 'slice' not in names_of(flat)  # the kernels of the layers are constants of their own


def test_products_with_weights_are_products_of_matrices():
    heads, back = RNG.normal(size=(6, 2, 3)).astype(np.float32), RNG.normal(size=(2, 3, 6)).astype(np.float32)
    table = RNG.normal(size=(9, 6)).astype(np.float32)

    def function(inputs):
        queries = jnp.einsum('bld,dhw->blhw', inputs['x'], heads)
        joined = jnp.einsum('blhw,hwd->bld', queries, back)
        return {'logits': jnp.einsum('bld,vd->blv', joined, table), 'scores': queries @ queries.swapaxes(-1, -2)}

    flat = assert_same(function, {'x': spec(2, 5, 6)}, atol=1e-5)
    products = [each for each in flat.closed.jaxpr.eqns if each.primitive.name == 'dot_general']
    shapes = sorted(len(each.invars[0].aval.shape) for each in products)
    assert shapes == [2, 2, 2, 4]  # the product of two activations keeps its batch


def test_random_draws_become_inputs_and_unused_ones_go():
    def function(inputs):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), inputs['index'])
        normal = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
        unused = jax.random.uniform(jax.random.key(0), (2, 3))
        label = jax.vmap(lambda key: jax.random.categorical(key, jnp.log(jnp.array([0.9, 0.1]))))(keys)
        return {'x': normal * 2 + jnp.where(inputs['fixed'] > 0, 0, 0 * unused), 'label': label}

    specs = {'index': spec(2, dtype=np.int32), 'fixed': spec(2, 1)}
    flat = flatten(function, specs)
    assert list(flat.draws.values()) == [
        'standard normal numbers', 'uniform numbers in [0, 1)', 'standard Gumbel numbers'
    ]  # fmt: skip
    assert set(flat.inputs) == {'fixed', *flat.draws} and not unsupported(flat)
    noise = RNG.normal(size=(2, 3)).astype(np.float32)
    values = {name: np.zeros(each.shape, each.dtype) for name, each in flat.inputs.items()}
    got = flat.call({**values, 'noise': noise})
    np.testing.assert_array_equal(got['x'], noise * 2)
    bound = flatten(
        lambda inputs: function({**inputs, 'fixed': np.ones((2, 1), np.float32)}), {'index': specs['index']}
    )
    assert len(bound.draws) == 2, 'a choice by a constant is made, and the other side goes'


def test_code_for_platforms_is_that_of_a_cpu():
    def function(inputs):
        return {'x': jax.lax.platform_dependent(inputs['x'], cpu=lambda x: x + 1, default=lambda x: x - 1)}

    flat = flatten(function, {'x': spec(2)})
    assert names_of(flat) == ['add'] and flat.call({'x': np.zeros(2, np.float32)})['x'][0] == 1


def test_any_batch_size():
    kernel = RNG.normal(size=(4, 3)).astype(np.float32)

    def function(inputs):
        return {'y': jax.nn.softmax(inputs['x'] @ kernel), 'first': inputs['x'][:, 0]}

    batch = jax_export.symbolic_shape('batch')[0]
    flat = flatten(function, {'x': spec(batch, 5, 4)})
    call = jax_export.export(jax.jit(flat.call))(flat.inputs).call
    for rows in (1, 3):
        x = RNG.normal(size=(rows, 5, 4)).astype(np.float32)
        np.testing.assert_allclose(call({'x': x})['y'], function({'x': x})['y'], atol=1e-6)


def test_what_a_format_without_loops_cannot_hold_is_named():
    def search(inputs):
        x = jax.lax.while_loop(lambda x: x.sum() < 10, lambda x: x + 1, inputs['x'])
        return {'x': x + jax.random.bits(jax.random.key(inputs['seed']), (2,)).astype(np.float32)}

    specs = {'x': spec(2), 'seed': spec(dtype=np.int32)}
    assert unsupported(flatten(search, specs)) == ['a loop or branch that depends on values', 'random numbers']
    with pytest.raises(UserError, match='a loop of 600 turns'):
        flatten(lambda inputs: {'x': jax.lax.fori_loop(0, 600, lambda i, x: x + i, inputs['x'])}, {'x': spec()})


@pytest.mark.parametrize(('start', 'width'), [(0, 5), (0, 3), (2, 2), (4, 3)])
def test_a_replaced_slice_at_a_known_place_is_a_concatenation(start, width):
    def function(inputs):
        zeros = jnp.zeros((inputs['x'].shape[0], 5, 2))
        return {'y': zeros.at[:, start : start + width].set(inputs['x'][:, : 5 - start])}

    batch = jax_export.symbolic_shape('batch')[0]
    assert 'scatter' not in names_of(flatten(function, {'x': spec(batch, width, 2)}))
    assert_same(function, {'x': spec(3, width, 2)})
