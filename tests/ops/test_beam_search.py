"""Beam search against all texts of a tiny vocabulary, greedy choice, and rows that must not disturb each other."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core.task import Generate
from research.errors import UserError
from research.ops.beam_search import beam_search
from research.ops.sampling import sample

VOCABULARY, END, STATES, MOST = 4, 0, 211, 4


def toy(limit=64, ends=None):
    """A model whose next token depends on all before it, by way of a state; the weights are a table of logits."""

    def start(variables, prompts, capacity):
        state = jnp.zeros(prompts['length'].shape, jnp.int32)
        for column in range(prompts['tokens'].shape[1]):
            state = jnp.where(column < prompts['length'] - 1, after(state, prompts['tokens'][:, column]), state)
        return {'state': state, 'wide': jnp.stack([state, -state], axis=1)}

    def step(variables, cache, tokens):
        state = after(cache['state'], tokens)
        return {'state': state, 'wide': cache['wide'] + 1}, variables[state]

    return Generate(start, step, (END,) if ends is None else ends, limit)


def after(state, token):
    return (state * 7 + token * 3 + 1) % STATES


def table(seed):
    return (np.random.default_rng(seed).normal(size=(STATES, VOCABULARY)) * 1.5).astype(np.float32)


def every_text(logits, prompt, max_tokens, exponent, ends=(END,)):
    """Returns [(score, finished, tokens)] of every text, in float64: those that end, then those cut at `max_tokens`."""
    logs = logits.astype(np.float64)
    logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    found = []
    for length in range(1, max_tokens + 1):
        inner = [token for token in range(VOCABULARY) if token not in ends]
        for body in itertools.product(inner, repeat=length - 1):
            for last in range(VOCABULARY):
                if last not in ends and length < max_tokens:
                    continue
                state, total = 0, 0.0
                for token in prompt[:-1]:
                    state = after(state, token)
                for before, token in zip((prompt[-1], *body), (*body, last), strict=True):
                    state = after(state, before)
                    total += logs[state, token]
                found.append((total / ((5 + length) / 6) ** exponent, last in ends, (*body, last)))
    return sorted(found, key=lambda each: (not each[1], -each[0]))


PROMPTS = {'tokens': jnp.array([[1, 0, 0], [2, 3, 1], [3, 2, 0]]), 'length': jnp.array([1, 3, 2])}


@functools.partial(jax.jit, static_argnames=('max_tokens', 'limit', 'ends', 'beams', 'results', 'length_penalty'))
def run(logits, prompts, max_tokens, limit, ends=None, **settings):
    return beam_search(toy(limit, ends), logits, prompts, max_tokens, **settings)


def search(logits, prompts=PROMPTS, max_tokens=MOST, limit=64, **settings):
    return jax.device_get(run(jnp.asarray(logits), prompts, max_tokens=max_tokens, limit=limit, **settings))


@pytest.mark.parametrize(
    ('exponent', 'ends'), [(0.0, (END,)), (1.0, (END,)), (1.0, (END, 2)), (0.0, (3, 1, 0)), (1.0, ())]
)
def test_a_wide_beam_finds_the_best_of_all_texts(exponent, ends):
    for seed in (0, 1, 2):
        logits = table(seed)
        found = search(logits, beams=128, results=5, length_penalty=exponent, ends=ends)
        for row, length in enumerate(PROMPTS['length']):
            prompt = np.asarray(PROMPTS['tokens'])[row, : int(length)].tolist()
            expected = every_text(logits, prompt, MOST, exponent, ends)[:5]
            np.testing.assert_allclose(found.score[row], [each[0] for each in expected], rtol=1e-4)
            for place, (_, finished, tokens) in enumerate(expected):
                assert found.finished[row, place] == finished
                assert tuple(found.tokens[row, place, : found.length[row, place]]) == tokens
                assert not found.tokens[row, place, found.length[row, place] :].any()


def test_one_beam_is_greedy():
    logits = table(3)
    found = search(logits, max_tokens=12, beams=1, length_penalty=1.0)
    keys = jax.random.split(jax.random.key(0), 3)
    greedy = jax.jit(lambda: sample(toy(), jnp.asarray(logits), PROMPTS, keys, 12, 0.0))()
    np.testing.assert_array_equal(found.tokens[:, 0], greedy.tokens)
    np.testing.assert_array_equal(found.length[:, 0], greedy.length)


def test_a_narrow_beam_stays_full_when_several_tokens_end_a_text():
    """The two likeliest tokens both end a text; of two beams, two must go on."""
    logits = np.tile(np.array([5.0, 4.0, 1.0, 0.0], np.float32), (STATES, 1))
    prompts = {'tokens': jnp.array([[2]]), 'length': jnp.array([1])}
    found = search(logits, prompts, max_tokens=3, beams=2, results=2, ends=(0, 1))
    assert found.finished.all() and found.tokens[0, :, 0].tolist() == [0, 1] and found.length.tolist() == [[1, 1]]
    found = search(logits, prompts, max_tokens=3, beams=4, results=4, ends=(0, 1), length_penalty=0.0)
    assert found.finished.all() and found.length[0].tolist() == [1, 1, 2, 2]


def test_a_finished_text_is_kept_while_others_go_on():
    logits = np.full((STATES, VOCABULARY), -9.0, np.float32)
    logits[:, 1], logits[:, END] = 0.0, -8.0  # going on with 1 is nearly certain everywhere
    logits[after(0, 1)] = [0.0, -0.1, -9.0, -9.0]  # but the first text of all, the empty one, ends likeliest
    prompts = {'tokens': jnp.array([[1]]), 'length': jnp.array([1])}
    found = search(logits, prompts, max_tokens=6, beams=3, results=2, length_penalty=0.0)
    assert found.finished.all() and found.length[0, 0] == 1 and found.tokens[0, 0, 0] == END
    assert found.score[0, 0] == pytest.approx(-np.log(1 + np.exp(-0.1)), rel=1e-3)


def test_what_never_ends_is_cut_at_the_limit():
    logits = np.zeros((STATES, VOCABULARY), np.float32)
    logits[:, 2], logits[:, END] = 5.0, -1e9
    prompts = {'tokens': jnp.array([[1, 0], [1, 2]]), 'length': jnp.array([1, 2])}
    found = search(logits, prompts, max_tokens=8, limit=5, beams=2)
    assert not found.finished.any()
    np.testing.assert_array_equal(found.length[:, 0], [4, 3])  # prompt and continuation have five positions
    np.testing.assert_array_equal(found.tokens[0, 0], [2, 2, 2, 2, 0, 0, 0, 0])


def test_a_row_does_not_depend_on_its_batch():
    logits = table(5)
    whole = search(logits, max_tokens=10, beams=3, results=3)
    turned = search(logits, {name: value[::-1] for name, value in PROMPTS.items()}, max_tokens=10, beams=3, results=3)
    thrice = {name: jnp.repeat(value[1:2], 3, axis=0) for name, value in PROMPTS.items()}
    alone = search(logits, thrice, max_tokens=10, beams=3, results=3)
    for name in whole._fields:
        np.testing.assert_array_equal(getattr(whole, name), getattr(turned, name)[::-1])
        np.testing.assert_array_equal(getattr(whole, name)[1], getattr(alone, name)[0])
    assert (np.diff(whole.score, axis=1) <= 0).all()


@pytest.mark.parametrize('bad', [{'beams': 0}, {'results': 6}, {'length_penalty': -0.5}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        search(table(0), **bad)
