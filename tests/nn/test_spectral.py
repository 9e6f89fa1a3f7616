"""Spectral norm against NumPy's singular values, and what is kept of the iteration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.nn.apply import initialize, run
from research.nn.spectral import Conv, Dense, Embed

RNG = np.random.default_rng(0)
INPUTS = {
    'dense': (lambda spectral: Dense(5, spectral), jnp.float32(RNG.normal(size=(3, 7)))),
    'conv': (lambda spectral: Conv(5, 3, spectral), jnp.float32(RNG.normal(size=(2, 4, 4, 3)))),
    'embed': (lambda spectral: Embed(6, 4, spectral), jnp.array([0, 3, 5])),
}


@pytest.mark.parametrize('kind', INPUTS)
def test_kernel_is_divided_by_its_largest_singular_value(kind):
    make, inputs = INPUTS[kind]
    module = make(True)
    params, collections = initialize(module, jax.random.key(0), inputs, False)
    name = 'embedding' if kind == 'embed' else 'kernel'
    assert collections['spectral']['right'].dtype == jnp.float32
    train = jax.jit(lambda state: run(module, params, state, inputs, train=True, key=jax.random.key(0)))
    for _ in range(60):  # one iteration a step: it converges while the kernel changes slowly
        _, collections = train(collections)
    found, unchanged = run(module, params, collections, inputs, train=False, key=None)
    assert unchanged is collections
    matrix = np.float64(params[name]).reshape(-1, params[name].shape[-1])
    divided = {**params, name: params[name] / np.float32(np.linalg.svd(matrix)[1][0])}
    expected, _ = run(make(False), divided, {}, inputs, train=False, key=None)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_one_iteration_a_step_and_its_gradient():
    module, inputs = Dense(5, True, bias=False), INPUTS['dense'][1]
    params, collections = initialize(module, jax.random.key(0), inputs, False)
    kernel, right = np.float64(params['kernel']), np.float64(collections['spectral']['right'])
    left = kernel @ right / np.linalg.norm(kernel @ right)
    after = left @ kernel / np.linalg.norm(left @ kernel)
    sigma = left @ kernel @ after

    def loss(kernel):
        outputs, state = run(module, {'kernel': kernel}, collections, inputs, train=True, key=jax.random.key(0))
        return outputs.sum(), state

    gradient, state = jax.grad(loss, has_aux=True)(params['kernel'])
    np.testing.assert_allclose(state['spectral']['right'], after, rtol=1e-4, atol=1e-6)
    # d/dW of sum(x W) / (u W v), u and v held: x^T 1 / s - sum(x W) u v^T / s^2
    x = np.float64(inputs)
    by_hand = np.outer(x.sum(0), np.ones(5)) / sigma - (x @ kernel).sum() * np.outer(left, after) / sigma**2
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-4, atol=1e-5)
