"""Drawing tokens: top-k and top-p against a NumPy reference, frequencies, and independence of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.core.task import Generate
from research.ops.sampling import draw, filtered, sample

VOCABULARY, END = 7, 6


def reference(logits, temperature, top_k, top_p):
    """Probability of each token of one row in float64, by sorting and adding up."""
    scaled = np.asarray(logits, np.float64) / temperature
    order = sorted(range(len(scaled)), key=lambda token: (-scaled[token], token))
    kept = order[: top_k or len(order)]
    probability = {token: np.exp(scaled[token] - scaled[order[0]]) for token in kept}
    total, reached, nucleus = sum(probability.values()), 0.0, []
    for token in kept:
        nucleus.append(token)
        reached += probability[token] / total
        if reached >= top_p:
            break
    result = np.zeros(len(scaled))
    for token in nucleus:
        result[token] = probability[token]
    return result / result.sum()


@jax.jit
def probabilities(logits, temperature, top_k, top_p):
    scaled, order = filtered(logits, temperature, top_k, top_p)
    rows = jnp.arange(len(logits))[:, None]
    return jnp.zeros_like(logits).at[rows, order].set(jax.nn.softmax(scaled, axis=-1))


@given(
    st.integers(0, 10**6),
    st.lists(
        st.tuples(st.floats(0.2, 3.0), st.integers(0, 12), st.floats(0.05, 1.0)), min_size=4, max_size=4
    ),
)
@settings(max_examples=40, deadline=None)
def test_filter_equals_reference(seed, rows):
    logits = np.random.default_rng(seed).normal(size=(4, 11)).astype(np.float32) * 2
    temperature, top_k, top_p = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    result = probabilities(logits, temperature, top_k.astype(np.int32), top_p)
    for row in range(4):
        expected = reference(logits[row], temperature[row], int(top_k[row]), top_p[row])
        np.testing.assert_allclose(result[row], expected, atol=1e-5)


def test_equal_logits_keep_exactly_k():
    result = probabilities(jnp.zeros((1, 5)), 1.0, 2, 1.0)
    np.testing.assert_allclose(result, [[0.5, 0.5, 0, 0, 0]])


def test_frequencies_are_the_probabilities():
    logits = jnp.array([1.0, 0.5, 0.0, -1.0, 2.0, -3.0])
    count = 10_000
    rows = np.broadcast_to(np.asarray(logits), (count, 6))
    run = jax.jit(lambda key: draw(rows, jax.random.split(key, count), 0.7, 4, 0.9))
    tokens = np.asarray(run(jax.random.key(0)))
    expected = reference(logits, 0.7, 4, 0.9)
    np.testing.assert_allclose(np.bincount(tokens, minlength=6) / count, expected, atol=0.015)
    assert set(np.unique(tokens)) <= set(np.flatnonzero(expected))


def test_zero_temperature_is_greedy_even_row_by_row():
    logits = jax.random.normal(jax.random.key(0), (3, 50))
    keys = jax.random.split(jax.random.key(1), 3)
    best = np.argmax(np.asarray(logits), axis=-1)
    run = jax.jit(draw)
    np.testing.assert_array_equal(draw(logits, keys, 0.0), best)
    mixed = run(logits, keys, jnp.array([0.0, 5.0, 0.0]))
    np.testing.assert_array_equal(np.asarray(mixed)[[0, 2]], best[[0, 2]])


def toy(limit=12, ends=None):
    """A model whose next token is likely its last plus one; its cache is only the position."""

    def start(variables, prompts, capacity):
        return {'position': prompts['length'] - 1}

    def step(variables, cache, tokens):
        logits = jax.nn.one_hot((tokens + 1) % VOCABULARY, VOCABULARY) * variables
        return {'position': cache['position'] + 1}, logits

    return Generate(start, step, (END,) if ends is None else ends, limit)


def test_stops_at_the_end_token_and_at_the_limit():
    prompts = {'tokens': jnp.array([[3, 0, 0], [0, 1, 2], [5, 0, 0]]), 'length': jnp.array([1, 3, 1])}
    keys = jax.random.split(jax.random.key(0), 3)
    result = jax.jit(lambda: sample(toy(), 1e4, prompts, keys, 8, 0.0))()
    np.testing.assert_array_equal(result.length, [3, 4, 1])
    np.testing.assert_array_equal(result.tokens[0], [4, 5, 6, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(result.tokens[1], [3, 4, 5, 6, 0, 0, 0, 0])
    np.testing.assert_array_equal(result.tokens[2], [6, 0, 0, 0, 0, 0, 0, 0])
    short = jax.jit(lambda: sample(toy(limit=4), 1e4, prompts, keys, 8, 0.0))()
    np.testing.assert_array_equal(short.length, [3, 1, 1])  # prompt and continuation have four positions
    full = jax.jit(lambda: sample(toy(limit=3), 1e4, prompts, keys, 8, 0.0))()
    np.testing.assert_array_equal(full.length, [2, 0, 1])


@pytest.mark.parametrize(('ends', 'length'), [((6, 4), [1, 2]), ((), [8, 7]), ((9, 5), [2, 3])])
def test_any_of_several_end_tokens_ends_a_row(ends, length):
    prompts = {'tokens': jnp.array([[3, 0, 0], [0, 1, 2]]), 'length': jnp.array([1, 3])}
    keys = jax.random.split(jax.random.key(0), 2)
    result = jax.jit(lambda: sample(toy(limit=10, ends=ends), 1e4, prompts, keys, 8, 0.0))()
    np.testing.assert_array_equal(result.length, length)
    assert not result.tokens[0, length[0] :].any()


def test_a_row_does_not_depend_on_its_batch():
    tokens, length = jnp.array([[1, 2, 0], [4, 0, 0], [0, 1, 2]]), jnp.array([2, 1, 3])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), jnp.arange(3))

    @jax.jit
    def run(rows):
        prompts = {'tokens': tokens[rows], 'length': length[rows]}
        return sample(toy(), 2.0, prompts, keys[rows], 8, 1.0, 0, 0.9)

    whole, alone, turned = run(jnp.arange(3)), run(jnp.array([1])), run(jnp.array([2, 1, 0]))
    np.testing.assert_array_equal(whole.tokens[1], alone.tokens[0])
    np.testing.assert_array_equal(whole.tokens, turned.tokens[::-1])
    np.testing.assert_array_equal(whole.length, turned.length[::-1])
