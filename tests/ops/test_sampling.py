"""Drawing tokens: the limits against a NumPy reference, frequencies, and independence of the path and the batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from research.core.task import Generate
from research.ops import sampling
from research.ops.sampling import draw, sample

VOCABULARY, END = 7, 6


def reference(logits, temperature, top_k, top_p, min_p=0.0):
    """Probability of each token of one row in float64, by sorting and adding up."""
    scaled = np.asarray(logits, np.float64) / temperature
    order = sorted(range(len(scaled)), key=lambda token: (-scaled[token], token))
    kept = order[: top_k or len(order)]
    probability = {token: np.exp(scaled[token] - scaled[order[0]]) for token in kept}
    total, reached, nucleus = sum(probability.values()), 0.0, []
    for token in kept:
        nucleus.append(token)
        reached += probability[token] / total
        if top_p < 1 and reached >= top_p:
            break
    result = np.zeros(len(scaled))
    for token in nucleus:
        if probability[token] >= min_p:
            result[token] = probability[token]
    return result / result.sum()


@jax.jit
def allowed_by(logits, temperature, top_k, top_p, min_p):
    """Which tokens may be drawn: by bisection, and from the candidates alone, where these are enough."""
    scaled = (logits - logits.max(axis=-1, keepdims=True)) / temperature[:, None]
    limits = sampling.Limits(jnp.where(top_k >= logits.shape[1], 0, top_k), top_p, min_p)
    values, ids = jax.lax.top_k(scaled, min(sampling.CANDIDATES, logits.shape[1]))
    few, enough = sampling.among_candidates(scaled, values, limits)
    by_candidates = jnp.zeros(logits.shape, bool).at[jnp.arange(len(logits))[:, None], ids].set(few)
    return sampling.kept(scaled, limits), by_candidates, enough


SETTINGS = st.tuples(
    st.floats(0.2, 3.0), st.integers(0, 12), st.one_of(st.just(1.0), st.floats(0.05, 1.0)),
    st.one_of(st.just(0.0), st.floats(0.0, 1.0)),
)  # fmt: skip


@pytest.mark.parametrize('candidates', [4, 256])
def test_both_paths_keep_what_the_reference_keeps(candidates, monkeypatch):
    monkeypatch.setattr(sampling, 'CANDIDATES', candidates)
    jax.clear_caches()  # the constant is part of the program
    covered = set()

    @given(st.integers(0, 10**6), st.lists(SETTINGS, min_size=4, max_size=4))
    @settings(max_examples=25, deadline=None)
    def check(seed, rows):
        logits = np.round(np.random.default_rng(seed).normal(size=(4, 11)).astype(np.float32) * 4) / 2  # with ties
        columns = [np.array(column, np.float32) for column in zip(*rows, strict=True)]
        columns[1] = columns[1].astype(np.int32)
        whole, few, enough = (np.asarray(value) for value in allowed_by(logits, *columns))
        covered.update(enough.tolist())
        for row in range(4):
            arguments = [float(columns[0][row]), int(columns[1][row]), float(columns[2][row]), float(columns[3][row])]
            around = [
                reference(logits[row], *arguments[:2], min(1.0, p), m) > 0
                for p in (arguments[2] * (1 - 1e-5), arguments[2] * (1 + 1e-5))
                for m in (arguments[3] * (1 - 1e-5), min(1.0, arguments[3] * (1 + 1e-5)))
            ]
            for answer in (whole[row], *([few[row]] if enough[row] else [])):  # float32 decides at the thresholds
                assert (answer <= np.any(around, axis=0)).all() and (answer >= np.all(around, axis=0)).all()

    check()
    assert covered == ({True, False} if candidates == 4 else {True})


def test_equal_logits_keep_exactly_k():
    ones = jnp.ones(2)
    whole, few, enough = allowed_by(jnp.zeros((2, 5)), ones, jnp.array([2, 0]), jnp.array([1.0, 0.5]), 0 * ones)
    np.testing.assert_array_equal(whole, [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(whole, few)
    assert enough.all()


@pytest.mark.parametrize('limits', [(4, 0.9, 0.0), (0, 0.9, 0.0), (0, 1.0, 0.0), (0, 1.0, 0.1), (5, 0.95, 0.05)])
def test_frequencies_are_the_probabilities(limits, monkeypatch):
    monkeypatch.setattr(sampling, 'CANDIDATES', 3)
    logits = jnp.array([1.0, 0.5, 0.0, -1.0, 2.0, -3.0])
    count = 10_000
    rows = np.broadcast_to(np.asarray(logits), (count, 6))
    tokens = np.asarray(jax.jit(lambda key: draw(rows, jax.random.split(key, count), 0.7, *limits))(jax.random.key(0)))
    expected = reference(logits, 0.7, *limits)
    frequencies = np.bincount(tokens, minlength=6) / count
    np.testing.assert_allclose(frequencies, expected, atol=0.015)
    drawn = expected > 0
    assert not frequencies[~drawn].any()
    squares = count * np.sum((frequencies - expected)[drawn] ** 2 / expected[drawn])
    assert squares < scipy.stats.chi2.ppf(0.999, max(drawn.sum() - 1, 1))


def test_a_row_draws_the_same_token_by_every_path_and_beside_any_rows(monkeypatch):
    count, vocabulary = 64, 40
    logits = jax.random.normal(jax.random.key(0), (count, vocabulary)) * 3
    keys = jax.random.split(jax.random.key(1), count)
    top_k, top_p = jnp.arange(count) % 9, jnp.where(jnp.arange(count) % 2, 0.9, 1.0)

    def tokens(candidates, rows):
        monkeypatch.setattr(sampling, 'CANDIDATES', candidates)
        return np.asarray(jax.jit(lambda: draw(logits[rows], keys[rows], 0.8, top_k[rows], top_p[rows]))())

    everyone = np.arange(count)
    whole = tokens(vocabulary, everyone)
    assert len(set(whole.tolist())) > 10
    for candidates in (1, 8):
        np.testing.assert_array_equal(tokens(candidates, everyone), whole)
    few = np.flatnonzero(np.asarray(top_k) > 0)  # none of these needs more than eight candidates
    np.testing.assert_array_equal(tokens(8, few), whole[few])


def test_no_program_sorts_the_vocabulary():
    rows = jnp.ones(2)

    def both(logits, keys, rates):
        _, top, ids = sampling.log_probabilities(logits, jnp.zeros(2, jnp.int32))
        return draw(logits, keys, rates, rates.astype(jnp.int32), rates, rates), top[:, :5], ids[:, :5]

    arguments = jnp.zeros((2, 1000)), jax.random.split(jax.random.key(0), 2), rows
    text = jax.jit(both).lower(*arguments).compile().as_text()
    if jax.default_backend() != 'cpu':
        pytest.skip('how a top is computed is known for CPUs')
    assert ' sort(' not in text and 'TopK' in text


def test_noise_is_finite_and_its_largest_values_are_rare():
    keys, ids = jax.random.split(jax.random.key(0), 50), jnp.broadcast_to(jnp.arange(4000), (50, 4000))
    drawn = jax.jit(lambda: sampling.gumbel(keys, ids))()
    assert np.isfinite(drawn).all()
    assert scipy.stats.kstest(np.asarray(drawn).ravel(), 'gumbel_r').pvalue > 0.001


def test_penalty_of_seen_tokens_and_log_probabilities_of_the_raw_distribution():
    logits, seen = jnp.array([[2.0, -1.0, 1.9, -3.0]]), jnp.array([[True, True, False, False]])
    penalized = sampling.penalized(logits, jnp.array([2.0]), seen)
    np.testing.assert_allclose(penalized, [[1.0, -2.0, 1.9, -3.0]])
    key = jax.random.split(jax.random.key(0), 1)
    assert draw(logits, key, 0.0) == 0 and draw(logits, key, 0.0, repetition_penalty=2.0, seen=seen) == 2
    hot = draw(logits, key, jnp.array([1e-4]), repetition_penalty=jnp.array([2.0]), seen=seen)
    assert hot == 2
    chosen, top, ids = sampling.log_probabilities(logits, jnp.array([1]), 3)
    exact = np.asarray(logits[0], np.float64) - np.log(np.exp(np.asarray(logits[0], np.float64)).sum())
    np.testing.assert_allclose(chosen, exact[[1]], rtol=1e-6)
    np.testing.assert_array_equal(ids, [[0, 2, 1]])
    np.testing.assert_allclose(top, exact[None, [0, 2, 1]], rtol=1e-6)
    assert sampling.log_probabilities(logits, jnp.array([1]))[1].shape == (1, 4)  # the vocabulary has no more


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


def test_a_repetition_penalty_counts_prompt_and_continuation():
    prompts = {'tokens': jnp.array([[3, 0], [0, 1]]), 'length': jnp.array([1, 2])}  # the 0 of the first row is padding
    keys = jax.random.split(jax.random.key(0), 2)

    def run(penalty):
        return sample(toy(limit=20, ends=()), 4.0, prompts, keys, 9, 0.0, repetition_penalty=penalty)

    plain, forbidding = jax.jit(functools.partial(run, 1.0))(), jax.jit(functools.partial(run, 1e9))()
    np.testing.assert_array_equal(plain.tokens[0], [4, 5, 6, 0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(forbidding.tokens[0, :6], [4, 5, 6, 0, 1, 2])
    np.testing.assert_array_equal(forbidding.tokens[1, :5], [2, 3, 4, 5, 6])
