"""Where a token stands, as numbers: rotary angles, sinusoids, and T5's classes of distances."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def angles(positions: Int[Array, '*shape'], width: int, base: float) -> Float[Array, '*shape half']:
    """Returns position / base ** (2 i / width) for each of width / 2 frequencies i, in radians, float32."""
    return positions[..., None].astype(jnp.float32) * frequencies(width, base)


def frequencies(width: int, base: float) -> Float[Array, 'half']:
    """Returns base ** (-2 i / width) for each i below width / 2, in radians per position, float32."""
    return base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)


def stretch(
    turns: Float[Array, 'half'], factor: float, low: float, high: float, length: int
) -> Float[Array, 'half']:
    """Returns rotary frequencies for longer texts than the `length` positions of the first training.

    Llama 3.1 (Grattafiori et al. 2024, arXiv:2407.21783, section 3.2): a frequency with more than `high` turns
    in `length` positions stays, one with fewer than `low` is divided by `factor`, and between them both
    mix linearly in the number of turns.
    """
    rounds = length * turns / (2 * math.pi)
    kept = jnp.clip((rounds - low) / (high - low), 0.0, 1.0)
    return kept * turns + (1 - kept) * turns / factor


def rotate(
    heads: Float[Array, 'batch length heads width'], turns: Float[Array, '#batch length half']
) -> Float[Array, 'batch length heads width']:
    """Returns rotary-embedded queries or keys: features i and i + width / 2 turned by angle i.

    Su et al. 2021 (arXiv:2104.09864), equation 34, with the pairing of features that Llama's weights use.
    """
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    cosine, sine = jnp.cos(turns)[:, :, None], jnp.sin(turns)[:, :, None]
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(heads.dtype)


def sinusoids(
    positions: Int[Array, '*shape'], width: int, halves: bool = False
) -> Float[Array, '*shape width']:
    """Returns fixed embeddings: sines in even features and cosines in odd ones, or in the two `halves`.

    Vaswani et al. 2017 (arXiv:1706.03762), section 3.5; their code and Marian's keep the halves.
    """
    turns = angles(positions, width, 10000.0)
    return jnp.stack([jnp.sin(turns), jnp.cos(turns)], axis=-2 if halves else -1).reshape(
        *positions.shape, width
    )


def buckets(distances: Int[np.ndarray, '*shape'], both_ways: bool, count: int, most: int) -> np.ndarray:
    """Returns the class, below `count`, of each distance (key minus query): T5's relative positions.

    Raffel et al. 2020 (arXiv:1910.10683), section 2.1: half of the classes are single distances, the others
    grow logarithmically up to `most` and hold all beyond. Both ways, half of all classes are for keys after
    the query; otherwise such keys have class 0.
    """
    start = np.zeros_like(distances)
    if both_ways:
        count //= 2
        start = np.where(distances > 0, count, 0)
        distances = np.abs(distances)
    else:
        distances = np.maximum(-distances, 0)
    single = count // 2
    # float32 throughout: at a border the rounding decides, and the published weights were trained with it
    ratio = np.log(np.maximum(distances, 1).astype(np.float32) / np.float32(single))
    steps = ratio / np.float32(math.log(most / single)) * np.float32(count - single)
    far = np.minimum(single + steps.astype(np.int64), count - 1)
    return start + np.where(distances < single, distances, far)


def relative_bias(
    table: Float[Array, 'classes heads'],
    queries: Int[Array, '#batch queries'],
    keys: int,
    both_ways: bool,
    most: int,
) -> Float[Array, '#batch heads queries keys']:
    """Returns the bias of every query and key by the class of their distance; keys stand at 0, 1, ..."""
    classes = buckets(np.arange(-most, most + 1), both_ways, table.shape[0], most)
    distances = jnp.arange(keys)[None, None, :] - queries[:, :, None]
    bias = jnp.asarray(table)[classes][jnp.clip(distances, -most, most) + most]
    return jnp.moveaxis(bias, -1, 1)


def in_segments(segments: Int[Array, 'batch length']) -> Int[Array, 'batch length']:
    """Returns each token's position in its own segment; segments lie one after another."""
    here = jnp.arange(segments.shape[1])[None]
    first = jnp.concatenate([jnp.zeros_like(segments[:, :1]), segments[:, :-1]], axis=1) != segments
    return here - jax.lax.cummax(jnp.where(first, here, 0), axis=1)
