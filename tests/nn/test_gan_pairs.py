"""The deep pairs: shapes, what the label does, and what they compute, by hand and by other layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.errors import UserError, unpack
from research.nn.apply import initialize, run
from research.nn.dcgan import DCGANDiscriminator, DCGANGenerator, Doubling
from research.nn.sngan import ConvSNDiscriminator, ResNetDiscriminator, ResNetGenerator

PAIRS = {
    'dcgan': (lambda shape: DCGANGenerator(shape, 3, (4, 4)), DCGANDiscriminator(3, (4, 4))),
    'sngan': (lambda shape: DCGANGenerator(shape, 3, (4, 4)), ConvSNDiscriminator(3, (4, 4))),
    'resnet': (lambda shape: ResNetGenerator(shape, 3, (4, 4, 4)), ResNetDiscriminator(3, (4, 4), 2)),
}


@pytest.mark.parametrize('pair', PAIRS)
@pytest.mark.slow
def test_pictures_lie_in_the_range_of_tanh_and_the_label_matters(pair):
    make, discriminator = PAIRS[pair]
    generator = make((8, 8, 1))
    noise, labels = jnp.ones((3, 5)) / 2, jnp.array([0, 1, 1])

    @jax.jit
    def both(key):
        params, collections = initialize(generator, key, noise, labels)
        # scales of all classes begin alike: without this step nothing would tell the classes apart
        params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(key, leaf.shape), params)
        pictures, _ = run(generator, params, collections, noise, labels, train=False, key=None)
        params, collections = initialize(discriminator, key, pictures, labels)
        same = pictures[:1].repeat(3, 0)
        logits, _ = run(discriminator, params, collections, same, labels, train=False, key=None)
        return pictures, logits

    pictures, logits = both(jax.random.key(0))
    assert pictures.shape == (3, 8, 8, 1) and np.abs(pictures).max() < 1
    np.testing.assert_allclose(pictures[1], pictures[2], atol=1e-6)
    assert not np.allclose(pictures[0], pictures[1])
    assert logits.shape == (3,) and logits.dtype == jnp.float32
    assert logits[0] != logits[1] and np.isclose(logits[1], logits[2])


@pytest.mark.parametrize('size', [28, 32, 64])
@pytest.mark.parametrize('pair', PAIRS)
def test_sizes_of_pictures_and_where_state_is_kept(pair, size):
    make, discriminator = PAIRS[pair]
    generator, labels = make((size, size, 3)), jnp.zeros(2, jnp.int32)

    def shapes(module, first):
        def both():
            params, collections = initialize(module, jax.random.key(0), first, labels)
            return collections, run(module, params, collections, first, labels, train=True, key=jax.random.key(0))[0]

        return jax.eval_shape(both)

    collections, pictures = shapes(generator, jnp.zeros((2, 5)))
    assert pictures.shape == (2, size, size, 3) and set(collections) == {'batch_stats'}
    collections, logits = shapes(discriminator, jnp.zeros((2, size, size, 3)))
    assert logits.shape == (2,)
    assert set(collections) == {'batch_stats' if pair == 'dcgan' else 'spectral'}


@pytest.mark.slow
def test_doubling_is_the_transposed_convolution_with_its_parameters_and_gradients():
    picture = jax.random.normal(jax.random.key(0), (3, 7, 5, 6))
    ours = Doubling(4)
    other = nn.ConvTranspose(4, (4, 4), strides=(2, 2), kernel_init=nn.initializers.normal(0.02))
    params = ours.init(jax.random.key(1), picture)
    jax.tree.map(np.testing.assert_array_equal, params, other.init(jax.random.key(1), picture))
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)

    def value_and_slopes(module):
        def total(params, picture):
            doubled = module.apply(params, picture)
            return jnp.sum(jnp.sin(doubled)), doubled

        return jax.value_and_grad(total, (0, 1), has_aux=True)(params, picture)

    found, expected = value_and_slopes(ours), value_and_slopes(other)
    assert found[0][1].shape == (3, 14, 10, 4)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4), found, expected)


@pytest.mark.slow
def test_convolutional_score_by_hand():
    discriminator = ConvSNDiscriminator(3, (4, 5))
    images, labels = jnp.float32(np.random.default_rng(0).normal(size=(4, 8, 8, 1))), jnp.array([0, 1, 2, 1])
    params, collections = initialize(discriminator, jax.random.key(0), images, labels)
    logits, _ = run(discriminator, params, collections, images, labels, train=False, key=None)
    hidden = np.float64(images)

    def divided(name, leaf='kernel'):
        kernel, right = np.float64(params[name][leaf]), np.float64(collections['spectral'][name]['right'])
        matrix = kernel.reshape(-1, kernel.shape[-1])
        left = matrix @ right / np.linalg.norm(matrix @ right)
        return kernel / np.linalg.norm(left @ matrix)  # the right direction after one more iteration

    for name, stride in (('conv_0', 2), ('conv_1', 2), ('conv_last', 1)):
        kernel = divided(name)
        padded = np.pad(hidden, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
        hidden = np.einsum('bhwcij,ijco->bhwo', windows, kernel) + params[name]['bias']
        hidden = np.where(hidden > 0, hidden, 0.1 * hidden)
    features = hidden.reshape(4, -1)
    expected = (features @ divided('head'))[:, 0] + params['head']['bias']
    expected += (divided('label', 'embedding')[labels] * features).sum(-1)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_score_is_the_sum_over_pixels_and_the_projection_on_the_label():
    discriminator = ResNetDiscriminator(3, (4,), 1, spectral=False)
    images, labels = jnp.float32(np.random.default_rng(0).normal(size=(4, 8, 8, 1))), jnp.array([0, 1, 2, 1])
    params, _ = initialize(discriminator, jax.random.key(0), images, labels)
    logits, _ = run(discriminator, params, {}, images, labels, train=False, key=None)
    block = params['block_0']

    def conv(x, name):
        kernel = block[name]['kernel']
        padded = np.pad(x, ((0, 0), *[(kernel.shape[0] // 2,) * 2] * 2, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], (1, 2))
        return np.einsum('bhwcij,ijco->bhwo', windows, kernel) + block[name]['bias']

    def halve(x):
        return x.reshape(4, 4, 2, 4, 2, -1).mean((2, 4))

    x = np.float64(images)
    inner = conv(np.maximum(conv(x, 'conv_0'), 0), 'conv_1')
    features = np.maximum(halve(inner) + conv(halve(x), 'conv_shortcut'), 0).sum((1, 2))
    expected = (features @ params['head']['kernel'])[:, 0] + params['head']['bias']
    expected += (np.asarray(params['label']['embedding'])[labels] * features).sum(-1)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_impossible_settings_are_refused():
    for maker in (DCGANGenerator, ResNetGenerator):
        with pytest.raises(UserError, match='does not lead to 6x6'):
            unpack(maker, {'widths': (8, 8, 8)}, 'model.generator', shape=(6, 6, 1), classes=0)
    with pytest.raises(UserError, match='config.model.discriminator.widths'):
        unpack(ResNetDiscriminator, {'widths': (0,)}, 'model.discriminator')
