"""Inception-v3 up to its last pooling, whose features define the Fréchet Inception distance.

Szegedy et al. 2016 (arXiv:1512.00567), in the variant of the 2015-12-05 weights that Heusel et al. 2017
(arXiv:1706.08500) use: 3x3 average pooling excludes the padding, and the last block has max pooling where the
others have average pooling. Batch norm is folded into the convolutions. Layers have the names of PyTorch's port.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

SIDE = 299  # pixels

average_pool = functools.partial(nn.avg_pool, window_shape=(3, 3), padding='SAME', count_include_pad=False)
max_pool = functools.partial(nn.max_pool, window_shape=(3, 3), padding='SAME')
downsample = functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))

# A block gets `layer(name, width, kernel, x, stride=1)` and its input, and returns its branches.
Branches = list[Array]


def block_a(layer: Callable, x: Array, pool: int) -> Branches:
    """Branches: 1x1; 5x5; two 3x3; average pooling."""
    five = layer('branch5x5_2', 64, (5, 5), layer('branch5x5_1', 48, (1, 1), x))
    three = layer('branch3x3dbl_2', 96, (3, 3), layer('branch3x3dbl_1', 64, (1, 1), x))
    three = layer('branch3x3dbl_3', 96, (3, 3), three)
    return [layer('branch1x1', 64, (1, 1), x), five, three, layer('branch_pool', pool, (1, 1), average_pool(x))]


def block_b(layer: Callable, x: Array) -> Branches:
    """Branches at half the size: 3x3; two 3x3; max pooling."""
    three = layer('branch3x3dbl_2', 96, (3, 3), layer('branch3x3dbl_1', 64, (1, 1), x))
    three = layer('branch3x3dbl_3', 96, (3, 3), three, stride=2)
    return [layer('branch3x3', 384, (3, 3), x, stride=2), three, downsample(x)]


def block_c(layer: Callable, x: Array, inner: int) -> Branches:
    """Branches: 1x1; a factorized 7x7; two factorized 7x7; average pooling."""
    seven = layer('branch7x7_2', inner, (1, 7), layer('branch7x7_1', inner, (1, 1), x))
    seven = layer('branch7x7_3', 192, (7, 1), seven)
    twice = layer('branch7x7dbl_2', inner, (7, 1), layer('branch7x7dbl_1', inner, (1, 1), x))
    twice = layer('branch7x7dbl_4', inner, (7, 1), layer('branch7x7dbl_3', inner, (1, 7), twice))
    twice = layer('branch7x7dbl_5', 192, (1, 7), twice)
    return [layer('branch1x1', 192, (1, 1), x), seven, twice, layer('branch_pool', 192, (1, 1), average_pool(x))]


def block_d(layer: Callable, x: Array) -> Branches:
    """Branches at half the size: 3x3; a factorized 7x7 and 3x3; max pooling."""
    three = layer('branch3x3_2', 320, (3, 3), layer('branch3x3_1', 192, (1, 1), x), stride=2)
    seven = layer('branch7x7x3_2', 192, (1, 7), layer('branch7x7x3_1', 192, (1, 1), x))
    seven = layer('branch7x7x3_4', 192, (3, 3), layer('branch7x7x3_3', 192, (7, 1), seven), stride=2)
    return [three, seven, downsample(x)]


def block_e(layer: Callable, x: Array, pool: Callable) -> Branches:
    """Branches: 1x1; 1x3 and 3x1 in parallel; 3x3, then 1x3 and 3x1 in parallel; `pool`."""
    three = layer('branch3x3_1', 384, (1, 1), x)
    double = layer('branch3x3dbl_2', 384, (3, 3), layer('branch3x3dbl_1', 448, (1, 1), x))
    halves = [
        layer(f'branch3x3{name}', 384, kernel, before)
        for before, names in ((three, ('_2a', '_2b')), (double, ('dbl_3a', 'dbl_3b')))
        for name, kernel in zip(names, ((1, 3), (3, 1)), strict=True)
    ]
    return [layer('branch1x1', 320, (1, 1), x), *halves, layer('branch_pool', 192, (1, 1), pool(x))]


BLOCKS = {
    'Mixed_5b': functools.partial(block_a, pool=32),
    'Mixed_5c': functools.partial(block_a, pool=64),
    'Mixed_5d': functools.partial(block_a, pool=64),
    'Mixed_6a': block_b,
    'Mixed_6b': functools.partial(block_c, inner=128),
    'Mixed_6c': functools.partial(block_c, inner=160),
    'Mixed_6d': functools.partial(block_c, inner=160),
    'Mixed_6e': functools.partial(block_c, inner=192),
    'Mixed_7a': block_d,
    'Mixed_7b': functools.partial(block_e, pool=average_pool),
    'Mixed_7c': functools.partial(block_e, pool=max_pool),
}


class InceptionV3(nn.Module):
    """Maps images in [-1, 1], 299x299 pixels (at least 75x75), to 2,048 features."""

    thinner: int = 1  # divisor of all widths; 16 in tests

    @nn.compact
    def __call__(self, pictures: Float[Array, 'batch height width 3']) -> Float[Array, 'batch features']:
        """Computes the globally averaged features, the input of the original classifier."""

        def layer(name, width, kernel, x, stride=1, padding='SAME'):
            padding = 'VALID' if stride == 2 else padding
            conv = nn.Conv(width // self.thinner, kernel, stride, padding, precision='highest', name=name)
            return jax.nn.relu(conv(x))

        x = layer('Conv2d_1a_3x3', 32, (3, 3), pictures, stride=2)
        x = layer('Conv2d_2a_3x3', 32, (3, 3), x, padding='VALID')
        x = downsample(layer('Conv2d_2b_3x3', 64, (3, 3), x))
        x = layer('Conv2d_3b_1x1', 80, (1, 1), x)
        x = downsample(layer('Conv2d_4a_3x3', 192, (3, 3), x, padding='VALID'))
        for name, block in BLOCKS.items():
            inside = functools.partial(lambda name, part, *rest, **more: layer(f'{name}.{part}', *rest, **more), name)
            x = jnp.concatenate(block(inside, x), axis=-1)
        return jnp.mean(x, axis=(1, 2))
