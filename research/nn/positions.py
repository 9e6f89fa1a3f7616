"""Position encodings: rotary angles, sinusoids, and T5's relative position buckets."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def angles(positions: Int[Array, '*shape'], width: int, base: float) -> Float[Array, '*shape half']:
    """Rotary angles position / base ** (2 i / width) in radians for i below width / 2, float32."""
    return positions[..., None].astype(jnp.float32) * frequencies(width, base)


def frequencies(width: int, base: float) -> Float[Array, 'half']:
    """Frequencies base ** (-2 i / width) in radians per position for i below width / 2, float32."""
    return base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)


def stretch(
    turns: Float[Array, 'half'], factor: float, low: float, high: float, length: int
) -> Float[Array, 'half']:
    """Scales rotary frequencies for contexts longer than the `length` positions of pretraining.

    Llama 3.1 (Grattafiori et al. 2024, arXiv:2407.21783, section 3.2): frequencies with more than `high` periods
    in `length` positions are kept, those with fewer than `low` are divided by `factor`, and those between are
    interpolated linearly in the number of periods.
    """
    periods = length * turns / (2 * math.pi)
    kept = jnp.clip((periods - low) / (high - low), 0.0, 1.0)
    return kept * turns + (1 - kept) * turns / factor


def rotate(
    heads: Float[Array, 'batch length heads width'], turns: Float[Array, '#batch length half']
) -> Float[Array, 'batch length heads width']:
    """Applies rotary embeddings to queries or keys: rotates features i and i + width / 2 by angle i.

    Su et al. 2021 (arXiv:2104.09864), equation 34, with the feature pairs of Llama's weights.
    """
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    cosine, sine = jnp.cos(turns)[:, :, None], jnp.sin(turns)[:, :, None]
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(heads.dtype)


def sinusoids(
    positions: Int[Array, '*shape'], width: int, halves: bool = False
) -> Float[Array, '*shape width']:
    """Sinusoidal embeddings: sines in even features, cosines in odd ones; with `halves`, in the two halves.

    Vaswani et al. 2017 (arXiv:1706.03762), section 3.5; their code and Marian's use halves.
    """
    turns = angles(positions, width, 10000.0)
    return jnp.stack([jnp.sin(turns), jnp.cos(turns)], axis=-2 if halves else -1).reshape(
        *positions.shape, width
    )


def buckets(distances: Int[np.ndarray, '*shape'], both_ways: bool, count: int, max_distance: int) -> np.ndarray:
    """Assigns each distance (key minus query) to one of `count` buckets: T5's relative positions.

    Raffel et al. 2020 (arXiv:1910.10683), section 2.1: half of the buckets hold one distance each; the others grow
    logarithmically up to `max_distance`, and the last one also holds all larger distances. With `both_ways`, half
    of all buckets are for keys after the query; otherwise such keys are in bucket 0.
    """
    start = np.zeros_like(distances)
    if both_ways:
        count //= 2
        start = np.where(distances > 0, count, 0)
        distances = np.abs(distances)
    else:
        distances = np.maximum(-distances, 0)
    single = count // 2
    # float32 throughout: at the borders rounding decides, and the published weights were trained with it.
    ratio = np.log(np.maximum(distances, 1).astype(np.float32) / np.float32(single))
    steps = ratio / np.float32(math.log(max_distance / single)) * np.float32(count - single)
    far = np.minimum(single + steps.astype(np.int64), count - 1)
    return start + np.where(distances < single, distances, far)


def relative_bias(
    table: Float[Array, 'classes heads'],
    queries: Int[Array, '#batch queries'],
    keys: int,
    both_ways: bool,
    max_distance: int,
) -> Float[Array, '#batch heads queries keys']:
    """Looks up the bias of every query and key by the bucket of their distance; keys are at positions 0, 1, ..."""
    classes = buckets(np.arange(-max_distance, max_distance + 1), both_ways, table.shape[0], max_distance)
    distances = jnp.arange(keys)[None, None, :] - queries[:, :, None]
    bias = jnp.asarray(table)[classes][jnp.clip(distances, -max_distance, max_distance) + max_distance]
    return jnp.moveaxis(bias, -1, 1)


def in_segments(segments: Int[Array, 'batch length']) -> Int[Array, 'batch length']:
    """Position of each token within its segment; segments are contiguous."""
    position = jnp.arange(segments.shape[1])[None]
    first = jnp.concatenate([jnp.zeros_like(segments[:, :1]), segments[:, :-1]], axis=1) != segments
    return position - jax.lax.cummax(jnp.where(first, position, 0), axis=1)
