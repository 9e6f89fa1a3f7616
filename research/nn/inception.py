"""Inception-v3 up to its last pooling: the network in whose features the Fréchet Inception distance is taken.

Szegedy et al. 2016 (arXiv:1512.00567), in the form of the weights of 2015-12-05 that Heusel et al. 2017
(arXiv:1706.08500) measure with: means over 3x3 squares leave the border out, and the last block takes the maximum
where the others take the mean. Batch norm is folded into the convolutions. Layers bear the names of PyTorch's port.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

SIDE = 299  # pixels of a picture's side

mean = functools.partial(nn.avg_pool, window_shape=(3, 3), padding='SAME', count_include_pad=False)
largest = functools.partial(nn.max_pool, window_shape=(3, 3), padding='SAME')
shrink = functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))

# A block is told `layer(name, width, kernel, x, stride=1)` and its input, and returns its branches.
Branches = list[Array]


def block_a(layer: Callable, x: Array, pool: int) -> Branches:
    """Returns 1x1, 5x5, two of 3x3, and a mean."""
    five = layer('branch5x5_2', 64, (5, 5), layer('branch5x5_1', 48, (1, 1), x))
    three = layer('branch3x3dbl_2', 96, (3, 3), layer('branch3x3dbl_1', 64, (1, 1), x))
    three = layer('branch3x3dbl_3', 96, (3, 3), three)
    return [layer('branch1x1', 64, (1, 1), x), five, three, layer('branch_pool', pool, (1, 1), mean(x))]


def block_b(layer: Callable, x: Array) -> Branches:
    """Returns a 3x3, two of 3x3, and a maximum, all at half the size."""
    three = layer('branch3x3dbl_2', 96, (3, 3), layer('branch3x3dbl_1', 64, (1, 1), x))
    three = layer('branch3x3dbl_3', 96, (3, 3), three, stride=2)
    return [layer('branch3x3', 384, (3, 3), x, stride=2), three, shrink(x)]


def block_c(layer: Callable, x: Array, inner: int) -> Branches:
    """Returns 1x1, a 7x7 in two parts, two of them, and a mean."""
    seven = layer('branch7x7_2', inner, (1, 7), layer('branch7x7_1', inner, (1, 1), x))
    seven = layer('branch7x7_3', 192, (7, 1), seven)
    twice = layer('branch7x7dbl_2', inner, (7, 1), layer('branch7x7dbl_1', inner, (1, 1), x))
    twice = layer('branch7x7dbl_4', inner, (7, 1), layer('branch7x7dbl_3', inner, (1, 7), twice))
    twice = layer('branch7x7dbl_5', 192, (1, 7), twice)
    return [layer('branch1x1', 192, (1, 1), x), seven, twice, layer('branch_pool', 192, (1, 1), mean(x))]


def block_d(layer: Callable, x: Array) -> Branches:
    """Returns a 3x3, a 7x7 in two parts with a 3x3, and a maximum, all at half the size."""
    three = layer('branch3x3_2', 320, (3, 3), layer('branch3x3_1', 192, (1, 1), x), stride=2)
    seven = layer('branch7x7x3_2', 192, (1, 7), layer('branch7x7x3_1', 192, (1, 1), x))
    seven = layer('branch7x7x3_4', 192, (3, 3), layer('branch7x7x3_3', 192, (7, 1), seven), stride=2)
    return [three, seven, shrink(x)]


def block_e(layer: Callable, x: Array, pool: Callable) -> Branches:
    """Returns 1x1, a 3x3 whose two parts lie side by side, one after a 3x3, and what `pool` gives."""
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
    'Mixed_7b': functools.partial(block_e, pool=mean),
    'Mixed_7c': functools.partial(block_e, pool=largest),
}


class InceptionV3(nn.Module):
    """Pictures of 299x299 (at least 75x75) in -1 to 1 to 2,048 features."""

    thinner: int = 1  # all widths are divided by it: 16 in tests

    @nn.compact
    def __call__(self, pictures: Float[Array, 'batch height width 3']) -> Float[Array, 'batch features']:
        """Returns the means over the last picture, before the classes."""

        def layer(name, width, kernel, x, stride=1, padding='SAME'):
            padding = 'VALID' if stride == 2 else padding
            conv = nn.Conv(width // self.thinner, kernel, stride, padding, precision='highest', name=name)
            return jax.nn.relu(conv(x))

        x = layer('Conv2d_1a_3x3', 32, (3, 3), pictures, stride=2)
        x = layer('Conv2d_2a_3x3', 32, (3, 3), x, padding='VALID')
        x = shrink(layer('Conv2d_2b_3x3', 64, (3, 3), x))
        x = layer('Conv2d_3b_1x1', 80, (1, 1), x)
        x = shrink(layer('Conv2d_4a_3x3', 192, (3, 3), x, padding='VALID'))
        for name, block in BLOCKS.items():
            inside = functools.partial(lambda name, part, *rest, **more: layer(f'{name}.{part}', *rest, **more), name)
            x = jnp.concatenate(block(inside, x), axis=-1)
        return jnp.mean(x, axis=(1, 2))
