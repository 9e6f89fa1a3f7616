"""The perceptron against the same sums in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import UserError, unpack
from research.nn.apply import initialize, run
from research.nn.mlp import MLP


def test_scores_are_the_matrix_products_written_out():
    model = MLP(classes=3, widths=(5, 4))
    inputs = np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32)
    params, collections = initialize(model, jax.random.key(0), jnp.asarray(inputs))
    assert collections == {}
    hidden = inputs.reshape(2, -1).astype(np.float64)
    for name in ('hidden_0', 'hidden_1'):
        hidden = np.maximum(hidden @ np.asarray(params[name]['kernel']) + np.asarray(params[name]['bias']), 0)
    expected = hidden @ np.asarray(params['head']['kernel']) + np.asarray(params['head']['bias'])
    scores, _ = run(model, params, {}, inputs, train=False, key=None)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_dropout_acts_in_training_only_and_depends_on_the_key():
    model = MLP(classes=3, widths=(64,), dropout=0.5)
    inputs = jnp.ones((1, 4))
    params, _ = initialize(model, jax.random.key(0), inputs)

    def scores(train, seed):
        return np.asarray(run(model, params, {}, inputs, train=train, key=jax.random.key(seed))[0])

    np.testing.assert_array_equal(scores(False, 0), scores(False, 1))
    np.testing.assert_array_equal(scores(True, 0), scores(True, 0))
    assert not np.array_equal(scores(True, 0), scores(True, 1))


def test_no_hidden_layer_is_logistic_regression():
    params, _ = initialize(MLP(classes=3, widths=()), jax.random.key(0), jnp.ones((1, 4)))
    assert set(params) == {'head'}


def test_bfloat16_computes_with_float32_parameters_and_scores():
    model = MLP(classes=3, widths=(8,), dtype='bfloat16')
    params, _ = initialize(model, jax.random.key(0), jnp.ones((1, 4)))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype('float32')}
    assert run(model, params, {}, jnp.ones((1, 4)), train=False, key=None)[0].dtype == jnp.float32


@pytest.mark.parametrize(('settings', 'message'), [
    ({'widths': (8, 0)}, 'widths must be above zero'),
    ({'dropout': 1.0}, 'dropout must be at least zero and below 1'),
    ({'width': (8,)}, "did you mean 'widths'"),
    ({'activation': 'relo'}, "'relu'"),
])  # fmt: skip
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        unpack(MLP, settings, 'model', classes=3)
