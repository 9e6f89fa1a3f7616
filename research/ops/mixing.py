"""mixup and CutMix of the images of a batch, on the device, with matching targets.

Both are for training only. A mixture depends on two rows, so the loss is no longer a sum over independent rows.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


def partners(mask: Float[Array, 'batch']) -> Int[Array, 'batch']:
    """Permutes the rows with mask 1 cyclically, to the next such row; a padding row is its own partner.

    Batches are shuffled, so over the epochs each row is paired with all others.
    """
    real = mask > 0
    order = jnp.argsort(~real, stable=True)  # the real rows first, in their order
    rank = jnp.cumsum(real) - 1
    count = jnp.sum(real)
    following = order[(rank + 1) % jnp.maximum(count, 1)]
    return jnp.where(real, following, jnp.arange(len(mask)))


def box(
    key: PRNGKeyArray, share: Float[Array, ''], height: int, width: int
) -> tuple[Bool[Array, 'height width'], Float[Array, '']]:
    """Draws a box of 1 - `share` of the area; returns its pixels, and the share outside after clipping.

    Its sides are those of the image times sqrt(1 - share), its centre is uniform, and it is clipped to the image
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
    """Draws the weight of a row in each pixel and in the target; the rest is its partner's.

    With both alphas above 0, one of the two methods is chosen with equal probability.
    """
    choice, box_key, beta = jax.random.split(key, 3)
    alphas = jnp.array([mixup or 1.0, cutmix or 1.0])
    share, area = jax.random.beta(beta, alphas, alphas)
    inside, outside = box(box_key, area, height, width)
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
    """Mixes the image and target of each row with those of its partner; padding rows are not mixed in.

    mixup (Zhang et al. 2018, arXiv:1710.09412, equation 1): x = s x_i + (1 - s) x_j and the same for y, with s from
    Beta(alpha, alpha). CutMix (Yun et al. 2019, arXiv:1905.04899, equation 1): a box of the partner's image, with its
    target weighted by the box's area. s and the box are drawn per row, not per batch.

    Args:
      images: one per row.
      targets: class probabilities.
      mask: 1 for a real row, 0 for padding.
      keys: one per row.
      mixup: alpha; 0: off.
      cutmix: alpha; 0: off. With both, each row uses one or the other.
    """
    if not (mixup or cutmix):
        return images, targets
    height, width = images.shape[1:3]
    draw = functools.partial(weights, height=height, width=width, mixup=mixup, cutmix=cutmix)
    pixels, share = jax.vmap(draw)(keys)
    pixels, share = pixels[..., None].astype(images.dtype), share[:, None]
    partner = partners(mask)
    mixed = pixels * images + (1 - pixels) * images[partner]
    return mixed, share * targets + (1 - share) * targets[partner]


def mix_labelled(
    batch: Mapping[str, Any], key: PRNGKeyArray, classes: int, mixup: float = 0.0, cutmix: float = 0.0
) -> dict[str, Any]:
    """Mixes a batch by `mix`; 'label' becomes probabilities [batch, classes].

    Args:
      batch: 'image', 'label' (int), 'mask', and 'index', which seeds each row's randomness.
      key: of the step.
      classes: number of classes.
      mixup, cutmix: as in `mix`.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch['index'])
    targets = jax.nn.one_hot(batch['label'], classes)
    image, label = mix(batch['image'], targets, batch['mask'], keys, mixup, cutmix)
    return {**batch, 'image': image, 'label': label}
