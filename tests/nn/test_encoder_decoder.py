"""The encoder-decoder: padding, causality, packing, its cache, and what is stored."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core.task import Aux, Context, Task, Variables
from research.errors import UserError
from research.methods import lora
from research.nn.encoder_decoder import EncoderDecoder
from research.nn.transformer_settings import TransformerSettings

pytestmark = pytest.mark.slow  # compiles many models

PAPER = TransformerSettings(
    vocabulary=40, length=16, width=16, layers=2, decoder_layers=1, heads=4, norm_position='post',
    positions='sinusoidal', activation='relu', query_key_value_bias=True, output_bias=True,
    feed_forward_bias=True, embedding_scale=True, initial_scale=0.25, scan=True,
)  # fmt: skip
T5 = TransformerSettings(
    vocabulary=40, length=16, width=16, layers=2, heads=2, head_width=4, norm='rms', positions='relative',
    relative_buckets=8, relative_distance=10, activation='gelu_tanh', gated=True, attention_scale=False,
    head_scale=True, scan=True,
)  # fmt: skip
SHAPES = {'paper': PAPER, 't5': T5}
LENGTHS = np.array([7, 3, 5], np.int32)


@functools.cache
def build(name):
    """Returns a model, NumPy parameters (scales and biases random too), a source and target tokens."""
    settings, rng = SHAPES[name], np.random.default_rng(0)
    model, one = EncoderDecoder(settings), jnp.zeros((1, 1), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), one, None, one)['params']
    params = jax.tree.map(lambda leaf: rng.normal(0.1, 0.3, leaf.shape).astype(np.float32), shapes)
    source, tokens = (rng.integers(0, 40, (3, size), dtype=np.int32) for size in (7, 9))
    run = jax.jit(lambda *arguments: model.apply({'params': params}, *arguments))
    return model, params, source, tokens, run


@pytest.mark.parametrize('name', SHAPES)
def test_sees_neither_padding_nor_what_follows(name):
    *_, source, tokens, run = build(name)
    logits = run(source, LENGTHS, tokens)
    assert logits.shape == (3, 9, 40) and logits.dtype == jnp.float32
    padding = np.where(np.arange(7) < LENGTHS[:, None], source, 1)
    np.testing.assert_array_equal(logits, run(padding, LENGTHS, tokens))
    later = np.where(np.arange(9) < 6, tokens, 2)
    np.testing.assert_array_equal(logits[:, :6], run(source, LENGTHS, later)[:, :6])
    earlier, other = np.where(np.arange(9) > 0, tokens, 3), np.where(np.arange(7) > 0, source, 3)
    assert not np.allclose(logits[:, 8], run(source, LENGTHS, earlier)[:, 8])
    assert not np.allclose(logits[:, 8], run(other, LENGTHS, tokens)[:, 8])


@pytest.mark.parametrize('name', SHAPES)
def test_cached_steps_equal_the_whole(name):
    model, params, source, tokens, run = build(name)
    expected = run(source, LENGTHS, tokens)
    variables = {'params': params}

    @jax.jit
    def start(source):
        memory = model.apply(variables, source, LENGTHS, method='encode')
        return model.apply(variables, memory, LENGTHS, 12, method='start_cache')

    step = jax.jit(lambda cache, tokens: model.apply(variables, cache, tokens, method='step'))
    cache = start(source)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(cache)} == {3}
    assert cache['position'].dtype == jnp.int32 and len(cache['cross_key']) == model.settings.decoder.layers
    cross = np.stack(cache['cross_key'])
    for position in range(9):
        if position == 5:  # rows may be swapped at any time: two at once make a beam
            cache = jax.tree.map(lambda leaf: leaf[::-1], cache)
            tokens, expected = tokens[::-1], expected[::-1]
        cache, logits = step(cache, tokens[:, position])
        np.testing.assert_allclose(logits, expected[:, position], atol=3e-5)
    np.testing.assert_array_equal(cross[:, ::-1], np.stack(cache['cross_key']))


@pytest.mark.parametrize('name', SHAPES)
def test_packed_pairs_equal_separate_ones(name):
    *_, source, tokens, run = build(name)
    lengths = [np.full(3, count, np.int32) for count in (3, 4)]
    first = run(source, lengths[0], tokens)[:, :4]
    second = run(np.roll(source, -3, 1), lengths[1], np.roll(tokens, -4, 1))[:, :5]
    marks = [np.broadcast_to([1] * first + [2] * (count - first), (3, count)) for first, count in ((3, 7), (4, 9))]
    packed = run(source, None, tokens, None, *marks)
    np.testing.assert_allclose(packed, np.concatenate([first, second], axis=1), atol=2e-5)


def test_stores_stacked_blocks_under_the_usual_names():
    params = build('paper')[1]
    assert set(params) == {'tokens', 'encoder', 'decoder'}
    assert set(params['encoder']) == {'blocks'}  # post-norm ends with a block's norm; sinusoids are no parameters
    cross = params['decoder']['blocks']['cross']
    assert cross['query']['kernel'].shape == (1, 16, 16) and set(cross) == {'query', 'key', 'value', 'out'}
    assert params['encoder']['blocks']['attention']['query']['kernel'].shape == (2, 16, 16)
    params = build('t5')[1]
    assert params['decoder']['relative']['embedding'].shape == (8, 2)
    assert set(params['decoder']) == {'blocks', 'final_norm', 'relative'}
    assert set(params['encoder']['final_norm']) == {'scale'}


def test_a_source_may_have_its_own_vocabulary_and_the_head_its_own_kernel():
    settings = dataclasses.replace(PAPER, source_vocabulary=9, tie_embedding=False, head_bias=True)
    one = jnp.zeros((1, 1), jnp.int32)
    shapes = jax.eval_shape(EncoderDecoder(settings).init, jax.random.key(0), one, None, one)['params']
    assert shapes['source_tokens']['embedding'].shape == (9, 16)
    assert shapes['head']['kernel'].shape == (16, 40) and shapes['head']['bias'].shape == (40,)


def test_training_drops_out_by_its_key():
    settings = dataclasses.replace(T5, dropout=0.2, hidden_dropout=0.2, output_dropout=0.2, attention_dropout=0.2)
    model, params, source, tokens, run = build('t5')
    train = EncoderDecoder(settings, train=True)

    @jax.jit
    def noisy(seed):
        return train.apply({'params': params}, source, LENGTHS, tokens, rngs={'dropout': jax.random.key(seed)})

    np.testing.assert_array_equal(noisy(0), noisy(0))
    assert not np.allclose(noisy(0), noisy(1))


def test_too_long_texts_are_refused():
    model, params, *_ = build('t5')
    long, one = np.zeros((1, 17), np.int32), np.zeros((1, 1), np.int32)
    for source, tokens in ((long, one), (one, long)):
        with pytest.raises(UserError, match='17 positions, and the model reads at most 16'):
            jax.eval_shape(lambda s=source, t=tokens: model.apply({'params': params}, s, None, t))


def test_adapters_train_and_leave_the_weights_alone():
    model, params, source, tokens, run = build('t5')

    def loss(variables, batch, context):
        logits = model.apply({'params': variables.params['model']}, source, LENGTHS, tokens)
        return jnp.sum(jax.nn.logsumexp(logits, -1) - logits[..., 0]), Aux(jnp.float32(27))

    task = Task(
        inputs={}, source=None, encode=None, init=lambda key: Variables({'model': params}, {}), losses={'model': loss},
        predict=lambda variables, batch, context: {}, metric_sums=None, metrics=None, decode=None,
    )  # fmt: skip
    adapted = lora.apply(task._replace(metrics=task.predict), lora.Settings(rank=2))
    variables, context = jax.jit(adapted.init)(jax.random.key(0)), Context(jax.random.key(1), jnp.int32(0), True)
    assert variables.params['model']['decoder']['blocks']['cross']['key']['kernel']['a'].shape == (2, 16, 2)
    assert variables.params['model']['encoder']['blocks']['feed_forward']['gate']['kernel']['b'].shape == (2, 2, 48)

    @jax.jit
    def both(adapters):
        def total(adapters):
            given = variables._replace(params={**variables.params, 'model': adapters})
            return adapted.losses['model'](given, {}, context)[0]

        return jax.value_and_grad(total)(adapters)

    value, gradient = both(variables.params['model'])
    start = run(source, LENGTHS, tokens)
    np.testing.assert_allclose(value, np.sum(jax.nn.logsumexp(start, -1) - start[..., 0]), rtol=1e-5)
    moved = jax.tree.map(lambda w, g: w - 1e-3 * g, variables.params['model'], gradient)
    assert both(moved)[0] < value
