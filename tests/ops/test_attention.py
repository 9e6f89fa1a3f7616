"""Attention against a float64 NumPy reference, for every mask and every implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import UserError
from research.ops.attention import (
    QUERIES_PER_CHUNK,
    Mask,
    attention,
    attention_weights,
    automatic,
    kernel_for,
    weighted_values,
)

IMPLEMENTATIONS = ('einsum', 'chunked', 'fused')


def reference(query, key, value, visible, bias=0.0, scale=None):
    """Attention head by head in float64; `visible` [batch, queries, keys]."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    groups = query.shape[2] // key.shape[2]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    bias = np.broadcast_to(bias, (query.shape[0], query.shape[2], query.shape[1], key.shape[1]))
    output = np.zeros(query.shape)
    for head in range(query.shape[2]):
        logits = query[:, :, head] @ np.swapaxes(key[:, :, head // groups], 1, 2) * scale + bias[:, head]
        logits = np.where(visible, logits, -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        output[:, :, head] = weights / weights.sum(-1, keepdims=True) @ value[:, :, head // groups]
    return output


def case(name, queries, keys, rng):
    """Returns a mask and, written independently of it, which keys [batch, queries, keys] it shows."""
    i, j = np.arange(queries)[None, :, None], np.arange(keys)[None, None, :]
    causal, near = i >= j, (i - j < 5) & (j - i < 5)
    length, prefix = np.array([keys, 7, 1]), np.array([0, 3, keys])
    segments = np.sort(rng.integers(0, 3, (3, keys)), 1)
    positions = np.array([2, 0, keys - queries])[:, None] + np.arange(queries)
    same = segments[:, :queries, None] == segments[:, None, :]
    cases = {
        'none': (Mask(), j >= 0),
        'causal': (Mask(causal=True), causal),
        'padding': (Mask(key_length=length), j < length[:, None, None]),
        'causal and padding': (Mask(causal=True, key_length=length), causal & (j < length[:, None, None])),
        'window': (Mask(causal=True, window=5), causal & near),
        'two-sided window': (Mask(window=5), near),
        'band': (Mask(causal=True, band=np.int32(5)), causal & near),
        'no band': (Mask(causal=True, band=np.int32(0)), causal),
        'prefix': (Mask(causal=True, prefix=prefix), causal | (j < prefix[:, None, None])),
        'packed': (
            Mask(causal=True, query_segments=segments[:, :queries], key_segments=segments),
            causal & same,
        ),
        'packed, both sides': (Mask(query_segments=segments[:, :queries], key_segments=segments), same),
        'cached': (Mask(causal=True, query_positions=positions), positions[:, :, None] >= j),
        'cached window': (
            Mask(causal=True, window=5, query_positions=positions),
            (positions[:, :, None] >= j) & (positions[:, :, None] - j < 5),
        ),
    }
    mask, visible = cases[name]
    return jax.tree.map(jnp.asarray, mask), np.broadcast_to(visible, (3, queries, keys))


CASES = (
    'none', 'causal', 'padding', 'causal and padding', 'window', 'two-sided window', 'band', 'no band', 'prefix',
    'packed', 'packed, both sides', 'cached', 'cached window',
)  # fmt: skip


def inputs(rng, queries, keys, heads=4, key_heads=2, width=8):
    shapes = (3, queries, heads, width), (3, keys, key_heads, width), (3, keys, key_heads, width)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@functools.partial(jax.jit, static_argnames='scale')
def all_implementations(query, key, value, mask, bias=None, scale=None):
    """Returns {implementation: output}, one of them by explicit weights; one compilation serves all."""
    outputs = {
        name: attention(query, key, value, mask, bias=bias, scale=scale, implementation=name)
        for name in IMPLEMENTATIONS
    }
    weights = attention_weights(query, key, mask, bias, scale)
    return {**outputs, 'explicit': weighted_values(weights, value)}


@pytest.mark.parametrize('name', CASES)
def test_equals_reference(name):
    rng = np.random.default_rng(0)
    queries = keys = QUERIES_PER_CHUNK + 9
    arrays = inputs(rng, queries, keys)
    mask, visible = case(name, queries, keys, rng)
    for output in all_implementations(*arrays, mask).values():
        np.testing.assert_allclose(output, reference(*arrays, visible), atol=2e-6)


@pytest.mark.parametrize('name', ('none', 'causal', 'padding', 'cached', 'cached window'))
def test_fewer_queries_than_keys(name):
    rng = np.random.default_rng(1)
    arrays = inputs(rng, 3, 20)
    mask, visible = case(name, 3, 20, rng)
    for output in all_implementations(*arrays, mask).values():
        np.testing.assert_allclose(output, reference(*arrays, visible), atol=2e-6)


@pytest.mark.parametrize('key_heads', (1, 4))
def test_grouped_heads_bias_and_scale(key_heads):
    rng = np.random.default_rng(2)
    arrays = inputs(rng, 70, 70, key_heads=key_heads)
    bias = rng.normal(size=(1, 4, 70, 70)).astype(np.float32)
    mask, visible = case('causal', 70, 70, rng)
    for output in all_implementations(*arrays, mask, bias, 1.0).values():
        np.testing.assert_allclose(output, reference(*arrays, visible, bias, 1.0), atol=5e-6)


@pytest.mark.parametrize('name', ('causal', pytest.param('two-sided window', marks=pytest.mark.slow)))
def test_gradients_agree(name):
    rng = np.random.default_rng(3)
    arrays = inputs(rng, 130, 130)
    mask, _ = case(name, 130, 130, rng)
    weight = rng.normal(size=arrays[0].shape).astype(np.float32)

    @jax.jit
    def gradients(arrays):
        def total(arrays, implementation):
            return jnp.sum(attention(*arrays, mask, implementation=implementation) * weight)

        return [jax.grad(total)(arrays, implementation) for implementation in IMPLEMENTATIONS]

    first, *others = gradients(arrays)
    for other in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-6), first, other)


def test_query_that_sees_nothing_stays_finite():
    arrays = inputs(np.random.default_rng(4), 8, 8)
    mask = Mask(query_segments=jnp.full((3, 8), 1), key_segments=jnp.full((3, 8), 2))

    @jax.jit
    def gradients(arrays):
        def total(arrays):
            return sum(jnp.sum(output) for output in all_implementations(*arrays, mask).values())

        return jax.grad(total)(arrays)

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients(arrays)))


