"""Models of text against independent references: an LSTM in float64 NumPy, convolutions window by window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import UserError, unpack
from research.nn import apply
from research.nn.lstm import LSTM
from research.nn.sequence_models import SequenceConvolution
from research.nn.text_models import NGramBag, TextConvolution, TextLSTM
from research.nn.text_transformer import TextTransformer
from research.nn.transformer_settings import TransformerSettings

KEY = jax.random.key(3)


def initialize(module, key, *inputs):
    return jax.jit(lambda key: apply.initialize(module, key, *inputs))(key)


def run(module, params, collections, *inputs, train, key):
    def compute(params, inputs, key):
        return apply.run(module, params, collections, *inputs, train=train, key=key)

    return jax.jit(compute)(params, inputs, key)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_in_float64(params, inputs, there, input_mask=1.0, state_mask=1.0, reverse=False):
    """The recurrence one text and one step at a time; the gates stand in the order i, f, g, o."""
    kernel, recurrent, bias = (np.asarray(params[name], np.float64) for name in ('kernel', 'recurrent_kernel', 'bias'))
    batch, length, _ = inputs.shape
    width = recurrent.shape[0]
    states = np.zeros((batch, length, width))
    for row in range(batch):
        hidden, cell = np.zeros(width), np.zeros(width)
        masks = [mask if np.isscalar(mask) else mask[row] for mask in (input_mask, state_mask)]
        for step in reversed(range(length)) if reverse else range(length):
            if there[row, step]:
                gates = (inputs[row, step] * masks[0]) @ kernel + (hidden * masks[1]) @ recurrent + bias
                i, f, g, o = np.split(gates, 4)
                cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
                hidden = sigmoid(o) * np.tanh(cell)
            states[row, step] = hidden
    return states


@pytest.mark.parametrize('reverse', [False, True])
def test_the_lstm_is_the_recurrence_of_its_paper(reverse):
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(3, 7, 5))
    there = np.arange(7) < np.array([7, 4, 1])[:, None]
    module = LSTM(6, reverse=reverse)
    params, _ = initialize(module, KEY, jnp.asarray(inputs, jnp.float32), there)
    assert params['bias'].tolist() == [0] * 6 + [1] * 6 + [0] * 12
    square = np.asarray(params['recurrent_kernel'], np.float64)
    np.testing.assert_allclose(square @ square.T, np.eye(6), atol=1e-5)  # orthogonal
    assert np.abs(params['kernel']).max() <= np.sqrt(6 / (5 + 24))  # Glorot
    (states, last), _ = run(module, params, {}, jnp.asarray(inputs, jnp.float32), there, train=False, key=KEY)
    expected = lstm_in_float64(params, inputs, there, reverse=reverse)
    np.testing.assert_allclose(states, expected, atol=2e-6)
    np.testing.assert_allclose(last, expected[:, 0 if reverse else -1], atol=2e-6)


def test_dropout_masks_of_the_lstm_do_not_change_over_time():
    """The masks that explain the first step, of inputs and of state, explain all steps."""
    inputs, there = np.random.default_rng(1).normal(size=(2, 6, 4)), np.ones((2, 6), bool)
    module = LSTM(5, dropout=0.4, recurrent_dropout=0.3)
    params, _ = initialize(module, KEY, jnp.asarray(inputs, jnp.float32), there)
    (states, _), _ = run(module, params, {}, jnp.asarray(inputs, jnp.float32), there, train=True, key=KEY)
    found = []
    for size, rate in ((4, 0.4), (5, 0.3)):
        choices = [np.array([(n >> bit) & 1 for bit in range(size)]) / (1 - rate) for n in range(2**size)]
        found.append(choices)
    for row in range(2):
        pick, mask = slice(row, row + 1), []
        for choices, part in ((found[0], 1), (found[1], 6)):
            errors = [
                np.abs(
                    lstm_in_float64(params, inputs[pick, :part], there[pick, :part], *mask, each[None])
                    - states[pick, :part]
                ).max()
                for each in choices
            ]
            assert min(errors) < 5e-6
            mask.append(choices[int(np.argmin(errors))][None])


def test_the_convolution_is_the_maximum_over_windows_of_real_words():
    tokens = np.array([[4, 5, 6, 0, 0], [7, 4, 4, 5, 6]], np.int32)
    length = np.array([3, 5], np.int32)
    module = TextConvolution(8, 2, width=3, windows=(2, 3), filters=4, dropout=0.0)
    params, _ = initialize(module, KEY, tokens, length, tokens)
    scores, _ = run(module, params, {}, tokens, length, tokens, train=False, key=KEY)
    table = np.asarray(params['input']['tokens']['embedding'], np.float64)
    for row in range(2):
        vectors, found = table[tokens[row, : length[row]]], []
        for size in (2, 3):
            kernel, bias = (np.asarray(params[f'window_{size}'][name], np.float64) for name in ('kernel', 'bias'))
            kernel = kernel.reshape(size, 3, 4)
            padded = np.pad(vectors, ((size - 1, size - 1), (0, 0)))
            found_windows = [padded[start : start + size] for start in range(len(padded) - size + 1)]
            values = [np.maximum(np.einsum('wd,wdf->f', window, kernel) + bias, 0) for window in found_windows]
            found.append(np.max(values, axis=0))
        head = params['head']
        expected = np.concatenate(found) @ head['kernel'] + head['bias']
        np.testing.assert_allclose(scores[row], expected, rtol=1e-4, atol=1e-5)


SHAPE = TransformerSettings(vocabulary=8, length=9, width=8, layers=1, heads=2, causal=False, types=2, pooler=True)
READERS = {
    'convolution': TextConvolution(8, 2, width=3, windows=(2,), filters=4),
    'lstm': TextLSTM(8, 2, width=4, hidden=3, bidirectional=True, pool='max'),
    'last': TextLSTM(8, 2, width=4, hidden=3, bidirectional=True),
    'pooler': TextTransformer(SHAPE, 2, 'pooler'),
}


@pytest.mark.parametrize('name', READERS)
def test_padding_changes_nothing(name):
    module, length = READERS[name], np.array([3, 5], np.int32)
    tokens = np.array([[4, 5, 6, 0, 0], [7, 4, 4, 5, 6]], np.int32)
    longer = np.pad(tokens, ((0, 0), (0, 4)))
    params, _ = initialize(module, KEY, tokens, length, np.zeros_like(tokens))
    scores = [
        run(module, params, {}, each, length, np.zeros_like(each), train=False, key=KEY)[0] for each in (tokens, longer)
    ]
    np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-6)
    if name == 'last':  # padding on the left is passed over too
        left = np.array([[0, 0, 4, 5, 6], [7, 4, 4, 5, 6]], np.int32)
        np.testing.assert_allclose(
            run(module, params, {}, left, length, left, train=False, key=KEY)[0], scores[0], rtol=1e-5, atol=1e-6
        )
    if name == 'pooler':
        typed = run(module, params, {}, tokens, length, np.ones_like(tokens), train=False, key=KEY)[0]
        assert not np.allclose(typed, scores[0], atol=1e-4)


def test_spatial_dropout_drops_a_feature_in_all_words():
    from research.nn.text_models import TokenInput

    module = TokenInput(8, 40, 0.25, spatial_dropout=0.4)
    tokens = np.arange(1, 7, dtype=np.int32)[None]
    params = module.init({'params': KEY}, tokens, False)
    seen = module.apply(params, tokens, True, rngs={'dropout': KEY})[0]
    table = params['params']['tokens']['embedding'][tokens[0]]
    ratio = np.asarray(seen / table)
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:1], ratio.shape), rtol=1e-6)
    np.testing.assert_allclose(np.unique(ratio.round(4)), [0, 1.6667], atol=1e-3)


def test_a_bag_of_ngrams_is_a_mean_or_a_sum():
    features = np.array([[1, 3, 3, 0], [2, 0, 0, 0]], np.int32)
    module = NGramBag(4, 2, width=3)
    params, _ = initialize(module, KEY, features)
    table, head = np.asarray(params['grams']['embedding']), params['head']
    expected = np.stack([table[[1, 3, 3]].mean(0), table[2]]) @ head['kernel'] + head['bias']
    scores = run(module, params, {}, features, train=False, key=KEY)[0]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    linear = NGramBag(4, 2, width=0)
    params, _ = initialize(linear, KEY, features)
    params['grams']['embedding'] = weights = np.arange(8.0).reshape(4, 2)
    ratios = np.array([[0, 0], [1, 2], [3, 4], [5, 6]], np.float32)
    expected = [(weights * ratios)[[1, 3, 3]].sum(0), (weights * ratios)[2]]
    np.testing.assert_allclose(run(linear, params, {}, features, ratios, train=False, key=KEY)[0], expected)
    unit = NGramBag(4, 2, width=0, unit_length=True)
    expected = np.array(expected) / [np.linalg.norm(ratios[[1, 3, 3]], axis=0), ratios[2]]
    found = run(unit, params, {}, features, ratios, train=False, key=KEY)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('pool', ['flat', 'max', 'mean'])
def test_a_sequence_is_padded_with_nothing(pool):
    module = SequenceConvolution(2, filters=(4, 4), window=3, hidden=3, pool=pool)
    inputs = np.random.default_rng(0).random((2, 8, 4)).astype(np.float32)
    length = np.array([5, 8], np.int32)
    params, _ = initialize(module, KEY, inputs, length)
    changed = inputs.copy()
    changed[0, 5:] = 9.0
    scores = [run(module, params, {}, each, length, train=False, key=KEY)[0] for each in (inputs, changed)]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize(('kind', 'settings', 'message'), [
    (TextConvolution, {'windows': ()}, 'windows must be non-empty'),
    (TextConvolution, {'word_dropout': 1.0}, 'word_dropout must be at least zero and below 1'),
    (TextLSTM, {'recurrent_dropout': -0.1}, 'recurrent_dropout must be'),
    (NGramBag, {'width': -1}, 'width must be zero or more'),
    (NGramBag, {'unit_length': True}, 'width must be zero .a linear model. with unit_length, got 10'),
    (SequenceConvolution, {'hidden': -1}, 'hidden must be zero or more'),
])  # fmt: skip
def test_models_that_cannot_be_are_refused(kind, settings, message):
    given = {'vocabulary': 8, 'units': 2} if kind is not NGramBag else {'features': 4, 'units': 2}
    with pytest.raises(UserError, match=f'config.model.{message}'):
        unpack(kind, settings, 'model', **given)
