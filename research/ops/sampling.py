"""Autoregressive sampling on the device: greedy, temperature, top-k, top-p, min-p and a repetition penalty.

Each row has its own key, so its text does not depend on the batch. The whole vocabulary is never sorted: a token is
drawn from the 256 most probable ones if these are all that the settings keep, and otherwise from those above thresholds
found by bisection. The noise of a token depends on the key and its id only, so that both draw the same one.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

CANDIDATES = 256  # most probable tokens to draw from; on a CPU, 80 times faster than sorting 50,257
FLOAT_BITS = 31  # of a float32 without its sign


class Sampled(NamedTuple):
    """New tokens of each row, including its end token; 0 after a row's `length`."""

    tokens: Int[Array, 'batch max_tokens']
    length: Int[Array, 'batch']


class Limits(NamedTuple):
    """Which tokens of a row may be drawn; see `draw`."""

    top_k: Int[Array, 'batch']
    top_p: Float[Array, 'batch']
    min_p: Float[Array, 'batch']


def draw(
    logits: Float[Array, 'batch vocabulary'],
    keys: PRNGKeyArray,
    temperature: float | Float[Array, 'batch'] = 1.0,
    top_k: int | Int[Array, 'batch'] = 0,
    top_p: float | Float[Array, 'batch'] = 1.0,
    min_p: float | Float[Array, 'batch'] = 0.0,
    repetition_penalty: float | Float[Array, 'batch'] = 1.0,
    seen: Bool[Array, 'batch vocabulary'] | None = None,
) -> Int[Array, 'batch']:
    """Samples one token per row with that row's key. Settings are numbers, or arrays with one value per row.

    The penalty and the temperature come first. Then the `top_k` most probable tokens are kept; of these the fewest
    whose probability reaches `top_p` (nucleus sampling: Holtzman et al. 2020, arXiv:1904.09751, equation 2); of these
    those with at least `min_p` times the highest probability (Nguyen et al. 2024, arXiv:2407.01082). The most probable
    token is always kept, and ties are ordered by id.

    Args:
      logits: float32.
      keys: [batch].
      temperature: 0 selects the most probable token.
      top_k: 0 keeps all.
      top_p: 1 keeps all.
      min_p: 0 keeps all.
      repetition_penalty: divides positive logits of `seen` tokens and multiplies negative ones (Keskar et al. 2019,
        arXiv:1909.05858, section 4.1, as in the library transformers); 1 changes nothing.
      seen: tokens of each row so far; None for no penalty.
    """
    batch, vocabulary = logits.shape
    if seen is not None:
        logits = penalized(logits, jnp.broadcast_to(jnp.asarray(repetition_penalty), (batch,)), seen)
    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if isinstance(temperature, (int, float)) and temperature == 0:
        return likeliest
    temperature, top_k, top_p, min_p = (jnp.broadcast_to(x, (batch,)) for x in (temperature, top_k, top_p, min_p))
    limits = Limits(jnp.where(top_k >= vocabulary, 0, top_k), top_p, min_p)
    random = temperature > 0

    def drawn() -> Int[Array, 'batch']:
        scaled = (logits - jnp.max(logits, axis=-1, keepdims=True)) / jnp.where(random, temperature, 1.0)[:, None]
        values, ids = most_probable(scaled, CANDIDATES)
        allowed, enough = among_candidates(scaled, values, limits)
        token = most_with_noise(values, ids, keys, allowed)
        if vocabulary > CANDIDATES:
            further = random & ~enough  # decided row by row, so that a row does not depend on the others
            every = jnp.broadcast_to(jnp.arange(vocabulary), scaled.shape)
            token = jax.lax.cond(
                jnp.any(further),
                lambda: jnp.where(further, most_with_noise(scaled, every, keys, kept(scaled, limits)), token),
                lambda: token,
            )
        return jnp.where(random, token, likeliest)

    return jax.lax.cond(jnp.any(random), drawn, lambda: likeliest)


