"""The residual network: known sizes, norms, stacked blocks, and the same numbers on eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.errors import UserError, unpack
from research.nn.apply import initialize, run
from research.nn.resnet import ResNet, normalize
from research.ops.paths import flatten_paths

pytestmark = pytest.mark.slow  # compiles many models

SMALL = {'widths': (4,), 'depths': (3,)}


def sizes(model, shape):
    """Returns the number of parameters and the shape of the scores, without computing anything."""
    variables = jax.eval_shape(lambda: initialize(model, jax.random.key(0), jnp.zeros((2, *shape))))
    params, collections = variables
    scores = jax.eval_shape(
        lambda p, c: run(model, p, c, jnp.zeros((2, *shape)), train=True, key=jax.random.key(0))[0],
        params,
        collections,
    )
    return sum(leaf.size for leaf in jax.tree.leaves(params)), scores.shape


@pytest.mark.parametrize(('settings', 'shape', 'classes', 'parameters'), [
    # He et al. 2016, table 6 (0.27 M), with 1x1 convolutions on the two shortcuts that change shape.
    ({'widths': (16, 32, 64), 'depths': (3, 3, 3)}, (32, 32, 3), 10, 272_474),
    # The same table: 0.46 M and 0.85 M.
    ({'widths': (16, 32, 64), 'depths': (5, 5, 5)}, (32, 32, 3), 10, 466_906),
    ({'widths': (16, 32, 64), 'depths': (9, 9, 9)}, (32, 32, 3), 10, 855_770),
    # The sizes of torchvision's resnet18, resnet34 and resnet50.
    ({'widths': (64, 128, 256, 512), 'depths': (2, 2, 2, 2), 'stem': 'large'},
     (224, 224, 3), 1000, 11_689_512),
    ({'widths': (64, 128, 256, 512), 'depths': (3, 4, 6, 3), 'stem': 'large'}, (224, 224, 3), 1000, 21_797_672),
    ({'widths': (256, 512, 1024, 2048), 'depths': (3, 4, 6, 3), 'stem': 'large', 'bottleneck': True},
     (224, 224, 3), 1000, 25_557_032),
])  # fmt: skip
def test_known_networks_have_their_known_size(settings, shape, classes, parameters):
    assert sizes(ResNet(classes, **settings), shape) == (parameters, (2, classes))


def test_repeated_blocks_are_stacked_and_unrolling_changes_nothing():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)
    model = ResNet(3, **SMALL)
    params, collections = initialize(model, jax.random.key(0), images)
    stacked = {
        path: leaf.shape for path, leaf in flatten_paths(params).items() if 'blocks' in path.split('/')
    }
    assert stacked['stage_0/blocks/conv_0/kernel'] == (2, 3, 3, 4, 4)
    assert all(shape[0] == 2 for shape in stacked.values())
    first, second = params['stage_0']['blocks']['conv_0']['kernel']
    assert not np.array_equal(first, second)  # each layer starts from a key of its own
    unrolled = ResNet(3, **SMALL, unroll=2)
    one, _ = run(model, params, collections, images, train=True, key=jax.random.key(0))
    two, _ = run(unrolled, params, collections, images, train=True, key=jax.random.key(0))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_the_stem_of_stride_two_halves_the_picture():
    model = ResNet(3, widths=(4,), depths=(1,), stem='half')
    _, kept = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), capture_intermediates=True)
    )
    assert kept['params']['stem_conv']['kernel'].shape == (5, 5, 1, 4)
    assert kept['intermediates']['stem_conv']['__call__'][0].shape == (1, 14, 14, 4)


def test_zero_init_makes_every_block_the_identity_at_first():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)
    scores = []
    for depth in (1, 2):
        model = ResNet(3, widths=(4,), depths=(depth,), zero_init=True)
        params, collections = initialize(model, jax.random.key(0), images)
        scores.append(run(model, params, collections, images, train=False, key=None)[0])
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)


def test_batch_norm_uses_and_keeps_statistics_of_the_batch():
    from flax import linen as nn

    class Norm(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return normalize(x, 'norm', 'batch', 8, train, 'float32')

    x = np.random.default_rng(0).normal(3, 2, size=(16, 4, 4, 5)).astype(np.float32)
    params, collections = initialize(Norm(), jax.random.key(0), jnp.asarray(x))
    y, changed = run(Norm(), params, collections, x, train=True, key=jax.random.key(0))
    mean, variance = x.mean((0, 1, 2), dtype=np.float64), x.var((0, 1, 2), dtype=np.float64)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), rtol=1e-4, atol=1e-4)
    kept = changed['batch_stats']['norm']
    np.testing.assert_allclose(kept['mean'], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(kept['var'], 0.9 + 0.1 * variance, rtol=1e-4)
    still, same = run(Norm(), params, changed, x, train=False, key=None)
    assert same is changed
    np.testing.assert_allclose(still, (x - kept['mean']) / np.sqrt(kept['var'] + 1e-5), rtol=1e-4, atol=1e-4)


def test_group_norm_has_no_statistics_and_treats_every_example_by_itself():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 1)), jnp.float32)
    model = ResNet(3, **SMALL, norm='group')
    params, collections = initialize(model, jax.random.key(0), images)
    assert collections == {}
    together, _ = run(model, params, {}, images, train=True, key=jax.random.key(0))
    alone, _ = run(model, params, {}, images[:1], train=True, key=jax.random.key(0))
    np.testing.assert_allclose(together[:1], alone, rtol=1e-4, atol=1e-5)


def test_a_sharded_batch_gives_the_gradients_and_statistics_of_one_device():
    images = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype(np.float32)
    model = ResNet(3, **SMALL)
    params, collections = initialize(model, jax.random.key(0), jnp.asarray(images))

    @jax.jit
    def gradient(params, images):
        def loss(params):
            scores, changed = run(model, params, collections, images, train=True, key=jax.random.key(0))
            return jnp.sum(jax.nn.logsumexp(scores, -1) - scores[:, 0]) / len(images), changed

        return jax.grad(loss, has_aux=True)(params)

    single = gradient(params, jnp.asarray(images))
    mesh = jax.make_mesh((4, 2), ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        placed = jax.device_put(images, NamedSharding(mesh, PartitionSpec(('data', 'fsdp'))))
        sharded = gradient(jax.device_put(params, NamedSharding(mesh, PartitionSpec())), placed)
    assert len(placed.sharding.device_set) == 8
    for (path, one), eight in zip(
        jax.tree_util.tree_leaves_with_path(single), jax.tree.leaves(sharded), strict=True
    ):
        np.testing.assert_allclose(one, eight, rtol=1e-4, atol=1e-5, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(('settings', 'message'), [
    ({'widths': (8, 16), 'depths': (1,)}, 'both per stage'),
    ({'widths': (6,), 'depths': (1,), 'bottleneck': True}, 'multiples of 4'),
    ({'depths': (1, 0, 1)}, 'depths must be above zero'),
    ({'groups': 0}, 'groups must be above zero'),
    ({'norm': 'bach'}, "'batch'"),
])  # fmt: skip
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        unpack(ResNet, settings, 'model', classes=3)
