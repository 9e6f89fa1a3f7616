"""Pictures of a batch mixed with each other on the device: mixup and CutMix, with targets to match.

Both are for training alone. A row's mixture depends on a second row, so a loss that uses them is no longer a sum
over rows by themselves.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


def partners(mask: Float[Array, 'batch']) -> Int[Array, 'batch']:
    """Returns for each row with mask 1 the next such row, for the last the first; a padding row is its own partner.

    A permutation. The rows of a batch come in random order, so that over the epochs each row meets all others.
    """
    real = mask > 0
    order = jnp.argsort(~real, stable=True)  # the real rows first, in their order
    rank, count = jnp.cumsum(real) - 1, jnp.sum(real)
    following = order[(rank + 1) % jnp.maximum(count, 1)]
    return jnp.where(real, following, jnp.arange(len(mask)))


def box(
    key: PRNGKeyArray, share: Float[Array, ''], height: int, width: int
) -> tuple[Bool[Array, 'height width'], Float[Array, '']]:
    """Returns which pixels lie in a box of 1 - `share` of the area, and the share outside after it is cut off.

    Its sides are those of the picture times sqrt(1 - share), its centre uniform, the parts beyond the picture lost
    (Yun et al. 2019, arXiv:1905.04899, equation 2).
    """
    size = jnp.array([height, width], jnp.float32)
    half = jnp.floor(size * jnp.sqrt(1 - share)) / 2
    middle = jax.random.uniform(key, (2,)) * size
    low, high = jnp.floor(jnp.maximum(middle - half, 0)), jnp.floor(jnp.minimum(middle + half, size))
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    inside = (rows >= low[0]) & (rows < high[0]) & (columns >= low[1]) & (columns < high[1])
    return inside, 1 - jnp.mean(inside.astype(jnp.float32))


def weights(
    key: PRNGKeyArray, height: int, width: int, mixup: float, cutmix: float
) -> tuple[Float[Array, 'height width'], Float[Array, '']]:
    """Returns how much of each pixel is a row's own, the rest its partner's, and how much of the target.

    With both alphas above 0, one of the two is chosen with equal chances.
    """
    choice, place, beta = jax.random.split(key, 3)
    alphas = jnp.array([mixup or 1.0, cutmix or 1.0])
    share, area = jax.random.beta(beta, alphas, alphas)
    inside, outside = box(place, area, height, width)
    smooth, cut = (jnp.full((height, width), share), share), (1 - inside.astype(jnp.float32), outside)
    if mixup and cutmix:
        chosen = jax.random.bernoulli(choice)
        return jax.tree.map(lambda one, other: jnp.where(chosen, one, other), smooth, cut)
    return smooth if mixup else cut


def mix(
    images: Float[Array, 'batch height width channels'],
    targets: Float[Array, 'batch classes'],
    mask: Float[Array, 'batch'],
    keys: PRNGKeyArray,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> tuple[Float[Array, 'batch height width channels'], Float[Array, 'batch classes']]:
    """Returns pictures and targets, each a mixture of a row and its partner; padding rows stay out of all others.

    mixup (Zhang et al. 2018, arXiv:1710.09412, equation 1): x = s x_i + (1 - s) x_j and y alike, s from
    Beta(alpha, alpha). CutMix (Yun et al. 2019, arXiv:1905.04899, equation 1): a box of the partner's picture, and
    of its target the box's share of the area. s and the box are drawn for each row, as against once a batch.

    Args:
      images: the rows' pictures.
      targets: their probabilities of the classes.
      mask: 1 for a real row, 0 for padding.
      keys: one for each row.
      mixup: its alpha; 0 for none.
      cutmix: likewise; with both, each row has one or the other.
    """
    if not (mixup or cutmix):
        return images, targets
    height, width = images.shape[1:3]
    draw = functools.partial(weights, height=height, width=width, mixup=mixup, cutmix=cutmix)
    own, share = jax.vmap(draw)(keys)
    other, own, share = partners(mask), own[..., None].astype(images.dtype), share[:, None]
    mixed = own * images + (1 - own) * images[other]
    return mixed, share * targets + (1 - share) * targets[other]


def mix_labelled(
    batch: Mapping[str, Any], key: PRNGKeyArray, classes: int, mixup: float = 0.0, cutmix: float = 0.0
) -> dict[str, Any]:
    """A batch with 'image' mixed by `mix`, and 'label' as probabilities [batch, classes].

    Args:
      batch: with 'image', 'label' (int), 'mask' and 'index', which each row's randomness follows from.
      key: of the step.
      classes: how many there are.
      mixup, cutmix: as of `mix`.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch['index'])
    targets = jax.nn.one_hot(batch['label'], classes)
    image, label = mix(batch['image'], targets, batch['mask'], keys, mixup, cutmix)
    return {**batch, 'image': image, 'label': label}