def most_probable(
    values: Float[Array, 'batch vocabulary'], count: int
) -> tuple[Float[Array, 'batch count'], Int[Array, 'batch count']]:
    """The `count` largest values of each row, or all if there are fewer, and their ids; ties are ordered by id."""
    # Without the barrier, XLA merges a later slice with that of the top, and sorts the whole row (jaxlib 0.10).
    top, ids = jax.lax.optimization_barrier(jax.lax.top_k(values, min(count, values.shape[1])))
    return top, ids.astype(jnp.int32)


def penalized(
    logits: Float[Array, 'batch vocabulary'], penalty: Float[Array, 'batch'], seen: Bool[Array, 'batch vocabulary']
) -> Float[Array, 'batch vocabulary']:
    """Logits with the repetition penalty; see `draw`."""
    penalty = penalty[:, None]
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def gumbel(keys: PRNGKeyArray, ids: Int[Array, 'batch some']) -> Float[Array, 'batch some']:
    """Gumbel noise of each token, a function of the row's key and the id."""

    def bits(key: PRNGKeyArray, ids: Int[Array, 'some']) -> Array:
        return jax.random.key_data(jax.vmap(jax.random.fold_in, (None, 0))(key, ids))[:, 0]

    # Float32 is finest near 0, where the largest noise comes from; at 1 the logarithm would be infinite.
    uniform = (jax.vmap(bits)(keys, ids).astype(jnp.float32) + 0.5) * 2.0**-32
    return -jnp.log(-jnp.log1p(-jnp.minimum(uniform, 1 - 2.0**-24)))


def most_with_noise(
    values: Float[Array, 'batch some'], ids: Int[Array, 'batch some'], keys: PRNGKeyArray, allowed: Array
) -> Int[Array, 'batch']:
    """Draws from softmax(values) over the `allowed` ones, by the maximum with Gumbel noise (Gumbel 1954)."""
    best = jnp.argmax(jnp.where(allowed, values + gumbel(keys, ids), -jnp.inf), axis=-1)
    return jnp.take_along_axis(ids, best[:, None], axis=-1)[:, 0].astype(jnp.int32)


def among_candidates(
    scaled: Float[Array, 'batch vocabulary'], values: Float[Array, 'batch some'], limits: Limits
) -> tuple[Bool[Array, 'batch some'], Bool[Array, 'batch']]:
    """Which of the most probable tokens are kept, and whether all other tokens are excluded.

    Args:
      scaled: logits divided by the temperature, minus their maximum.
      values: the largest of them, in order.
      limits: of each row.
    """
    count = values.shape[1]
    top_k, top_p, min_p = (x[:, None] for x in limits)
    rank = jnp.arange(count)[None]
    allowed, mass = (top_k == 0) | (rank < top_k), jnp.exp(values)
    few = (top_k > 0) & (top_k <= count)
    total = jnp.where(few, jnp.sum(mass * allowed, axis=-1, keepdims=True), jnp.sum(jnp.exp(scaled), -1, keepdims=True))
    reached = jnp.cumsum(mass, axis=-1) / total
    first = rank == 0
    allowed &= first | (top_p >= 1) | (reached - mass / total < top_p)
    floor = jnp.log(min_p)
    allowed &= first | (values >= floor)
    covered = (reached[:, -1:] >= top_p) & (top_p < 1) | (values[:, -1:] < floor)
    whole = count == scaled.shape[1]
    return allowed, (few | (top_k == 0) & covered)[:, 0] | whole


def kept(scaled: Float[Array, 'batch vocabulary'], limits: Limits) -> Bool[Array, 'batch vocabulary']:
    """Which tokens the limits keep, for any limits; `scaled` as in `among_candidates`."""
    everything = jnp.ones(scaled.shape, bool)

    def limited(rows: Bool[Array, 'batch'], weights: Array, budget: Array) -> Array:
        return jax.lax.cond(
            jnp.any(rows), lambda: ~rows[:, None] | first_to_reach(scaled, weights, budget), lambda: everything
        )

    allowed = limited(limits.top_k > 0, jnp.ones_like(scaled), limits.top_k.astype(scaled.dtype))
    mass = jnp.where(allowed, jnp.exp(scaled), 0.0)
    allowed &= limited(limits.top_p < 1, mass, limits.top_p * jnp.sum(mass, axis=-1))
    return allowed & ((scaled == 0) | (scaled >= jnp.log(limits.min_p)[:, None]))


