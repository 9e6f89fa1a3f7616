"""The family of token tasks on a synthetic one: it learns, scores as NumPy does, and claims what it wrote."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from research.core.task import Context, Decoding, Host
from research.families import tokens
from research.models.tokens import decoder, generate_text, generate_uncached

LENGTH, NEW, WORDS = 8, 3, 6
SHAPE = {'width': 16, 'layers': 1, 'heads': 2, 'initial_scale': 0.3}
CONTEXT = Context(jax.random.key(1), jnp.int32(0), False)


def encode(raw, rng=None):
    return {'tokens': raw[:-1], 'targets': raw[1:], 'length': np.int32(LENGTH)}


@pytest.fixture(scope='module')
def task():
    """Texts count upwards from any word, and begin again after the last."""
    model = decoder(SHAPE, epath.Path('unused'), WORDS, LENGTH)
    generate = tokens.continue_text(
        generate_text(model, (), LENGTH), Decoding(NEW), LENGTH, lambda batch: batch['length'] // 2, False
    )
    rows = [(np.arange(LENGTH + 1) + start).astype(np.int32) % WORDS for start in range(WORDS)]
    return tokens.token_prediction(
        Host({}, encode, lambda outputs: outputs), lambda split: rows, model, np.full(WORDS, 9),
        predict=tokens.predict_text(generate), claim=tokens.claim_continuation, generate=generate,
    )  # fmt: skip


@pytest.fixture(scope='module')
def batch(task):
    rows = [task.encode(row) for row in task.source('train')]
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {**stacked, 'mask': np.float32([1, 1, 1, 1, 1, 0]), 'index': np.arange(WORDS)}


@pytest.fixture(scope='module')
def trained(task, batch):
    optimizer, variables = optax.adam(0.03), jax.jit(task.init)(jax.random.key(0))

    @jax.jit
    def step(variables, state):
        (total, aux), gradient = jax.value_and_grad(task.losses['model'], has_aux=True)(variables, batch, CONTEXT)
        changes, state = optimizer.update(gradient, state)
        return optax.apply_updates(variables, changes), state, total / aux.weight

    state, losses = optimizer.init(variables), []
    for _ in range(60):
        variables, state, loss = step(variables, state)
        losses.append(float(loss))
    assert losses[0] > 1.0 and losses[-1] < 0.1
    return variables


@pytest.fixture(scope='module')
def functions(task):
    """The task's device functions, compiled once; what is evaluated is asked as in training."""
    named = {'loss': task.losses['model'], 'score': task.score, 'sums': task.metric_sums, 'predict': task.predict}
    return {name: jax.jit(functools.partial(run, context=CONTEXT._replace(train=True))) for name, run in named.items()}


def reference(functions, variables, batch):
    """Log-probabilities of the targets in float64, 0 for those of -1."""
    logits = np.asarray(functions['loss'](variables, batch)[1].outputs['logits'], np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = np.asarray(batch['targets'])
    return np.take_along_axis(logs, np.maximum(targets, 0)[..., None], -1)[..., 0] * (targets >= 0)


def test_score_is_the_sum_of_log_probabilities_of_targets(task, functions, batch, trained):
    batch = {**batch, 'length': np.arange(1, 1 + WORDS)}
    expected = reference(functions, trained, batch) * (np.arange(LENGTH) < batch['length'][:, None])
    score, seen = functions['score'](trained, batch)
    np.testing.assert_allclose(score, expected.sum(-1) * batch['mask'], rtol=1e-4, atol=1e-6)
    total, aux = functions['loss'](trained, batch)
    assert seen == {} and aux.weight == 1 + 2 + 3 + 4 + 5
    assert float(total) == pytest.approx(-float(score.sum()), rel=1e-5)
    sums = functions['sums'](trained, batch)
    assert float(sums['nll']) == pytest.approx(float(total), rel=1e-6) and sums['tokens'] == 15
    assert task.metrics(sums)['loss'].baseline == pytest.approx(np.log(WORDS), rel=1e-6)


@pytest.mark.slow
def test_generation_without_a_cache_is_generation_with_one(task, batch, trained):
    model = decoder(SHAPE, epath.Path('unused'), WORDS, LENGTH)
    prompts, following = {'tokens': batch['tokens'][:, :4], 'length': np.array([1, 2, 3, 4, 4, 2])}, batch['tokens'].T
    last = np.take_along_axis(prompts['tokens'], prompts['length'][:, None] - 1, axis=1)[:, 0]

    def logits_of(generate):
        cache, logits = generate.start(trained, prompts, LENGTH), []
        for row in (last, following[0], following[3]):
            cache, scores = generate.step(trained, cache, row)
            logits.append(np.asarray(scores))
        return np.stack(logits)

    expected, without = logits_of(task.generate), logits_of(generate_uncached(model, (), LENGTH, never=2))
    assert np.isneginf(without[..., 2]).all()
    np.testing.assert_allclose(np.delete(without, 2, -1), np.delete(expected, 2, -1), rtol=1e-4, atol=1e-4)


def test_a_claim_is_the_text_that_was_written_and_only_that_is_scored(task, functions, batch, trained):
    outputs = functions['predict'](trained, batch)
    np.testing.assert_array_equal(outputs['tokens'], batch['targets'][:, 3:6])  # it has learnt to count
    claim = task.claim(batch, outputs)
    np.testing.assert_array_equal(claim['length'], [6] * WORDS)
    np.testing.assert_array_equal(claim['tokens'][:, :6], batch['tokens'][:, :6])
    np.testing.assert_array_equal(claim['targets'][:, 3:6], batch['targets'][:, 3:6])
    assert (np.delete(claim['targets'], (3, 4, 5), axis=1) == -1).all()
    score, _ = functions['score'](trained, claim)
    expected = reference(functions, trained, batch)[:, 3:6].sum(-1)
    np.testing.assert_allclose(score, expected * batch['mask'], rtol=1e-3, atol=1e-6)
