"""Autoregressive sampling on the device: greedy, temperature, top-k and top-p.

Each row has its own key, so its text does not depend on the batch.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


class Sampled(NamedTuple):
    """New tokens of each row, including its end token; 0 after a row's `length`."""

    tokens: Int[Array, 'batch max_tokens']
    length: Int[Array, 'batch']


def filtered(
    logits: Float[Array, 'batch vocabulary'],
    temperature: float | Float[Array, 'batch'] = 1.0,
    top_k: int | Int[Array, 'batch'] = 0,
    top_p: float | Float[Array, 'batch'] = 1.0,
) -> tuple[Float[Array, 'batch vocabulary'], Int[Array, 'batch vocabulary']]:
    """Sorts and filters logits; returns scaled logits, the most probable first, -inf if excluded, and their tokens.

    Applies the temperature, then keeps the `top_k` most probable tokens (0: all), then the fewest of these whose
    probability reaches `top_p` (nucleus sampling: Holtzman et al. 2020, arXiv:1904.09751, equation 2). The most
    probable token is always kept; ties are ordered by id.
    """
    batch, vocabulary = logits.shape
    temperature, top_k, top_p = (jnp.broadcast_to(x, (batch,))[:, None] for x in (temperature, top_k, top_p))
    order = jnp.argsort(-logits, axis=-1, stable=True)
    scaled = jnp.take_along_axis(logits, order, axis=-1) / jnp.where(temperature > 0, temperature, 1.0)
    rank = jnp.arange(vocabulary)[None]
    scaled = jnp.where((top_k == 0) | (rank < top_k), scaled, -jnp.inf)
    probability = jax.nn.softmax(scaled, axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    return jnp.where((before < top_p) | (rank == 0) | (top_p >= 1), scaled, -jnp.inf), order


def draw(
    logits: Float[Array, 'batch vocabulary'],
    keys: PRNGKeyArray,
    temperature: float | Float[Array, 'batch'] = 1.0,
    top_k: int | Int[Array, 'batch'] = 0,
    top_p: float | Float[Array, 'batch'] = 1.0,
) -> Int[Array, 'batch']:
    """Samples one token per row with that row's key; temperature 0 selects the most probable.

    Settings are numbers, or arrays with one value per row.
    """
    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if isinstance(temperature, (int, float)) and temperature == 0:
        return likeliest
    scaled, order = filtered(logits, temperature, top_k, top_p)
    rank = jax.vmap(jax.random.categorical)(keys, scaled)
    drawn = jnp.take_along_axis(order, rank[:, None], axis=-1)[:, 0].astype(jnp.int32)
    return jnp.where(jnp.asarray(temperature) > 0, drawn, likeliest)


def is_end(tokens: Int[Array, '*shape'], ends: Sequence[int]) -> Bool[Array, '*shape']:
    """Whether each token is one of the end tokens `ends`, which are static; no token is if there are none."""
    return functools.reduce(jnp.logical_or, (tokens == end for end in ends), jnp.zeros(tokens.shape, bool))


def sample(
    generate: Any,
    variables: Any,
    prompts: dict[str, Array],
    keys: PRNGKeyArray,
    max_tokens: int,
    temperature: float | Float[Array, 'batch'] = 1.0,
    top_k: int | Int[Array, 'batch'] = 0,
    top_p: float | Float[Array, 'batch'] = 1.0,
) -> Sampled:
    """Samples continuations of up to `max_tokens` tokens; call it inside `jax.jit`.

    A row ends with one of the end tokens, or when prompt and continuation fill the model's positions. The loop ends
    with its last row.

    Args:
      generate: the task's `Generate`: start, step, end, limit.
      variables: argument of `generate`.
      prompts: 'tokens' [batch, length] right-padded, 'length' [batch] at least 1.
      keys: [batch], one per row; token i is sampled with the i-th fold of it.
      max_tokens: static.
      temperature, top_k, top_p: as in `draw`.
    """
    tokens, length = prompts['tokens'], prompts['length']
    capacity = min(tokens.shape[1] + max_tokens, generate.limit)
    room = jnp.minimum(capacity - length, max_tokens)  # new tokens of each row
    cache = generate.start(variables, prompts, capacity)
    last = jnp.take_along_axis(tokens, length[:, None] - 1, axis=1)[:, 0]
    written = jnp.zeros((tokens.shape[0], max_tokens), jnp.int32)

    def going(state):
        return jnp.any(state[-1])

    def advance(state):
        count, cache, last, written, produced, open_rows = state
        cache, logits = generate.step(variables, cache, last)
        token = draw(logits, jax.vmap(jax.random.fold_in, (0, None))(keys, count), temperature, top_k, top_p)
        token = jnp.where(open_rows, token, 0)
        written = jax.lax.dynamic_update_slice_in_dim(written, token[:, None], count, axis=1)
        produced = produced + open_rows
        open_rows = open_rows & ~is_end(token, generate.end) & (produced < room)
        return count + 1, cache, token, written, produced, open_rows

    state = (jnp.int32(0), cache, last, written, jnp.zeros_like(length), room > 0)
    _, _, _, written, produced, _ = jax.lax.while_loop(going, advance, state)
    return Sampled(written, produced)
