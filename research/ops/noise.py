"""Noise of generators: drawn per example, optionally truncated or interpolated between two seeds."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

SAMPLE_LABEL = -1  # label of a request without one, which is then sampled
NO_INTERPOLATION = -1  # 'to' of a request without interpolation


def keys_of(batch: Mapping[str, Any], key: PRNGKeyArray) -> PRNGKeyArray:
    """Derives one key per row from its index and, for requests, its seed; independent of the batch."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch['index'])
    return jax.vmap(jax.random.fold_in)(keys, batch['seed']) if 'seed' in batch else keys


def per_example(batch: Mapping[str, Any], key: PRNGKeyArray, draw: Callable[[Any], Any]) -> Any:
    """Computes `draw(key)` for each row, with that row's key."""
    return jax.vmap(draw)(keys_of(batch, key))


def normal(key: PRNGKeyArray, size: int, truncation: float = 0.0) -> Float[Array, 'size']:
    """Draws standard normal noise; `truncation` above 0 restricts it to [-truncation, truncation].

    The truncation trick of Brock et al. 2019 (arXiv:1809.11096), section 3.1.
    """
    if truncation:
        return jax.random.truncated_normal(key, -truncation, truncation, (size,))
    return jax.random.normal(key, (size,))


def between(
    first: Float[Array, 'size'], second: Float[Array, 'size'], at: Float[Array, '']
) -> Float[Array, 'size']:
    """Interpolates spherically between two noise vectors, at share `at` of the arc.

    Linear interpolation would pass through vectors much shorter than normal samples (White 2016, arXiv:1609.04468,
    section 2.1).
    """
    lengths = jnp.linalg.norm(first), jnp.linalg.norm(second)
    cosine = jnp.clip(jnp.dot(first, second, precision='highest') / (lengths[0] * lengths[1]), -1, 1)
    angle = jnp.arccos(cosine)
    sine = jnp.sin(angle)
    parallel = sine < 1e-4
    safe = jnp.where(parallel, 1.0, sine)
    first_weight = jnp.where(parallel, 1 - at, jnp.sin((1 - at) * angle) / safe)
    second_weight = jnp.where(parallel, at, jnp.sin(at * angle) / safe)
    return first_weight * first + second_weight * second


def noise_of(
    batch: Mapping[str, Any], key: PRNGKeyArray, size: int, truncation: float = 0.0
) -> Float[Array, 'batch size']:
    """Draws noise for each row from its index and seed, independent of the batch.

    A request with a seed 'to' is interpolated at 'at' between two vectors that depend only on the two seeds.
    """

    def draw(key):
        return normal(key, size, truncation)

    independent = per_example(batch, key, draw)
    if 'to' not in batch:
        return independent

    def ends(seed: Int[Array, ''], to: Int[Array, ''], at: Float[Array, '']) -> Array:
        return between(draw(jax.random.fold_in(key, seed)), draw(jax.random.fold_in(key, to)), at)

    mixed = jax.vmap(ends)(batch['seed'], batch['to'], batch['at'])
    return jnp.where((batch['to'] == NO_INTERPOLATION)[:, None], independent, mixed)


def labels_of(batch: Any, key: jax.Array, probability: np.ndarray) -> Int[Array, 'batch']:
    """Labels of a batch; missing ones are sampled with the class frequencies of the training split."""
    drawn = per_example(batch, key, lambda row_key: jax.random.categorical(row_key, jnp.log(probability)))
    return jnp.where(batch['label'] == SAMPLE_LABEL, drawn, batch['label'])
