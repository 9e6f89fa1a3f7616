"""Generators and discriminators: shapes, what the label does, and the tutorial's layer sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import UserError, unpack
from research.nn.apply import initialize, run
from research.nn.gan import ConvDiscriminator, ConvGenerator, MLPDiscriminator, MLPGenerator

SHAPE = (8, 8, 1)
PAIRS = {
    'mlp': (MLPGenerator(SHAPE, 3, (16,)), MLPDiscriminator(3, (16,))),
    'conv': (ConvGenerator(SHAPE, 3, (8, 4)), ConvDiscriminator(3, (4, 8))),
}


@pytest.mark.parametrize('pair', PAIRS)
def test_pictures_lie_in_the_range_of_tanh_and_the_label_matters(pair):
    generator, discriminator = PAIRS[pair]
    noise = jax.random.normal(jax.random.key(0), (1, 5)).repeat(3, 0)
    labels = jnp.array([0, 1, 1])
    params, collections = initialize(generator, jax.random.key(1), noise, labels)
    pictures, _ = run(generator, params, collections, noise, labels, train=False, key=None)
    assert pictures.shape == (3, *SHAPE) and np.abs(pictures).max() < 1
    np.testing.assert_allclose(pictures[1], pictures[2], atol=1e-6)
    assert not np.allclose(pictures[0], pictures[1])
    params, collections = initialize(discriminator, jax.random.key(2), pictures, labels)
    same = pictures[:1].repeat(3, 0)
    logits, _ = run(discriminator, params, collections, same, labels, train=False, key=None)
    assert logits.shape == (3,) and logits.dtype == jnp.float32
    assert logits[0] != logits[1] and np.isclose(logits[1], logits[2])


def test_projection_is_the_inner_product_with_an_embedding_of_the_label():
    discriminator = MLPDiscriminator(3, (6,), dropout=0.0)
    images, labels = np.random.default_rng(0).normal(size=(4, *SHAPE)), jnp.array([0, 1, 2, 1])
    params, _ = initialize(discriminator, jax.random.key(0), jnp.asarray(images), labels)
    logits, _ = run(discriminator, params, {}, jnp.float32(images), labels, train=False, key=None)
    layer, head = params['hidden_0'], params['head']
    features = images.reshape(4, -1) @ np.asarray(layer['kernel']) + np.asarray(layer['bias'])
    features = np.where(features > 0, features, 0.2 * features)
    expected = features @ np.asarray(head['kernel'])[:, 0] + np.asarray(head['bias'])
    expected += (np.asarray(params['label']['embedding'])[labels] * features).sum(-1)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_the_tutorials_pair_has_its_layer_sizes():
    def shapes(module, first):
        return jax.eval_shape(lambda: initialize(module, jax.random.key(0), first, jnp.zeros(1, jnp.int32)))[
            0
        ]

    generator = MLPGenerator((28, 28, 1), 0, (128, 256, 512, 1024))
    params = shapes(generator, jnp.zeros((1, 100)))
    kernels = [params[f'hidden_{n}']['kernel'].shape for n in range(4)] + [params['image']['kernel'].shape]
    assert kernels == [(100, 128), (128, 256), (256, 512), (512, 1024), (1024, 784)]
    discriminator = MLPDiscriminator(0, (1024, 512, 256))
    params = shapes(discriminator, jnp.zeros((1, 28, 28, 1)))
    kernels = [params[f'hidden_{n}']['kernel'].shape for n in range(3)] + [params['head']['kernel'].shape]
    assert kernels == [(784, 1024), (1024, 512), (512, 256), (256, 1)]
    assert set(params) == {'hidden_0', 'hidden_1', 'hidden_2', 'head'}


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match='does not lead to 6x6'):
        unpack(ConvGenerator, {'widths': (8, 8, 8)}, 'model.generator', shape=(6, 6, 1), classes=0)
    with pytest.raises(UserError, match='config.model.discriminator.dropout'):
        unpack(MLPDiscriminator, {'dropout': -0.1}, 'model.discriminator')
