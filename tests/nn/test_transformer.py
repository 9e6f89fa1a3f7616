"""The Transformer: independent forward pass, masks, cache, storage, precision, meshes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from transformer_reference import reference

from research.errors import UserError
from research.nn.positions import buckets, in_segments, sinusoids
from research.nn.transformer import Transformer, empty_cache
from research.nn.transformer_settings import TransformerSettings

pytestmark = pytest.mark.slow  # compiles many models

BASE = TransformerSettings(vocabulary=50, length=24, width=16, layers=2, heads=4, scan=True)
LLAMA = dataclasses.replace(
    BASE, key_value_heads=2, norm='rms', activation='silu', gated=True, qk_norm=True, norm_epsilon=1e-6
)
GPT2 = dataclasses.replace(
    BASE, positions='learned', query_key_value_bias=True, output_bias=True, feed_forward_bias=True,
    initializer='normal', tie_embedding=False,
)  # fmt: skip
POST = dataclasses.replace(BASE, norm_position='post', positions='sinusoidal', activation='relu', window=5)
GPT3 = dataclasses.replace(
    GPT2, tie_embedding=True, windows=(0, 3), hidden_width=24, embedding_scale=True, head_bias=True, position_offset=2
)
SHAPES = {'llama': LLAMA, 'gpt2': GPT2, 'post-norm': POST, 'gpt3': GPT3}


def build(settings, batch=3, length=12):
    """Returns a model, NumPy parameters (scales and biases random too) and tokens; compiles nothing."""
    model, rng = Transformer(settings), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))['params']
    params = jax.tree.map(lambda leaf: rng.normal(0.1, 0.3, leaf.shape).astype(np.float32), shapes)
    return model, params, rng.integers(0, settings.vocabulary, (batch, length), dtype=np.int32)


def changed(tokens, rows, columns):
    """Returns a copy of `tokens` with others in some places."""
    copy = tokens.copy()
    copy[rows, columns] = (copy[rows, columns] + 1) % BASE.vocabulary
    return copy


def apply(model, params, *arguments, **keywords):
    return jax.jit(functools.partial(model.apply, **keywords))({'params': params}, *arguments)


@pytest.mark.parametrize('name', SHAPES)
def test_equals_float64_reference(name):
    model, params, tokens = build(SHAPES[name])
    logits, cache = apply(model, params, tokens)
    assert logits.dtype == jnp.float32 and cache is None
    for row in range(len(tokens)):
        expected = reference(SHAPES[name], params, np.asarray(tokens[row]))
        np.testing.assert_allclose(logits[row], expected, atol=1e-4)


@pytest.mark.parametrize('name', SHAPES)
def test_cached_equals_uncached_at_every_position_of_mixed_prompts(name):
    settings = SHAPES[name]
    model, params, tokens = build(settings)
    expected, _ = apply(model, params, tokens)
    lengths = np.array([3, 1, 7])  # prompt lengths; the rest of a prompt is padding
    prompts = np.where(np.arange(7) < lengths[:, None], np.asarray(tokens)[:, :7], 0)
    cache = empty_cache(settings, 3, 12)
    _, cache = apply(model, params, prompts, cache=cache)
    position = lengths - 1
    step = jax.jit(
        lambda cache, tokens, read_from: model.apply(
            {'params': params}, tokens[:, None], cache=cache, read_from=read_from
        )
    )
    rows = np.arange(3)
    while position.min() < 12:
        here = np.minimum(position, 11)  # a row at its end goes on beside the others
        logits, cache = step(cache, np.asarray(tokens)[rows, here], position)
        inside = position < 12
        np.testing.assert_allclose(logits[inside, 0], expected[rows, here][inside], atol=2e-5)
        position = position + 1


def test_several_tokens_read_a_cache_whose_rows_may_be_swapped():
    model, params, tokens = build(LLAMA)
    expected, _ = apply(model, params, tokens)
    _, cache = apply(model, params, tokens[:, :5], cache=empty_cache(LLAMA, 3, 12))

    @jax.jit
    def run(tokens, cache):
        return model.apply({'params': params}, tokens, cache=cache, read_from=np.full(3, 5))[0]

    cache = jax.device_get(cache)
    straight = run(tokens[:, 5:9], cache)
    turned = run(tokens[::-1, 5:9], jax.tree.map(lambda leaf: leaf[::-1], cache))
    np.testing.assert_allclose(straight, turned[::-1], atol=1e-6)
    np.testing.assert_allclose(straight, expected[:, 5:9], atol=1e-4)


def test_causal_models_do_not_look_ahead_and_padding_changes_nothing():
    model, params, tokens = build(LLAMA)
    run = jax.jit(lambda tokens: model.apply({'params': params}, tokens)[0])
    logits, other = run(tokens), run(changed(tokens, slice(None), slice(8, None)))
    np.testing.assert_array_equal(logits[:, :8], other[:, :8])
    assert not np.allclose(logits[:, 8:], other[:, 8:])
    encoder, params, tokens = build(dataclasses.replace(BASE, causal=False))
    full, _ = apply(encoder, params, tokens[:, :8])
    run = jax.jit(lambda length: encoder.apply({'params': params}, tokens, length)[0])
    np.testing.assert_allclose(full, run(np.full(3, 8))[:, :8], atol=1e-5)
    assert not np.allclose(full, run(np.full(3, 12))[:, :8])


def test_packed_texts_equal_separate_ones():
    model, params, tokens = build(GPT3)  # learned positions: they restart with each text
    segments = np.broadcast_to([1] * 5 + [2] * 7, tokens.shape)
    packed, _ = apply(model, params, tokens, segments=segments)
    np.testing.assert_allclose(packed[:, :5], apply(model, params, tokens[:, :5])[0], atol=1e-5)
    np.testing.assert_allclose(packed[:, 5:], apply(model, params, tokens[:, 5:])[0], atol=1e-5)


def test_a_window_hides_what_is_farther_away_in_its_layers_only():
    settings = dataclasses.replace(GPT3, layers=1, windows=(3,))
    model, params, tokens = build(settings)
    run = jax.jit(lambda tokens: model.apply({'params': params}, tokens)[0])
    logits, other = run(tokens), run(changed(tokens, slice(None), 4))
    seen = ~np.isclose(logits, other).all(-1)
    assert (seen == (np.arange(12) >= 4) & (np.arange(12) < 7)).all()
    model, params, tokens = build(GPT3)  # its first layer is dense
    logits, other = (apply(model, params, each)[0] for each in (tokens, changed(tokens, slice(None), 0)))
    assert not np.isclose(logits, other).all(-1).any()


def test_bert_s_parts_exist_from_the_start_and_types_count():
    settings = dataclasses.replace(
        BASE, causal=False, positions='learned', norm_position='post', types=2, embedding_norm=True, pooler=True,
        head_transform=True, head_bias=True,
    )  # fmt: skip
    model, params, tokens = build(settings)
    assert set(params) == {'tokens', 'positions', 'types', 'embedding_norm', 'blocks', 'pooler', 'head'}
    assert set(params['head']) == {'transform', 'norm', 'bias'}
    types = np.repeat([[0] * 5 + [1] * 7], 3, 0)

    @jax.jit
    def run(types):
        def both(module):
            x, _ = module.features(tokens, types=types)
            return x, module.pooled(x)

        return model.apply({'params': params}, method=both)

    (x, pooled), (other, _) = run(types), run(0 * types)
    assert x.shape == (3, 12, 16) and not np.allclose(x, other)
    dense = params['pooler']
    np.testing.assert_allclose(pooled, np.tanh(x[:, 0] @ dense['kernel'] + dense['bias']), atol=1e-5)


def test_texts_and_ids_that_do_not_fit_are_refused():
    model, params, tokens = build(BASE)
    with pytest.raises(UserError, match='25 positions, and the model reads at most 24'):
        jax.eval_shape(lambda: model.apply({'params': params}, np.zeros((1, 25), np.int32)))
    with pytest.raises(UserError, match='^types is 0, but the tokens have types'):
        jax.eval_shape(lambda: model.apply({'params': params}, tokens, types=tokens))
    BASE.check_tokens(tokens)
    with pytest.raises(UserError, match='text: id 50 has no embedding; the model knows 0 to 49'):
        BASE.check_tokens(np.array([[3, 50]]), 'text')
    with pytest.raises(UserError, match='at most 24'):
        BASE.check_tokens(np.zeros((1, 30), np.int32))


def test_distances_have_the_classes_of_t5():
    """By the words of the paper: half of the classes exact, the rest logarithmic up to the largest distance."""
    for distance in (0, -1, -7, -15, -16, -40, -127, -128, -4000):
        away = -distance
        far = 16 + int(np.log(max(away, 1) / 16) / np.log(128 / 16) * 16 + 1e-6)
        assert buckets(np.array(distance), False, 32, 128) == (away if away < 16 else min(far, 31))
    assert buckets(np.array([-3, 3, 500, -500]), True, 32, 128).tolist() == [3, 19, 31, 15]
    assert buckets(np.array([1, 9]), False, 32, 128).tolist() == [0, 0]


def test_positions_restart_with_segments():
    segments = jnp.array([[0, 0, 1, 1, 1, 2], [4, 4, 4, 4, 0, 0]])
    assert in_segments(segments).tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 0, 1]]


def test_prefix_is_seen_by_all_of_its_row():
    model, params, tokens = build(LLAMA)
    prefix = np.array([0, 4, 12])
    run = jax.jit(lambda tokens, prefix: model.apply({'params': params}, tokens, prefix=prefix)[0])
    logits = run(tokens, prefix)
    np.testing.assert_allclose(logits[0], run(tokens, 0 * prefix)[0], atol=1e-5)
    assert not np.allclose(logits[1, 0], run(changed(tokens, 1, 3), prefix)[1, 0])
    np.testing.assert_array_equal(logits[1, :4], run(changed(tokens, 1, 4), prefix)[1, :4])


def test_blocks_are_stored_stacked_and_run_in_every_way_alike():
    model, params, tokens = build(LLAMA)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(params['blocks'])} == {LLAMA.layers}
    assert set(params['blocks']['attention']) == {'query', 'key', 'value', 'out', 'query_norm', 'key_norm'}
    assert params['blocks']['attention']['key']['kernel'].shape == (2, 16, 8)
    assert set(params['blocks']['feed_forward']) == {'up', 'gate', 'down'}
    assert params['tokens']['embedding'].shape == (50, 16)

    def gradient(scan, remat):
        other = Transformer(dataclasses.replace(LLAMA, scan=scan, remat=remat))
        return jax.jit(jax.grad(lambda p: jnp.mean(other.apply({'params': p}, tokens)[0] ** 2)))(params)

    expected = gradient(False, False)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, gradient(True, True), expected)


def test_remat_recomputes_whether_scanned_or_not():
    for scan in (False, True):
        text = {}
        for remat in (False, True):
            model = Transformer(dataclasses.replace(LLAMA, scan=scan, remat=remat))
            params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
            tokens = jnp.zeros((1, 8), jnp.int32)
            gradient = jax.grad(lambda p, model=model, tokens=tokens: jnp.sum(model.apply(p, tokens)[0]))
            text[remat] = jax.jit(gradient).lower(params).as_text().count('dot_general')
        assert text[True] > text[False]


def test_bfloat16_computes_near_float32_with_float32_parameters_and_logits():
    model, params, tokens = build(LLAMA)
    half = Transformer(dataclasses.replace(LLAMA, dtype='bfloat16'))
    logits, _ = apply(half, params, tokens)
    assert logits.dtype == jnp.float32
    assert empty_cache(half.settings, 1, 4)['key'][0].dtype == jnp.bfloat16
    shapes = jax.eval_shape(half.init, jax.random.key(0), tokens)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}
    exact, _ = apply(model, params, tokens)
    assert np.abs(logits - exact).max() < 0.05 * np.abs(exact).max()
    assert np.abs(logits - exact).max() > 0


def test_dropout_acts_in_training_only_and_follows_its_key():
    settings = dataclasses.replace(BASE, dropout=0.3, attention_dropout=0.2, embedding_dropout=0.1)
    model, params, tokens = build(settings)
    still = jax.make_jaxpr(lambda: model.apply({'params': params}, tokens)[0])()
    assert 'random' not in str(still) and 'threefry' not in str(still)
    train = model.clone(train=True)

    @jax.jit
    def run(seed):
        return train.apply({'params': params}, tokens, rngs={'dropout': jax.random.key(seed)})[0]

    one, again, two = run(0), run(0), run(1)
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, two)


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(2, 2, 2), (8, 1, 1)])
def test_mesh_gives_the_same_logits_and_gradients(shape):
    model, params, tokens = build(LLAMA, batch=8)

    def loss(params, tokens):
        return jnp.mean(jax.nn.logsumexp(model.apply({'params': params}, tokens)[0], axis=-1))

    expected = jax.jit(jax.value_and_grad(loss))(params, tokens)
    mesh = jax.make_mesh(shape, ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Auto,) * 3)

    def place(path, leaf):
        name = jax.tree_util.keystr(path)
        spec = [None] * leaf.ndim
        if any(each in name for each in ('query', 'key', 'value', 'up', 'gate')) and leaf.shape[-1] % 8 == 0:
            spec[-1] = 'tensor'
        elif 'out' in name or 'down' in name:
            spec[1] = 'tensor'
        elif 'embedding' in name:
            spec[0] = 'tensor'
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

    with jax.set_mesh(mesh):
        sharded = jax.tree_util.tree_map_with_path(place, params)
        rows = jax.device_put(tokens, NamedSharding(mesh, PartitionSpec(('data', 'fsdp'))))
        result = jax.jit(jax.value_and_grad(loss))(sharded, rows)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), jax.device_get(result), expected)


def test_sinusoids_of_the_paper():
    table = np.asarray(sinusoids(jnp.arange(5), 6))
    np.testing.assert_allclose(table[3, 2], np.sin(3 / 10000 ** (2 / 6)), rtol=1e-5)
    np.testing.assert_allclose(table[3, 3], np.cos(3 / 10000 ** (2 / 6)), rtol=1e-5)


@pytest.mark.parametrize(
    'bad, message',
    [
        ({'heads': 3}, 'heads=3 does not divide width=16'),
        ({'key_value_heads': 3}, 'key_value_heads=3 does not divide heads=4'),
        ({'layers': 0}, 'layers must be above zero'),
        ({'dropout': 1.0}, 'dropout'),
        ({'window': -1}, 'window'),
        ({'head_width': 3}, 'even'),
        ({'windows': (2,), 'window': 3}, 'windows'),
        ({'positions': 'relative', 'relative_buckets': 2}, 'relative_buckets'),
        ({'rotary_low': 9.0}, 'rotary_low'),
    ],
)
def test_impossible_shapes_are_refused(bad, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(BASE, **bad)


def test_derived_sizes():
    assert LLAMA.width_of_hidden == 48  # two thirds of 64, rounded up to a multiple of 8
    assert BASE.width_of_hidden == 64 and BASE.key_heads == 4 and BASE.width_of_head == 4
