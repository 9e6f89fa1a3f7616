"""What a generator draws from: noise of its own for each example, cut off or between two others."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

DRAW = -1  # the label of a request that has none: one is drawn
ALONE = -1  # the 'to' of a request that lies between no two


def keys_of(batch: Mapping[str, Any], key: PRNGKeyArray) -> PRNGKeyArray:
    """Returns a key for each row, from its index and, in a request, its seed: not from the batch it is in."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch['index'])
    return jax.vmap(jax.random.fold_in)(keys, batch['seed']) if 'seed' in batch else keys


def per_example(batch: Mapping[str, Any], key: PRNGKeyArray, draw: Callable[[Any], Any]) -> Any:
    """Returns `draw(key)` for each row, with a key of its own."""
    return jax.vmap(draw)(keys_of(batch, key))


def normal(key: PRNGKeyArray, size: int, truncation: float = 0.0) -> Float[Array, 'size']:
    """Returns standard normal noise; with `truncation` above 0, values beyond it in size were drawn anew.

    The truncation trick of Brock et al. 2019 (arXiv:1809.11096), section 3.1.
    """
    if truncation:
        return jax.random.truncated_normal(key, -truncation, truncation, (size,))
    return jax.random.normal(key, (size,))


def between(
    first: Float[Array, 'size'], second: Float[Array, 'size'], at: Float[Array, '']
) -> Float[Array, 'size']:
    """Returns the point at share `at` of the arc from one noise to another, its length between theirs.

    Spherical interpolation: the straight line between two normal draws is shorter in its middle than any draw
    is (White 2016, arXiv:1609.04468, section 2.1).
    """
    lengths = jnp.linalg.norm(first), jnp.linalg.norm(second)
    cosine = jnp.clip(jnp.dot(first, second, precision='highest') / (lengths[0] * lengths[1]), -1, 1)
    angle = jnp.arccos(cosine)
    sine = jnp.sin(angle)
    alike = sine < 1e-4
    safe = jnp.where(alike, 1.0, sine)
    near = jnp.where(alike, 1 - at, jnp.sin((1 - at) * angle) / safe)
    far = jnp.where(alike, at, jnp.sin(at * angle) / safe)
    return near * first + far * second


def noise_of(
    batch: Mapping[str, Any], key: PRNGKeyArray, size: int, truncation: float = 0.0
) -> Float[Array, 'batch size']:
    """Returns noise for each row; it depends on the row's index and seed, not on the batch it is in.

    A request with a seed 'to' lies at the share 'at' of the way between two noises that depend on the seeds
    alone.
    """

    def draw(key):
        return normal(key, size, truncation)

    own = per_example(batch, key, draw)
    if 'to' not in batch:
        return own

    def ends(seed: Int[Array, ''], to: Int[Array, ''], at: Float[Array, '']) -> Array:
        return between(draw(jax.random.fold_in(key, seed)), draw(jax.random.fold_in(key, to)), at)

    mixed = jax.vmap(ends)(batch['seed'], batch['to'], batch['at'])
    return jnp.where((batch['to'] == ALONE)[:, None], own, mixed)


def labels_of(batch: Any, key: jax.Array, probability: np.ndarray) -> Int[Array, 'batch']:
    """Returns the labels of a batch; one that is missing is drawn, as often as in the training split."""
    drawn = per_example(batch, key, lambda each: jax.random.categorical(each, jnp.log(probability)))
    return jnp.where(batch['label'] == DRAW, drawn, batch['label'])