def first_to_reach(
    scaled: Float[Array, 'batch vocabulary'], weights: Float[Array, 'batch vocabulary'], budget: Float[Array, 'batch']
) -> Bool[Array, 'batch vocabulary']:
    """The fewest most probable tokens whose weights add up to `budget`, at least one; ties are ordered by id."""
    # Scaled logits are at most 0, so the bits of their magnitudes are integers that rise as probabilities fall.
    size = jax.lax.bitcast_convert_type(jnp.abs(scaled), jnp.int32)
    budget = jnp.maximum(budget, jnp.finfo(scaled.dtype).tiny)

    def total(inside: Bool[Array, 'batch vocabulary']) -> Float[Array, 'batch']:
        return jnp.sum(jnp.where(inside, weights, 0.0), axis=-1)

    def clear(number: Int[Array, ''], bound: Int[Array, 'batch']) -> Int[Array, 'batch']:
        lower = bound & ~(1 << (FLOAT_BITS - 1 - number))
        return jnp.where(total(size <= lower[:, None]) >= budget, lower, bound)

    highest = jnp.full(budget.shape, jnp.iinfo(jnp.int32).max)
    bound = jax.lax.fori_loop(0, FLOAT_BITS, clear, highest)[:, None]  # the smallest that reaches the budget
    ties = size == bound
    weight = jnp.max(jnp.where(ties, weights, 0.0), axis=-1, keepdims=True)
    missing = budget[:, None] - total(size < bound)[:, None]
    return (size < bound) | ties & ((jnp.cumsum(ties, axis=-1) - 1) * weight < missing)


def log_probabilities(
    logits: Float[Array, 'batch vocabulary'], tokens: Int[Array, 'batch'], count: int = 20
) -> tuple[Float[Array, 'batch'], Float[Array, 'batch count'], Int[Array, 'batch count']]:
    """Log-probabilities in nats of `tokens`, and the `count` highest with their ids, without temperature or limits."""
    logs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return jnp.take_along_axis(logs, tokens[:, None], axis=-1)[:, 0], *most_probable(logs, count)


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
    min_p: float | Float[Array, 'batch'] = 0.0,
    repetition_penalty: float | Float[Array, 'batch'] = 1.0,
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
      temperature, top_k, top_p, min_p: as in `draw`.
      repetition_penalty: as in `draw`; tokens of the prompt are seen too.
    """
    tokens, length = prompts['tokens'], prompts['length']
    capacity = min(tokens.shape[1] + max_tokens, generate.limit)
    room = jnp.minimum(capacity - length, max_tokens)  # new tokens of each row
    cache = generate.start(variables, prompts, capacity)
    last = jnp.take_along_axis(tokens, length[:, None] - 1, axis=1)[:, 0]
    written = jnp.zeros((tokens.shape[0], max_tokens), jnp.int32)
    rows, seen = jnp.arange(tokens.shape[0]), None
    if not isinstance(repetition_penalty, (int, float)) or repetition_penalty != 1:
        vocabulary = jax.eval_shape(generate.step, variables, cache, last)[1].shape[-1]
        inside = jnp.arange(tokens.shape[1]) < length[:, None]
        seen = jnp.zeros((tokens.shape[0], vocabulary), bool).at[rows[:, None], tokens].max(inside)

    def going(state):
        return jnp.any(state[-1])

    def advance(state):
        count, cache, last, written, produced, seen, open_rows = state
        cache, logits = generate.step(variables, cache, last)
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, count)
        token = draw(logits, step_keys, temperature, top_k, top_p, min_p, repetition_penalty, seen)
        seen = None if seen is None else seen.at[rows, token].set(True)
        token = jnp.where(open_rows, token, 0)
        written = jax.lax.dynamic_update_slice_in_dim(written, token[:, None], count, axis=1)
        produced = produced + open_rows
        open_rows = open_rows & ~is_end(token, generate.end) & (produced < room)
        return count + 1, cache, token, written, produced, seen, open_rows

    state = (jnp.int32(0), cache, last, written, jnp.zeros_like(length), seen, room > 0)
    _, _, _, written, produced, _, _ = jax.lax.while_loop(going, advance, state)
    return Sampled(written, produced)
