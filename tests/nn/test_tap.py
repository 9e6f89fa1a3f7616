"""Taps: what they report, that they move nothing by themselves, and that a loop over layers makes no difference."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.nn.apply import OBSERVED, initialize, run, run_group, seen_of
from research.nn.audio import SoundConvolution
from research.nn.encoder_decoder import EncoderDecoder
from research.nn.mlp import MLP
from research.nn.resnet import ResNet
from research.nn.sequence_models import SequenceConvolution
from research.nn.table import TableMLP
from research.nn.tap import tap
from research.nn.text_models import NGramBag, TextConvolution, TextLSTM
from research.nn.text_transformer import TextTransformer
from research.nn.transformer import Transformer
from research.nn.transformer_settings import TransformerSettings
from research.nn.vision_transformer import VisionTransformer

KEY = jax.random.key(0)
SMALL = TransformerSettings(vocabulary=11, length=8, width=8, layers=2, heads=2, causal=False)
RANDOM = np.random.default_rng(0)
TOKENS = jnp.asarray(RANDOM.integers(1, 11, (3, 8)), jnp.int32)
LENGTH = jnp.array([8, 5, 3], jnp.int32)
TEXT = (TOKENS, LENGTH, jnp.zeros_like(TOKENS))
IMAGES = jnp.asarray(RANDOM.normal(size=(3, 8, 8, 1)), jnp.float32)

# module, inputs, and the shape of each tap
CASES = {
    'mlp': (MLP(4, (6,)), (IMAGES,), {'pooled': (3, 6)}),
    'table': (
        TableMLP(2, (3, 4), 5, (6,)), (IMAGES[:, 0, :2, 0], TOKENS[:, :2] % 3),
        {'embedding': (3, 2, 5), 'mlp/pooled': (3, 6)},
    ),
    'resnet': (ResNet(3, (4, 8), (3, 2)), (IMAGES,), {'features': (3, 4, 4, 8), 'pooled': (3, 8)}),
    'sound': (SoundConvolution(2, (4, 6)), (IMAGES,), {'features': (3, 2, 2, 6), 'pooled': (3, 6)}),
    'convolution': (
        TextConvolution(11, 2, 5, (2, 3), 4), TEXT, {'input/embedding': (3, 8, 5), 'pooled': (3, 8)},
    ),
    'lstm': (TextLSTM(11, 2, 5, 4), TEXT, {'input/embedding': (3, 8, 5), 'pooled': (3, 4)}),
    'ngrams': (NGramBag(11, 2, 5), (TOKENS,), {'pooled': (3, 5)}),
    'sequence': (
        SequenceConvolution(2, 11, 4, (5,), 3, 6), (TOKENS, LENGTH),
        {'embedding': (3, 8, 4), 'features': (3, 8, 5), 'pooled': (3, 6)},
    ),
    'one-hot sequence': (
        SequenceConvolution(2, filters=(5,), hidden=0, pool='max'), (IMAGES[:, :, :4, 0], LENGTH),
        {'features': (3, 8, 5), 'pooled': (3, 5)},
    ),
    'picture transformer': (
        VisionTransformer(dataclasses.replace(SMALL, length=5), 4, 3), (IMAGES,),
        {
            'patches': (3, 4, 8), 'pooled': (3, 8), 'blocks/attention/weights': (2, 3, 2, 5, 5),
            'blocks/stream': (2, 3, 5, 8),
        },
    ),
    'text transformer': (
        TextTransformer(SMALL, 2), TEXT,
        {
            'encoder/embedding': (3, 8, 8), 'pooled': (3, 8), 'encoder/blocks/attention/weights': (2, 3, 2, 8, 8),
            'encoder/blocks/stream': (2, 3, 8, 8),
        },
    ),
    'language model': (
        Transformer(dataclasses.replace(SMALL, causal=True, key_value_heads=1, positions='rotary')), (TOKENS,),
        {
            'embedding': (3, 8, 8), 'blocks/attention/weights': (2, 3, 2, 8, 8), 'blocks/stream': (2, 3, 8, 8),
        },
    ),
    'translation': (
        EncoderDecoder(SMALL), (TOKENS, LENGTH, TOKENS[:, :6], LENGTH - 2),
        {
            'encoder/embedding': (3, 8, 8), 'encoder/blocks/attention/weights': (2, 3, 2, 8, 8),
            'encoder/blocks/stream': (2, 3, 8, 8),
            'decoder/embedding': (3, 6, 8), 'decoder/blocks/attention/weights': (2, 3, 2, 6, 6),
            'decoder/blocks/cross/weights': (2, 3, 2, 6, 8), 'decoder/blocks/stream': (2, 3, 6, 8),
        },
    ),
}  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def first_variables(module, inputs):
    return initialize(module, KEY, *inputs)


def outputs_of(module, params, collections, inputs, watch):
    outputs, changed = run(module, params, collections, *inputs, train=False, key=None, watch=watch)
    return outputs[0] if isinstance(outputs, tuple) else outputs, changed


@functools.partial(jax.jit, static_argnums=0)
def watched(module, params, collections, inputs, watch):
    outputs, changed = outputs_of(module, params, collections, inputs, watch)
    return outputs, changed[OBSERVED]


@pytest.mark.parametrize('name', CASES)
@pytest.mark.slow
def test_watching_reports_every_tap_and_changes_nothing_but_what_a_delta_moves(name):
    module, inputs, shapes = CASES[name]
    first = next(iter(shapes))

    @jax.jit
    def everything(*inputs):
        params, collections = initialize(module, KEY, *inputs)
        plain, changed = outputs_of(module, params, collections, inputs, None)

        def total(deltas):
            outputs, changed = outputs_of(module, params, collections, inputs, deltas)
            return jnp.sum(outputs.astype(jnp.float32) ** 2), (outputs, changed[OBSERVED])

        _, (outputs, seen) = total({})
        zeros = jax.tree.map(jnp.zeros_like, seen)
        (_, (_, same)), gradient = jax.value_and_grad(total, has_aux=True)(zeros)
        _, (_, moved) = total({first: jnp.ones_like(seen[first])})
        return (collections, changed), (plain, outputs), (seen, same), gradient, moved

    (collections, changed), (plain, outputs), (seen, same), gradient, moved = everything(*inputs)
    assert OBSERVED not in collections  # nothing of it is stored
    jax.tree.map(np.testing.assert_array_equal, changed, collections)
    np.testing.assert_allclose(outputs, plain, rtol=1e-5, atol=1e-6)
    assert {path: value.shape for path, value in seen.items()} == shapes
    for path in shapes:
        np.testing.assert_allclose(same[path], seen[path], rtol=1e-5, atol=1e-6)
        assert np.all(np.isfinite(gradient[path])) and np.any(gradient[path]), path
        if path.endswith('weights'):
            np.testing.assert_allclose(seen[path].sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(moved[first], seen[first] + 1, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('remat', [False, True])
@pytest.mark.slow
def test_a_loop_over_layers_and_the_layers_unrolled_report_the_same(remat):
    settings = dataclasses.replace(SMALL, remat=remat)
    looped, unrolled = (TextTransformer(dataclasses.replace(settings, scan=scan), 2) for scan in (True, False))
    params, _ = first_variables(looped, TEXT)

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(module, delta):
        def total(delta):
            outputs, _ = watched(module, params, {}, TEXT, {'encoder/blocks/attention/weights': delta})
            return jnp.sum(outputs**2)

        return jax.grad(total)(delta)

    (one, seen), (two, same) = (watched(module, params, {}, TEXT, {}) for module in (looped, unrolled))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert seen.keys() == same.keys()
    for path, value in seen.items():
        np.testing.assert_allclose(value, same[path], rtol=1e-5, atol=1e-6, err_msg=path)
    delta = jnp.zeros_like(seen['encoder/blocks/attention/weights'])
    np.testing.assert_allclose(gradient(looped, delta), gradient(unrolled, delta), rtol=1e-4, atol=1e-6)


def test_residual_blocks_looped_and_unrolled_report_the_same():
    models = [ResNet(3, (4,), (4,), unroll=unroll) for unroll in (1, 3)]
    params, collections = first_variables(models[0], (IMAGES,))
    one, two = (watched(model, params, collections, (IMAGES,), {})[1] for model in models)
    for path, value in one.items():
        np.testing.assert_allclose(value, two[path], rtol=1e-5, atol=1e-6)


def test_training_keeps_statistics_beside_what_is_seen():
    model = ResNet(3, (4,), (2,))
    params, collections = first_variables(model, (IMAGES,))
    plain, changed = run(model, params, collections, IMAGES, train=True, key=KEY)
    outputs, also = run(model, params, collections, IMAGES, train=True, key=KEY, watch={})
    np.testing.assert_allclose(outputs, plain, rtol=1e-5, atol=1e-6)
    assert set(also) == {*changed, OBSERVED}
    jax.tree.map(np.testing.assert_array_equal, also['batch_stats'], changed['batch_stats'])


def test_attention_dropout_acts_while_watched():
    module = TextTransformer(dataclasses.replace(SMALL, attention_dropout=0.5), 2, head_dropout=0.0)
    params, _ = first_variables(module, TEXT)
    outputs = [run(module, params, {}, *TEXT, train=train, key=KEY, watch={})[0] for train in (False, True)]
    assert not np.allclose(*outputs)


def test_the_path_of_a_delta_must_be_a_tap_and_its_shape_the_activation_s():
    params, _ = initialize(CASES['mlp'][0], KEY, IMAGES)
    with pytest.raises(ValueError, match="no tap 'poold'; there are: pooled"):
        watched(CASES['mlp'][0], params, {}, (IMAGES,), {'poold': jnp.zeros((3, 6))})
    with pytest.raises(ValueError, match=r"tap 'pooled' has shape \(6,\)"):
        watched(CASES['mlp'][0], params, {}, (IMAGES,), {'pooled': jnp.zeros(6)})


def test_a_tap_that_is_reached_twice_is_an_error():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Dense(2)(x)
            return tap(self, 'pooled', tap(self, 'pooled', x))

    params, _ = initialize(Twice(), KEY, jnp.ones((1, 2)))
    run(Twice(), params, {}, jnp.ones((1, 2)), train=False, key=None)
    with pytest.raises(ValueError, match='twice'):
        watched(Twice(), params, {}, (jnp.ones((1, 2)),), {})


def test_a_group_of_variables_runs_in_a_context():
    from research.core.task import Context, Variables

    module = TextTransformer(SMALL, 2, head_dropout=0.5)
    params, _ = first_variables(module, TEXT)
    variables = Variables({'model': params}, {})
    still = Context(KEY, jnp.int32(0), False)
    expected, _ = run(module, params, {}, *TEXT, train=False, key=None)
    outputs, changed = run_group(module, variables, 'model', still, *TEXT)
    np.testing.assert_array_equal(outputs, expected)
    assert seen_of('model', changed) == {} and changed == {}
    trained, _ = run_group(module, variables, 'model', still._replace(train=True), *TEXT)
    again, _ = run(module, params, {}, *TEXT, train=True, key=still.fold('dropout'))
    np.testing.assert_array_equal(trained, again)
    watch = {'model': {'pooled': jnp.ones((3, 8))}}
    moved, changed = run_group(module, variables, 'model', still._replace(watch=watch), *TEXT)
    seen = seen_of('model', changed)
    assert set(seen) == {'model'} and seen['model']['pooled'].shape == (3, 8)
    assert not np.allclose(moved, expected)
    _, changed = run_group(module, variables, 'model', still._replace(watch={}), *TEXT)
    assert seen_of('model', changed)['model'].keys() == seen['model'].keys()


def test_a_field_train_and_another_method():
    module = VisionTransformer(dataclasses.replace(SMALL, length=5, dropout=0.5), 4, 3)
    params, _ = first_variables(module, (IMAGES,))
    still, _ = run(module, params, {}, IMAGES, train=False, key=None)
    trained, _ = run(module, params, {}, IMAGES, train=True, key=KEY)
    assert not np.allclose(still, trained)
    states, changed = run(module, params, {}, IMAGES, train=False, key=None, watch={}, method='features')
    assert states.shape == (3, 5, 8) and 'pooled' not in changed[OBSERVED]
