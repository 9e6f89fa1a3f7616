"""Generators of pictures on three mesh axes: what a split layer before a convolution does to value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from research.core.config import MeshSettings
from research.core.sharding import batch_sharding, make_mesh, param_specs
from research.nn.apply import initialize, run
from research.nn.dcgan import DCGANGenerator
from research.nn.gan import ConvGenerator
from research.nn.sngan import ResNetGenerator

SHAPE, ROWS = (8, 8, 1), 16
GENERATORS = {
    'conv': ConvGenerator(SHAPE, 3, (8, 8), 'batch'),
    'dcgan': DCGANGenerator(SHAPE, 3, (8, 8)),
    'resnet': ResNetGenerator(SHAPE, 3, (8, 8)),
}


@pytest.mark.parametrize('mesh', [(1, 2, 4), (1, 4, 2)], ids=str)
@pytest.mark.parametrize('name', GENERATORS)
def test_pictures_and_gradients_are_those_of_one_device(name, mesh):
    """XLA split heights there, and its sums over the third axis were wrong by a factor."""
    module, rng = GENERATORS[name], np.random.default_rng(0)
    noise, labels = jnp.float32(rng.normal(size=(ROWS, 8))), jnp.arange(ROWS) % 3
    params, collections = initialize(module, jax.random.key(0), noise, labels)

    def loss(params, noise, labels):
        pictures, state = run(module, params, collections, noise, labels, train=True, key=jax.random.key(0))
        return jnp.mean(jnp.square(pictures - 0.5)), (pictures, state)

    slope = jax.value_and_grad(loss, has_aux=True)
    single = jax.jit(slope)(params, noise, labels)
    data, fsdp, tensor = mesh
    devices = make_mesh(MeshSettings(data=data, fsdp=fsdp, tensor=tensor, min_shard_size=64))
    places = jax.tree.map(lambda each: NamedSharding(devices, each), param_specs(params, devices, 64))
    rows = [jax.device_put(each, batch_sharding(devices)) for each in (noise, labels)]
    assert places['coarse']['kernel'].spec != jax.sharding.PartitionSpec()
    with jax.set_mesh(devices):
        split = jax.jit(slope)(jax.device_put(params, places), *rows)
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(single), jax.tree.leaves(split), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-6, err_msg=jax.tree_util.keystr(path))
