"""Changes of pictures that a GAN's discriminator sees, real and fake alike, through which gradients flow.

Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training" (arXiv:2006.10738), section 3.3
and its strengths: brightness +-0.5, saturation 0 to 2, contrast 0.5 to 1.5; moves by up to 1/8 of a side; a
hole of half a side. Pictures are in [-1, 1]; what appears, and the hole, is 0, the middle of the range.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from research.errors import choose

MOVE, HOLE = 1 / 8, 1 / 2  # shares of a side
Picture = Float[Array, 'height width channels']


def color(key: PRNGKeyArray, picture: Picture) -> Picture:
    """Returns the picture with another brightness, saturation (nothing where it is grey) and contrast."""
    brightness, saturation, contrast = jax.random.uniform(key, (3,))
    picture = picture + brightness - 0.5
    grey = jnp.mean(picture, axis=-1, keepdims=True)
    picture = grey + (picture - grey) * saturation * 2
    mean = jnp.mean(picture)
    return mean + (picture - mean) * (contrast + 0.5)


def translation(key: PRNGKeyArray, picture: Picture) -> Picture:
    """Returns the picture moved by up to an eighth of each side."""
    for axis, own in enumerate(jax.random.split(key)):
        size = picture.shape[axis]
        most = int(size * MOVE + 0.5)
        by = jax.random.randint(own, (), -most, most + 1)
        # A product with a shifted identity: it has a gradient, and the compiler can split it over devices.
        places = jax.nn.one_hot(jnp.arange(size) - by, size, dtype=picture.dtype)
        moved = jnp.tensordot(places, picture, (1, axis), precision='highest')
        picture = jnp.moveaxis(moved, 0, axis)
    return picture


def cutout(key: PRNGKeyArray, picture: Picture) -> Picture:
    """Returns the picture with a hole of half its sides, whose middle may lie anywhere."""
    inside = jnp.ones((1, 1), bool)
    for axis, own in enumerate(jax.random.split(key)):
        size = picture.shape[axis]
        hole = int(size * HOLE + 0.5)
        start = jax.random.randint(own, (), 0, size + (1 - hole % 2)) - hole // 2
        place = jnp.arange(size)
        inside = inside & jnp.expand_dims((place >= start) & (place < start + hole), 1 - axis)
    return picture * (1 - inside[..., None].astype(picture.dtype))


def make_augment(names: Sequence[str]) -> Callable[[PRNGKeyArray, Picture], Picture]:
    """Returns `augment(key, picture)`, the named changes one after the other; the picture itself for ().

    Raises:
      UserError: for an unknown name.
    """
    changes = [
        choose(name, {'color': color, 'translation': translation, 'cutout': cutout}, 'config.task.augment')
        for name in names
    ]

    def augment(key: PRNGKeyArray, picture: Picture) -> Picture:
        for number, change in enumerate(changes):
            picture = change(jax.random.fold_in(key, number), picture)
        return picture

    return augment