def test_bfloat16_keeps_float32_softmax():
    rng = np.random.default_rng(5)
    arrays = [x.astype(jnp.bfloat16) for x in inputs(rng, 64, 64)]
    mask, visible = case('causal', 64, 64, rng)
    result = jax.jit(attention)(*arrays, mask)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_allclose(result.astype(np.float32), reference(*arrays, visible), atol=2e-2)


def test_dropout_keeps_the_mean_and_drops_the_rate():
    query = key = jnp.zeros((2, 100, 2, 100))
    value = jnp.broadcast_to(jnp.eye(100)[None, :, None], (2, 100, 2, 100))  # the output is the weights
    function = jax.jit(lambda key_: attention(query, key, value, dropout=0.25, dropout_key=key_))
    weights = np.asarray(function(jax.random.key(0))) * 100
    np.testing.assert_allclose(np.mean(weights == 0), 0.25, atol=0.01)
    np.testing.assert_allclose(weights[weights > 0], 1 / 0.75, rtol=1e-5)
    assert not np.array_equal(weights, np.asarray(function(jax.random.key(1))) * 100)


def test_chosen_implementation():
    assert automatic(128, Mask(causal=True), 0.0, 'gpu') == 'fused'
    assert automatic(128, Mask(causal=True), 0.1, 'gpu') == 'chunked'
    assert automatic(128, Mask(causal=True), 0.0, 'cpu') == 'chunked'
    assert automatic(QUERIES_PER_CHUNK, Mask(causal=True), 0.0, 'cpu') == 'einsum'
    assert automatic(128, Mask(), 0.0, 'cpu') == 'einsum'
    assert kernel_for(jnp.bfloat16, 64, 'gpu') == 'cudnn'
    assert kernel_for(jnp.float32, 64, 'gpu') == 'xla'
    assert kernel_for(jnp.bfloat16, 64, 'cpu') == 'xla'
    with pytest.raises(UserError, match='chunked'):
        attention(*inputs(np.random.default_rng(0), 4, 4), implementation='chunk')
