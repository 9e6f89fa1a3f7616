"""Beam search on the device, with a length penalty.

It only uses `Generate`, so it works for decoder-only and encoder-decoder models: every leaf of a cache has the batch
axis first, and a hypothesis that extends another one copies its rows.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.errors import UserError
from research.ops.sampling import is_end


class Hypotheses(NamedTuple):
    """The best hypotheses of each row, best first; `tokens` include an end token and are 0 after `length`."""

    tokens: Int[Array, 'batch results max_tokens']
    length: Int[Array, 'batch results']
    score: Float[Array, 'batch results']  # log-probability in nats, divided by the length penalty
    finished: Bool[Array, 'batch results']  # True: ends with an end token; False: cut at the limit


class Search(NamedTuple):
    """Loop state: `beams` open hypotheses per row, and the best finished ones so far."""

    count: Int[Array, '']
    cache: Any  # leaves [batch * beams, ...]
    tokens: Int[Array, 'batch beams max_tokens']
    score: Float[Array, 'batch beams']  # log-probability; -inf for empty beams
    finished: Hypotheses
    ended: Int[Array, 'batch']  # number of finished hypotheses
    open: Bool[Array, 'batch']


def check_beam(beams: int, results: int, length_penalty: float) -> None:
    """Raises `UserError` if a setting is out of range."""
    if beams < 1 or not 1 <= results <= beams:
        raise UserError(f'beams must be above zero and results from 1 to beams, got {beams} and {results}')
    if length_penalty < 0:
        raise UserError(f'length_penalty must be zero (off) or more, got {length_penalty}')


def penalty(length: Any, exponent: float) -> Any:
    """Length penalty ((5 + length) / 6) ** exponent (Wu et al. 2016, arXiv:1609.08144, equation 14)."""
    return ((5.0 + length) / 6.0) ** exponent


def gather(values: Array, chosen: Int[Array, 'batch some']) -> Array:
    return jax.vmap(lambda row, index: row[index])(values, chosen)


def beam_search(
    generate: Any,
    variables: Any,
    prompts: dict[str, Array],
    max_tokens: int,
    beams: int = 5,
    length_penalty: float = 1.0,
    results: int = 1,
    row_max_tokens: Int[Array, 'batch'] | None = None,
) -> Hypotheses:
    """Finds the best continuations of up to `max_tokens` tokens; call it inside `jax.jit`.

    The score of a hypothesis is log P / ((5 + length) / 6) ** length_penalty, including its end token. In each step,
    the best `beams` extensions without an end token stay open; an extension with an end token is finished if it is
    among the best `beams` of all extensions. A row is done when `beams` hypotheses have finished (first come, first
    served: Kasai et al. 2022, arXiv:2204.05424), when no open one can still enter its results, or when prompt and
    continuation fill the model's positions. The loop ends with its last row. One beam is greedy decoding. If fewer
    than `results` have finished, the best open ones follow, cut at the limit.

    Args:
      generate: the task's `Generate`: start, step, end, limit.
      variables: argument of `generate`.
      prompts: an encoded batch, with 'tokens' [batch, length] right-padded and 'length' [batch] at least 1.
      max_tokens: static.
      beams: static.
      length_penalty: the exponent; 0 compares log-probabilities.
      results: hypotheses returned per row; static.
      row_max_tokens: a lower maximum for each row.

    Raises:
      UserError: if a setting is out of range.
    """
    check_beam(beams, results, length_penalty)
    tokens, length = prompts['tokens'], prompts['length']
    batch = tokens.shape[0]
    capacity = min(tokens.shape[1] + max_tokens, generate.limit)
    room = jnp.minimum(capacity - length, max_tokens)  # new tokens of each row
    room = room if row_max_tokens is None else jnp.minimum(room, row_max_tokens)
    last = jnp.take_along_axis(tokens, length[:, None] - 1, axis=1)  # [batch, 1]
    cache = jax.tree.map(
        lambda leaf: jnp.repeat(leaf, beams, axis=0), generate.start(variables, prompts, capacity)
    )
    nothing = Hypotheses(
        jnp.zeros((batch, results, max_tokens), jnp.int32),
        jnp.zeros((batch, results), jnp.int32),
        jnp.full((batch, results), -jnp.inf),
        jnp.zeros((batch, results), bool),
    )
    first = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)  # all beams are still identical
    search = Search(
        jnp.int32(0), cache, jnp.zeros((batch, beams, max_tokens), jnp.int32), jnp.tile(first, (batch, 1)),
        nothing, jnp.zeros((batch,), jnp.int32), room > 0,
    )  # fmt: skip

    def advance(search: Search) -> Search:
        previous = jax.lax.dynamic_index_in_dim(search.tokens, jnp.maximum(search.count - 1, 0), 2, False)
        previous = jnp.where(search.count == 0, last, previous)  # [batch, beams]
        cache, logits = generate.step(variables, search.cache, previous.reshape(-1))
        return follow(search, cache, logits, generate.end, room, length_penalty)

    search = jax.lax.while_loop(lambda search: jnp.any(search.open), advance, search)
    return with_open(search, jnp.minimum(room, search.count), length_penalty)


def follow(
    search: Search, cache: Any, logits: Array, ends: Sequence[int], room: Int[Array, 'batch'], length_penalty: float
) -> Search:
    """Extends the search by one token; `cache` and `logits` belong to its current hypotheses."""
    batch, beams, _ = search.tokens.shape
    vocabulary = logits.shape[-1]
    logs = jax.nn.log_softmax(logits.reshape(batch, beams, vocabulary).astype(jnp.float32))
    # A hypothesis has len(ends) extensions that end, so of the best (1 + len(ends)) * beams, `beams` do not end.
    total = (search.score[:, :, None] + logs).reshape(batch, beams * vocabulary)
    score, flat_index = jax.lax.top_k(total, min((1 + len(ends)) * beams, beams * vocabulary))
    parent, token = flat_index // vocabulary, (flat_index % vocabulary).astype(jnp.int32)
    tokens = gather(search.tokens, parent).at[:, :, search.count].set(token)
    last = is_end(token, ends)
    finishes = last & (score > -jnp.inf) & (jnp.arange(score.shape[1]) < beams)
    length = search.count + 1
    ended = Hypotheses(
        tokens,
        jnp.full(score.shape, length),
        jnp.where(finishes, score / penalty(length, length_penalty), -jnp.inf),
        finishes,
    )
    finished = best_of(search.finished, ended)
    score, kept = jax.lax.top_k(jnp.where(last, -jnp.inf, score), beams)
    rows = gather(parent, kept) + jnp.arange(batch)[:, None] * beams
    count = search.ended + jnp.sum(finishes, axis=1)
    # Upper bound for open hypotheses: further tokens only lower log P, and the longest has the largest divisor.
    reachable = score[:, 0] / penalty(room, length_penalty)
    going = (count < beams) & (length < room) & (reachable > finished.score[:, -1])

    def keep(new: Array, old: Array) -> Array:
        return jnp.where(search.open.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    tokens, score, finished, count = jax.tree.map(
        keep,
        (gather(tokens, kept), score, finished, count),
        (search.tokens, search.score, search.finished, search.ended),
    )
    cache = jax.tree.map(lambda leaf: leaf[rows.reshape(-1)], cache)
    return Search(length, cache, tokens, score, finished, count, search.open & going)


def best_of(first: Hypotheses, second: Hypotheses) -> Hypotheses:
    """Merges two lists of hypotheses and keeps the best, as many as the first has; ties keep their order."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), first, second)
    _, chosen = jax.lax.top_k(both.score, first.score.shape[1])
    return jax.tree.map(lambda leaf: gather(leaf, chosen), both)


def with_open(search: Search, length: Int[Array, 'batch'], length_penalty: float) -> Hypotheses:
    """Fills up the finished hypotheses with open ones if there are too few."""
    batch, beams, max_tokens = search.tokens.shape
    length = jnp.broadcast_to(length[:, None], (batch, beams))
    score = search.score / penalty(length, length_penalty)
    cut = Hypotheses(search.tokens, length, score, jnp.zeros((batch, beams), bool))
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), search.finished, cut)
    # Stable: finished ones in their order, then open ones in theirs, then empty ones.
    rank = jnp.where(both.finished, 0, jnp.where(both.score > -jnp.inf, 1, 2))
    chosen = jnp.argsort(rank, axis=1, stable=True)[:, : search.finished.score.shape[1]]
    best = jax.tree.map(lambda leaf: gather(leaf, chosen), both)
    inside = jnp.arange(max_tokens) < best.length[:, :, None]
    return best._replace(tokens=jnp.where(inside, best.tokens, 0))
