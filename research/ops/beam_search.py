"""Beam search on the device: the likeliest texts by a score that does not favour short ones.

It knows `Generate` alone, so decoder-only and encoder-decoder models are searched alike: every leaf of a cache
has the batch axis first, and a hypothesis that goes on from another takes over that one's rows.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.errors import UserError


class Found(NamedTuple):
    """The best hypotheses of each row, best first; `tokens` hold the end token, and 0 after `length`."""

    tokens: Int[Array, 'batch results most']
    length: Int[Array, 'batch results']
    score: Float[Array, 'batch results']  # log-probability in nats, divided by the length penalty
    finished: Bool[Array, 'batch results']  # whether it ends with the end token, or was cut at the limit


class Search(NamedTuple):
    """What the loop carries: `beams` open hypotheses of each row, and the finished ones so far."""

    count: Int[Array, '']
    cache: Any  # leaves [batch * beams, ...]
    tokens: Int[Array, 'batch beams most']
    score: Float[Array, 'batch beams']  # log-probability, -inf where there is no hypothesis
    found: Found
    ended: Int[Array, 'batch']  # finished hypotheses that were among the best `beams` when they ended
    open: Bool[Array, 'batch']


def check_beam(beams: int, results: int, length_penalty: float) -> None:
    """Raises a `UserError` where a setting is outside its range."""
    if beams < 1 or not 1 <= results <= beams:
        raise UserError(f'beams must be above zero and results from 1 to beams, got {beams} and {results}')
    if length_penalty < 0:
        raise UserError(f'length_penalty must be zero (off) or more, got {length_penalty}')


def penalty(length: Any, exponent: float) -> Any:
    """Returns ((5 + length) / 6) ** exponent (Wu et al. 2016, arXiv:1609.08144, equation 14)."""
    return ((5.0 + length) / 6.0) ** exponent


def gather(values: Array, chosen: Int[Array, 'batch some']) -> Array:
    """Returns values[row, chosen[row]] for every row."""
    return jax.vmap(lambda row, index: row[index])(values, chosen)


def beam_search(
    generate: Any,
    variables: Any,
    prompts: dict[str, Array],
    most: int,
    beams: int = 5,
    length_penalty: float = 1.0,
    results: int = 1,
) -> Found:
    """Returns the best continuations of up to `most` tokens; call it inside `jax.jit`.

    A hypothesis scores log P / ((5 + length) / 6) ** length_penalty, its end token included. Of all ways to go
    on, the best `beams` that do not end stay open; one that ends is finished where it is among the best `beams`
    of both kinds. A row is done when `beams` have finished (first come, first served: Kasai et al. 2022,
    arXiv:2204.05424), when no open one can still get among its results, or when prompt and
    continuation fill the model's positions; the loop ends with its last row. With one beam it is greedy. Where
    fewer than `results` have finished, the best open ones follow, cut at the limit.

    Args:
      generate: the task's `Generate`: start, step, end, limit.
      variables: what `generate` takes.
      prompts: an encoded batch, with 'tokens' [batch, length] right-padded and 'length' [batch] at least 1.
      most, beams, results: static; `results` of each row are returned.
      length_penalty: the exponent; 0 compares log-probabilities.

    Raises:
      UserError: for settings outside their ranges.
    """
    check_beam(beams, results, length_penalty)
    tokens, length = prompts['tokens'], prompts['length']
    batch, capacity = tokens.shape[0], min(tokens.shape[1] + most, generate.limit)
    room = jnp.minimum(capacity - length, most)  # new tokens of each row
    last = jnp.take_along_axis(tokens, length[:, None] - 1, axis=1)  # [batch, 1]
    cache = jax.tree.map(
        lambda leaf: jnp.repeat(leaf, beams, axis=0), generate.start(variables, prompts, capacity)
    )
    nothing = Found(
        jnp.zeros((batch, results, most), jnp.int32),
        jnp.zeros((batch, results), jnp.int32),
        jnp.full((batch, results), -jnp.inf),
        jnp.zeros((batch, results), bool),
    )
    first = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)  # all beams are still the same one
    search = Search(
        jnp.int32(0), cache, jnp.zeros((batch, beams, most), jnp.int32), jnp.tile(first, (batch, 1)),
        nothing, jnp.zeros((batch,), jnp.int32), room > 0,
    )  # fmt: skip

    def advance(search: Search) -> Search:
        before = jax.lax.dynamic_index_in_dim(search.tokens, jnp.maximum(search.count - 1, 0), 2, False)
        before = jnp.where(search.count == 0, last, before)  # [batch, beams]
        cache, logits = generate.step(variables, search.cache, before.reshape(-1))
        return follow(search, cache, logits, generate.end, room, length_penalty)

    search = jax.lax.while_loop(lambda search: jnp.any(search.open), advance, search)
    return with_open(search, jnp.minimum(room, search.count), length_penalty)


def follow(
    search: Search, cache: Any, logits: Array, end: int, room: Int[Array, 'batch'], length_penalty: float
) -> Search:
    """Returns the search after one more token; `cache` and `logits` are of its present hypotheses."""
    batch, beams, _ = search.tokens.shape
    vocabulary = logits.shape[-1]
    logs = jax.nn.log_softmax(logits.reshape(batch, beams, vocabulary).astype(jnp.float32))
    # one hypothesis ends in one way only: of the best 2 beams, at least `beams` do not end
    total = (search.score[:, :, None] + logs).reshape(batch, beams * vocabulary)
    score, place = jax.lax.top_k(total, min(2 * beams, beams * vocabulary))
    parent, token = place // vocabulary, (place % vocabulary).astype(jnp.int32)
    tokens = gather(search.tokens, parent).at[:, :, search.count].set(token)
    ends = (token == end) & (score > -jnp.inf) & (jnp.arange(score.shape[1]) < beams)
    length = search.count + 1
    ended = Found(
        tokens,
        jnp.full(score.shape, length),
        jnp.where(ends, score / penalty(length, length_penalty), -jnp.inf),
        ends,
    )
    found = best_of(search.found, ended)
    score, kept = jax.lax.top_k(jnp.where(token == end, -jnp.inf, score), beams)
    rows = gather(parent, kept) + jnp.arange(batch)[:, None] * beams
    count = search.ended + jnp.sum(ends, axis=1)
    # the most an open hypothesis can still reach: every further token costs, and the longest is divided most
    reachable = score[:, 0] / penalty(room, length_penalty)
    going = (count < beams) & (length < room) & (reachable > found.score[:, -1])

    def keep(new: Array, old: Array) -> Array:
        return jnp.where(search.open.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    tokens, score, found, count = jax.tree.map(
        keep,
        (gather(tokens, kept), score, found, count),
        (search.tokens, search.score, search.found, search.ended),
    )
    cache = jax.tree.map(lambda leaf: leaf[rows.reshape(-1)], cache)
    return Search(length, cache, tokens, score, found, count, search.open & going)


def best_of(first: Found, second: Found) -> Found:
    """Returns the best of two lists of hypotheses, as many as the first has; equal ones in their order."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), first, second)
    _, chosen = jax.lax.top_k(both.score, first.score.shape[1])
    return jax.tree.map(lambda leaf: gather(leaf, chosen), both)


def with_open(search: Search, length: Int[Array, 'batch'], length_penalty: float) -> Found:
    """Returns the finished hypotheses, and after them the open ones where there are too few."""
    batch, beams, most = search.tokens.shape
    length = jnp.broadcast_to(length[:, None], (batch, beams))
    score = search.score / penalty(length, length_penalty)
    cut = Found(search.tokens, length, score, jnp.zeros((batch, beams), bool))
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), search.found, cut)
    # stable: finished ones stay in their order, then open ones in theirs; empty places come last
    rank = jnp.where(both.finished, 0, jnp.where(both.score > -jnp.inf, 1, 2))
    chosen = jnp.argsort(rank, axis=1, stable=True)[:, : search.found.score.shape[1]]
    best = jax.tree.map(lambda leaf: gather(leaf, chosen), both)
    inside = jnp.arange(most) < best.length[:, :, None]
    return best._replace(tokens=jnp.where(inside, best.tokens, 0))
