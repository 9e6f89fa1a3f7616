"""Where a token stands, as numbers: rotary angles and sinusoids."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def angles(positions: Int[Array, '*shape'], width: int, base: float) -> Float[Array, '*shape half']:
    """Returns position / base ** (2 i / width) for each of width / 2 frequencies i, in radians, float32."""
    frequencies = base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    return positions[..., None].astype(jnp.float32) * frequencies


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


def sinusoids(positions: Int[Array, '*shape'], width: int) -> Float[Array, '*shape width']:
    """Returns fixed embeddings: sines in even features, cosines in odd ones.

    Vaswani et al. 2017 (arXiv:1706.03762), section 3.5.
    """
    turns = angles(positions, width, 10000.0)
    return jnp.stack([jnp.sin(turns), jnp.cos(turns)], axis=-1).reshape(*positions.shape, width)
