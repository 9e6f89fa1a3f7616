"""Meshes, path rules, and that parameters and optimizer state are really split over the devices."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from jax.sharding import AxisType, PartitionSpec

from research.core.config import MeshSettings, OptimizerSettings
from research.core.optimizer import make_optimizer
from research.core.sharding import (
    batch_sharding,
    bytes_per_device,
    check_batch,
    leaf_spec,
    make_mesh,
    param_specs,
    replicated,
    state_shardings,
)
from research.core.task import Variables
from research.errors import UserError
from research.ops.paths import flatten_paths, unflatten_paths

P = PartitionSpec
MESHES = [
    (1, 1, 1),
    (2, 1, 1),
    (1, 2, 1),
    (1, 1, 2),
    (2, 2, 1),
    (1, 2, 2),
    (8, 1, 1),
    (1, 8, 1),
    (2, 2, 2),
    (1, 2, 4),
]


class State(NamedTuple):
    step: jax.Array
    variables: Variables
    optimizer: dict
    average: Variables | None


def mesh_of(data, fsdp, tensor):
    return make_mesh(MeshSettings(data, fsdp, tensor), jax.devices()[: data * fsdp * tensor])


def specs_of(shapes, sizes, min_shard_size=1):
    tree = unflatten_paths({path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in shapes.items()})
    return flatten_paths(param_specs(tree, mesh_of(*sizes), min_shard_size))


@pytest.mark.parametrize('sizes', MESHES)
def test_mesh(sizes):
    mesh = mesh_of(*sizes)
    assert dict(mesh.shape) == dict(zip(('data', 'fsdp', 'tensor'), sizes, strict=True))
    assert mesh.axis_types == (AxisType.Auto,) * 3


def test_minus_one_takes_what_is_left():
    devices = jax.devices()[:8]
    assert tuple(make_mesh(MeshSettings(-1, 2, 2), devices).shape.values()) == (2, 2, 2)
    assert tuple(make_mesh(MeshSettings(1, -1, 1), devices).shape.values()) == (1, 8, 1)
    assert tuple(make_mesh(MeshSettings(), devices[:4]).shape.values()) == (4, 1, 1)
    assert math.prod(make_mesh(MeshSettings()).shape.values()) == len(jax.devices())


@pytest.mark.parametrize('sizes', [(-1, 3, 1), (2, 2, 4), (2, 2, 1), (-1, 16, 1)])
def test_sizes_that_do_not_go_into_the_devices(sizes):
    with pytest.raises(UserError) as error:
        make_mesh(MeshSettings(*sizes), jax.devices()[:8])
    product = math.prod(size for size in sizes if size != -1)
    assert f'makes {product}, and the number of devices is 8' in str(error.value)


RULED = {
    'blocks/attention/query/kernel': ((3, 16, 32), P(None, 'fsdp', 'tensor')),
    'blocks/attention/key/kernel': ((3, 16, 8), P(None, 'fsdp', 'tensor')),
    'blocks/attention/value/kernel': ((3, 16, 8), P(None, 'fsdp', 'tensor')),
    'blocks/attention/out/kernel': ((3, 32, 16), P(None, 'tensor', 'fsdp')),
    'blocks/mlp/up/kernel': ((3, 16, 64), P(None, 'fsdp', 'tensor')),
    'blocks/mlp/gate/kernel': ((3, 16, 64), P(None, 'fsdp', 'tensor')),
    'blocks/mlp/down/kernel': ((3, 64, 16), P(None, 'tensor', 'fsdp')),
    'blocks/norm/scale': ((3, 16), P(None, 'fsdp')),
    'tokens/embedding': ((64, 16), P(('tensor', 'fsdp'))),
    'head/kernel': ((16, 64), P(None, 'fsdp')),
    'conv/kernel': ((3, 3, 8, 16), P(None, None, None, 'fsdp')),
    'up/kernel': ((16, 64), P('fsdp', 'tensor')),
    'setup/kernel': ((16, 64), P(None, 'fsdp')),
    'temperature': ((), P()),
}


def test_rules_and_fallback():
    found = specs_of({path: shape for path, (shape, _) in RULED.items()}, (2, 2, 2))
    assert found == {path: spec for path, (_, spec) in sorted(RULED.items())}


def test_one_axis_at_a_time():
    shapes = {path: shape for path, (shape, _) in RULED.items()}
    assert set(specs_of(shapes, (8, 1, 1)).values()) == {P()}
    assert specs_of(shapes, (1, 1, 2))['blocks/mlp/up/kernel'] == P(None, None, 'tensor')
    assert specs_of(shapes, (1, 1, 2))['head/kernel'] == P()
    assert specs_of(shapes, (1, 1, 2))['tokens/embedding'] == P('tensor')
    assert specs_of(shapes, (1, 2, 1))['blocks/mlp/up/kernel'] == P(None, None, 'fsdp')
    assert specs_of(shapes, (1, 2, 1))['tokens/embedding'] == P('fsdp')


def test_what_does_not_divide_is_whole():
    shapes = {
        'a/query/kernel': (16, 7),
        'b/up/kernel': (7, 6),
        'c/kernel': (9, 4, 5),
        'd/kernel': (9, 5),
        'e/embedding': (
            65,
            16,
        ),  # no vocabulary axis fits: the width takes fsdp, which is one dimension again
        'f/embedding': (66, 16),
        'blocks/kernel': (4, 5, 7),
    }
    assert specs_of(shapes, (2, 2, 2)) == {
        'a/query/kernel': P('fsdp'),
        'b/up/kernel': P(None, 'tensor'),
        'c/kernel': P(None, 'fsdp'),
        'd/kernel': P(),
        'e/embedding': P(None, 'fsdp'),
        'f/embedding': P('tensor'),
        'blocks/kernel': P(),
    }


def test_small_arrays_are_whole():
    assert specs_of({'a/kernel': (8, 8)}, (1, 2, 1), min_shard_size=65) == {'a/kernel': P()}
    assert specs_of({'a/kernel': (8, 8)}, (1, 2, 1), min_shard_size=64) == {'a/kernel': P(None, 'fsdp')}


@limits(max_examples=200, deadline=None)
@given(
    st.sampled_from(['', 'blocks/']),
    st.sampled_from([*RULED, 'x/y', 'mu/query/kernel']),
    st.lists(st.integers(1, 12), max_size=5).map(tuple),
    st.fixed_dictionaries(
        {}, optional={axis: st.sampled_from([2, 3, 4]) for axis in ('data', 'fsdp', 'tensor')}
    ),
)
def test_every_spec_is_valid(prefix, path, shape, sizes):
    spec = leaf_spec(prefix + path, shape, sizes, 1)
    used = [axis for entry in spec if entry for axis in ((entry,) if isinstance(entry, str) else entry)]
    assert len(used) == len(set(used)) and set(used) <= set(sizes) - {'data'}
    assert len(spec) <= len(shape)
    for size, entry in zip(shape, spec, strict=False):
        axes = (entry,) if isinstance(entry, str) else entry or ()
        assert size % math.prod(sizes[axis] for axis in axes) == 0
    if 'blocks' in (prefix + path).split('/') and shape:
        assert not spec or spec[0] is None


def state_of(settings):
    """Returns a State of one group with a stacked block, a table and a convolution, and its optimizer."""
    shapes = {
        'blocks/mlp/up/kernel': (2, 32, 64),
        'blocks/mlp/down/kernel': (2, 64, 32),
        'blocks/norm/scale': (2, 32),
        'tokens/embedding': (128, 32),
        'conv/kernel': (3, 3, 32, 64),
    }
    params = unflatten_paths({path: jnp.ones(shape) for path, shape in shapes.items()})
    optimizer = make_optimizer(settings, 10, params)

    def make():
        variables = Variables(
            {'model': params}, {'model': {'batch_stats': {'norm': {'mean': jnp.zeros(64)}}}}
        )
        state = State(jnp.zeros((), jnp.int32), variables, {'model': optimizer.init(params)}, variables)
        return jax.tree.map(jnp.array, state)

    return make, optimizer


OPTIMIZERS = {
    'adamw': (OptimizerSettings(weight_decay=0.1, clip=1.0), 2),
    'adamw, frozen': (OptimizerSettings(weight_decay=0.1, l1=0.1, frozen=('conv/*',)), 2),
    'momentum': (OptimizerSettings(name='sgd'), 1),
    'sgd': (OptimizerSettings(name='sgd', momentum=0.0), 0),
}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_optimizer_states_are_split_like_their_parameters(name):
    settings, copies = OPTIMIZERS[name]
    make, _ = state_of(settings)
    shapes = jax.eval_shape(make)
    mesh_settings = MeshSettings(2, 2, 2, min_shard_size=100)
    shardings = state_shardings(shapes, make_mesh(mesh_settings, jax.devices()[:8]), mesh_settings)
    assert jax.tree.structure(shardings) == jax.tree.structure(shapes)
    assert shardings.step.spec == P()
    params = {path: each.spec for path, each in flatten_paths(shardings.variables.params['model']).items()}
    assert params['blocks/mlp/up/kernel'] == P(None, 'fsdp', 'tensor')
    assert params == {
        path: each.spec for path, each in flatten_paths(shardings.average.params['model']).items()
    }
    optimizer = {path: each.spec for path, each in flatten_paths(shardings.optimizer['model']).items()}
    for path, spec in params.items():
        found = [each for where, each in optimizer.items() if where.endswith('/' + path)]
        assert found == [spec] * (
            0 if path in settings.frozen or path == 'conv/kernel' and settings.frozen else copies
        )


QUICK = ((1, 1, 1), (1, 2, 2), (2, 2, 2))


@pytest.mark.parametrize(
    'sizes', [sizes if sizes in QUICK else pytest.param(sizes, marks=pytest.mark.slow) for sizes in MESHES]
)
def test_a_step_keeps_everything_split(sizes):
    settings = MeshSettings(*sizes, min_shard_size=1024)
    mesh = make_mesh(settings, jax.devices()[: math.prod(sizes)])
    make, optimizer = state_of(OptimizerSettings(weight_decay=0.1, clip=1.0))
    shardings = state_shardings(jax.eval_shape(make), mesh, settings)

    def step(state, batch):
        def loss(params):
            hidden = params['tokens']['embedding'][batch]
            for layer in range(2):
                up = jnp.tanh(hidden @ params['blocks']['mlp']['up']['kernel'][layer])
                hidden = hidden + up @ params['blocks']['mlp']['down']['kernel'][layer] * 0.01
            return (hidden**2).mean() + (params['conv']['kernel'] ** 2).mean()

        params = state.variables.params['model']
        updates, inner = optimizer.update(jax.grad(loss)(params), state.optimizer['model'], params)
        variables = state.variables._replace(params={'model': optax.apply_updates(params, updates)})
        return State(state.step + 1, variables, {'model': inner}, state.average)

    with jax.set_mesh(mesh):
        state = jax.jit(make, out_shardings=shardings)()
        batch = jax.device_put(np.arange(16 * 4).reshape(16, 4), batch_sharding(mesh))
        assert batch.addressable_shards[0].data.shape == (16 // (sizes[0] * sizes[1]), 4)
        state = jax.jit(step, donate_argnums=0, out_shardings=shardings)(state, batch)
    jax.tree.map(
        lambda leaf, wanted: leaf.sharding.is_equivalent_to(wanted, leaf.ndim) or pytest.fail(),
        state,
        shardings,
    )
    check_bytes(state, mesh, sizes)


def check_bytes(state, mesh, sizes):
    """Compares bytes per device with what the shards really hold, and with what the mesh should save."""
    held = {device: 0 for device in mesh.devices.flat}
    for leaf in jax.tree.leaves(state):
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    assert bytes_per_device(state) == held
    assert len(set(held.values())) == 1
    moments = {path: leaf for path, leaf in flatten_paths(state.optimizer).items() if leaf.size >= 1024}
    assert len(moments) == 8
    _, fsdp, tensor = sizes
    for path, leaf in moments.items():
        ways = fsdp if path.endswith('conv/kernel') else fsdp * tensor
        assert leaf.addressable_shards[0].data.size * ways == leaf.size, path


def test_bytes_can_be_planned():
    mesh = mesh_of(1, 4, 1)
    planned = jax.ShapeDtypeStruct((8, 16), jnp.bfloat16, sharding=jax.NamedSharding(mesh, P('fsdp')))
    whole = jax.ShapeDtypeStruct((10,), jnp.float32, sharding=replicated(mesh))
    assert bytes_per_device({'a': planned, 'b': whole}) == {device: 64 + 40 for device in jax.devices()[:4]}


def test_batches_must_divide():
    mesh = mesh_of(2, 2, 2)
    check_batch(8, mesh)
    with pytest.raises(
        UserError, match=r'train\.batch_size: 10 rows .* 4 devices \(data 2 x fsdp 2\).* 8 or 12'
    ):
        check_batch(10, mesh)
    with pytest.raises(UserError, match=r'train\.eval_batch_size: 3 rows .*: 4$'):
        check_batch(3, mesh, 'train.eval_batch_size')
