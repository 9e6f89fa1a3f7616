"""Device programs that generate texts in a fixed number of slots.

    prefill(variables, prompts) -> row        reads one prompt, padded to a bucket, or the first part of a long one
    read(variables, row, tokens, length)      reads the next part of a long prompt, padded to a bucket
    insert(state, row, numbers) -> state      puts it into a slot
    decode(variables, state, control)         up to `steps` tokens for every open slot, and what they are

They know `Generate` only. The state is one donated pytree whose leaves have the slots first. Shapes never change and
the number of steps is data, so the text of a slot depends neither on the other slots nor on how its steps are grouped:
it is the same bit for bit. Everything that the host reads comes in one int32 array.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from research.core.task import Generate, Tree, fold
from research.ops.beam_search import beam_search
from research.ops.sampling import draw, is_end, most_probable

MOST_STEPS = 16  # of one dispatch
TOP = 20  # most probable tokens reported for a token
SMALLEST, GROWTH = 16, 4  # padded tokens of a prompt
PART = 256  # tokens of the parts of a long prompt
NUMBERS = ('slot', 'last', 'room', 'seed', 'index', 'copy', 'top_k', 'ignore_end', 'wants_top')
RATES = ('temperature', 'top_p', 'min_p', 'repetition_penalty')


class Row(NamedTuple):
    """A prompt that was read; leaves have a batch axis of 1."""

    cache: Tree
    seen: Bool[Array, '1 vocabulary']  # its tokens, for the repetition penalty


class State(NamedTuple):
    """The slots; `room` is the number of tokens that a text may still get in all, `produced` those it has."""

    cache: Tree
    seen: Bool[Array, 'slots vocabulary']
    last: Int[Array, 'slots']  # the token to read next
    produced: Int[Array, 'slots']
    room: Int[Array, 'slots']
    open: Bool[Array, 'slots']
    keys: Array  # uint32 [slots, key words]
    top_k: Int[Array, 'slots']
    ignore_end: Bool[Array, 'slots']
    wants_top: Bool[Array, 'slots']
    rates: Float[Array, 'slots rates']  # of `RATES`


class Found(NamedTuple):
    """The result of a dispatch on the host; `tokens` are -1 where a slot was closed."""

    tokens: Int[np.ndarray, 'slots steps']
    logprobs: Float[np.ndarray, 'slots steps']  # of the raw distribution
    top: Int[np.ndarray, 'slots steps top']  # ids of the most probable tokens; only for texts that asked for them
    top_logprobs: Float[np.ndarray, 'slots steps top']


def packed_numbers(**values: Any) -> np.ndarray:
    """The settings of one text as one int32 array [numbers + rates]; the host sends it with `insert`."""
    whole = np.array([int(values[name]) for name in NUMBERS], np.int32)
    return np.concatenate([whole, np.array([values[name] for name in RATES], np.float32).view(np.int32)])


def unpacked(result: np.ndarray) -> Found:
    """The fields of the packed result [slots, steps, 2 + 2 * top]."""
    top = (result.shape[-1] - 2) // 2
    floats = np.ascontiguousarray(result).view(np.float32)
    return Found(result[..., 0], floats[..., 1], result[..., 2 : 2 + top], floats[..., 2 + top :])


def sampling_key(seed: Int[Array, ''], index: Int[Array, ''], copy: Int[Array, '']) -> Array:
    """Key data of a text: that of row `index` in an offline prediction with this seed; further copies fold it."""
    key = jax.random.fold_in(fold(fold(jax.random.key(seed), 'evaluate'), 'sample'), index)
    other = jax.random.fold_in(fold(key, 'copy'), copy)
    return jnp.where(copy > 0, jax.random.key_data(other), jax.random.key_data(key))


def make_prefill(generate: Generate, capacity: int, vocabulary: int) -> Any:
    """Builds `prefill`: reads a prompt whose 'tokens' [1, bucket] are right-padded."""

    def prefill(variables: Any, prompts: Mapping[str, Array]) -> Row:
        tokens, length = prompts['tokens'], prompts['length']
        return Row(generate.start(variables, prompts, capacity), seen_of(tokens, length, vocabulary))

    return prefill


def make_read(generate: Generate, vocabulary: int) -> Any:
    """Builds `read`: extends a row by the first `length` [1] of `tokens` [1, bucket]."""

    def read(variables: Any, row: Row, tokens: Int[Array, '1 bucket'], length: Int[Array, '1']) -> Row:
        assert generate.extend is not None
        cache, _ = generate.extend(variables, row.cache, tokens, length)
        return Row(cache, row.seen | seen_of(tokens, length, vocabulary))

    return read


def make_search(generate: Generate, beams: int) -> Any:
    """Builds beam search for one prompt; returns int32 [beams, max_new_tokens + 2]: tokens, length, whether ended."""
    assert generate.decoding is not None
    most, exponent = generate.decoding.max_new_tokens, generate.decoding.length_penalty

    def search(variables: Any, prompts: Mapping[str, Array], max_tokens: Int[Array, '1']) -> Array:
        best = beam_search(generate, variables, dict(prompts), most, beams, exponent, beams, max_tokens)
        ends = jnp.stack([best.length[0], best.finished[0].astype(jnp.int32)], axis=1)
        return jnp.concatenate([best.tokens[0], ends], axis=1)

    return search


def seen_of(tokens: Int[Array, 'batch length'], length: Int[Array, 'batch'], vocabulary: int) -> Array:
    """Which tokens the rows contain, as bool [batch, vocabulary]."""
    inside = jnp.arange(tokens.shape[1]) < length[:, None]
    rows = jnp.arange(tokens.shape[0])[:, None]
    return jnp.zeros((tokens.shape[0], vocabulary), bool).at[rows, jnp.where(inside, tokens, vocabulary)].set(
        True, mode='drop'
    )


def insert(state: State, row: Row, numbers: Int[Array, 'numbers']) -> State:
    """Puts a prompt and the settings of its text, of `packed_numbers`, into a slot; donate the state."""
    named = dict(zip(NUMBERS, numbers, strict=False))
    slot = named['slot']
    values = State(
        cache=row.cache, seen=row.seen.at[0, named['last']].set(True), last=named['last'], produced=jnp.int32(0),
        room=named['room'], open=named['room'] > 0, keys=sampling_key(named['seed'], named['index'], named['copy']),
        top_k=named['top_k'], ignore_end=named['ignore_end'] > 0, wants_top=named['wants_top'] > 0,
        rates=jax.lax.bitcast_convert_type(numbers[len(NUMBERS) :], jnp.float32),
    )  # fmt: skip

    def put(leaf: Array, value: Array) -> Array:
        value = value if value.ndim == leaf.ndim else value[None]
        return jax.lax.dynamic_update_slice_in_dim(leaf, value.astype(leaf.dtype), slot, axis=0)

    return jax.tree.map(put, state, values)


def make_decode(generate: Generate) -> Any:
    """Builds `decode`: (variables, state, control) -> (state, packed result); donate the state.

    `control` is int32 [slots + 1]: 1 for each slot that stays open, and the number of steps, at most `MOST_STEPS`. The
    loop ends early when no slot is open.
    """

    def decode(variables: Any, state: State, control: Int[Array, 'slots_and_steps']) -> tuple[State, Array]:
        state = state._replace(open=state.open & (control[:-1] > 0))
        top = min(TOP, state.seen.shape[1])
        nothing = jnp.full((len(state.last), MOST_STEPS, 2 + 2 * top), -1, jnp.int32)

        def going(carry: Any) -> Array:
            count, state, _ = carry
            return (count < control[-1]) & jnp.any(state.open)

        def advance(carry: Any) -> Any:
            count, state, result = carry
            cache, logits = generate.step(variables, state.cache, state.last)
            state, column = choose(state._replace(cache=cache), logits, generate.end, top)
            return count + 1, state, jax.lax.dynamic_update_slice_in_dim(result, column[:, None], count, axis=1)

        _, state, result = jax.lax.while_loop(going, advance, (jnp.int32(0), state, nothing))
        return state, result

    return decode


def choose(
    state: State, logits: Float[Array, 'slots vocabulary'], ends: Sequence[int], top: int
) -> tuple[State, Int[Array, 'slots packed']]:
    """Samples the next token of each open slot; returns the packed column of the result."""
    rates = dict(zip(RATES, state.rates.T, strict=True))
    keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(state.keys), state.produced)
    temperature = jnp.where(state.open, rates['temperature'], 0.0)  # closed slots take the shortest way
    token = draw(
        logits, keys, temperature, state.top_k, rates['top_p'], rates['min_p'], rates['repetition_penalty'], state.seen
    )
    logs = jax.nn.log_softmax(logits.astype(jnp.float32))
    chosen = jnp.take_along_axis(logs, token[:, None], axis=-1)

    def none(logs: Array) -> tuple[Array, Array]:
        return jnp.zeros((len(logs), top), jnp.float32), jnp.zeros((len(logs), top), jnp.int32)

    wanted = jnp.any(state.open & state.wants_top)
    values, ids = jax.lax.cond(wanted, lambda logs: tuple(most_probable(logs, top)), none, logs)
    floats = jax.lax.bitcast_convert_type(jnp.concatenate([chosen, values], axis=1), jnp.int32)
    shown = jnp.where(state.open, token, -1)[:, None]
    column = jnp.concatenate([shown, floats[:, :1], ids, floats[:, 1:]], axis=1)
    produced = state.produced + state.open
    stays = (state.ignore_end | ~is_end(token, ends)) & (produced < state.room)
    seen = state.seen.at[jnp.arange(len(token)), jnp.where(state.open, token, state.seen.shape[1])].set(
        True, mode='drop'
    )
    return state._replace(last=token, produced=produced, open=state.open & stays, seen=seen), column


def empty_state(row: Row, slots: int) -> State:
    """The shapes of a state with all slots closed, from those of a row."""
    key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))

    def of(shape: Sequence[int], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((slots, *shape), dtype)

    cache, seen = jax.tree.map(lambda leaf: of(leaf.shape[1:], leaf.dtype), tuple(row))
    return State(
        cache=cache, seen=seen, last=of((), jnp.int32), produced=of((), jnp.int32), room=of((), jnp.int32),
        open=of((), jnp.bool_), keys=of(key.shape, key.dtype), top_k=of((), jnp.int32),
        ignore_end=of((), jnp.bool_), wants_top=of((), jnp.bool_), rates=of((len(RATES),), jnp.float32),
    )  # fmt: skip


def bucket_sizes(longest: int) -> tuple[int, ...]:
    """The padded sizes of prompts of up to `longest` tokens: 16, 64, 256, ... and `longest`."""
    sizes = [SMALLEST]
    while sizes[-1] < longest:
        sizes.append(sizes[-1] * GROWTH)
    return (*sizes[:-1], longest)
