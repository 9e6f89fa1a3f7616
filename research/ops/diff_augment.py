"""Differentiable augmentation of the images, real and generated, that a GAN's discriminator sees.

Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training" (arXiv:2006.10738), section 3.3, with
its strengths: brightness +-0.5, saturation 0 to 2, contrast 0.5 to 1.5; translation by up to 1/8 of a side; a
cutout of half a side. Images are in [-1, 1]; new pixels and cutouts are 0.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from research.errors import choose

MAX_SHIFT_SHARE = 1 / 8  # of a side
CUTOUT_SHARE = 1 / 2  # of a side
Image = Float[Array, 'height width channels']


def color(key: PRNGKeyArray, image: Image) -> Image:
    """Changes brightness, saturation (no effect on grey images) and contrast."""
    brightness, saturation, contrast = jax.random.uniform(key, (3,))
    image = image + brightness - 0.5
    grey = jnp.mean(image, axis=-1, keepdims=True)
    image = grey + (image - grey) * saturation * 2
    mean = jnp.mean(image)
    return mean + (image - mean) * (contrast + 0.5)


def translation(key: PRNGKeyArray, image: Image) -> Image:
    """Shifts the image by up to an eighth of each side."""
    for axis, axis_key in enumerate(jax.random.split(key)):
        size = image.shape[axis]
        max_shift = int(size * MAX_SHIFT_SHARE + 0.5)
        shift = jax.random.randint(axis_key, (), -max_shift, max_shift + 1)
        # A product with a shifted identity is differentiable, and the partitioner can shard it.
        identity = jax.nn.one_hot(jnp.arange(size) - shift, size, dtype=image.dtype)
        moved = jnp.tensordot(identity, image, (1, axis), precision='highest')
        image = jnp.moveaxis(moved, 0, axis)
    return image


def cutout(key: PRNGKeyArray, image: Image) -> Image:
    """Zeroes a rectangle of half the sides with a random centre."""
    inside = jnp.ones((1, 1), bool)
    for axis, axis_key in enumerate(jax.random.split(key)):
        size = image.shape[axis]
        hole = int(size * CUTOUT_SHARE + 0.5)
        start = jax.random.randint(axis_key, (), 0, size + (1 - hole % 2)) - hole // 2
        pixel = jnp.arange(size)
        inside = inside & jnp.expand_dims((pixel >= start) & (pixel < start + hole), 1 - axis)
    return image * (1 - inside[..., None].astype(image.dtype))


def make_augment(names: Sequence[str]) -> Callable[[PRNGKeyArray, Image], Image]:
    """Composes the named augmentations to `augment(key, image)`; the identity for ().

    Raises:
      UserError: for an unknown name.
    """
    changes = [
        choose(name, {'color': color, 'translation': translation, 'cutout': cutout}, 'augment')
        for name in names
    ]

    def augment(key: PRNGKeyArray, image: Image) -> Image:
        for number, change in enumerate(changes):
            image = change(jax.random.fold_in(key, number), image)
        return image

    return augment
