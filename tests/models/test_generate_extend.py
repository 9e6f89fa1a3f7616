"""`Generate.extend`: several tokens per row into an existing cache, against one pass over the whole text."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core.task import Variables
from research.models.model import GROUP, Model
from research.models.tokens import generate_target, generate_text, generate_uncached
from research.nn.encoder_decoder import EncoderDecoder
from research.nn.transformer import Transformer
from research.nn.transformer_settings import TransformerSettings

LENGTH, FIRST = 12, 1
SHAPE = TransformerSettings(
    vocabulary=20, length=LENGTH, width=8, layers=2, heads=2, key_value_heads=1, positions='learned', windows=(0, 4),
    scan=True,
)  # fmt: skip
SOURCE, SOURCE_LENGTH = np.array([[5, 6, 7, 8], [9, 10, 0, 0], [3, 0, 0, 0]], np.int32), np.array([4, 2, 1])
PROMPTS = np.array([3, 1, 6])  # tokens that `start` is given
CHUNKS = np.array([[4, 0, 3], [2, 5, 0], [3, 4, 3]])  # tokens that each `extend` reads, row by row
TEXT = np.random.default_rng(0).integers(2, 20, (3, LENGTH), dtype=np.int32)


def random_params(module, *inputs):
    rng, shapes = np.random.default_rng(1), jax.eval_shape(module.init, jax.random.key(0), *inputs)['params']
    return jax.tree.map(lambda leaf: rng.normal(0.1, 0.3, leaf.shape).astype(np.float32), shapes)


@functools.cache
def built(name):
    """(generate, variables, further prompt fields, logits at all positions of TEXT, ids that are not generated)."""
    one, more, never = jnp.zeros((1, 1), jnp.int32), {}, ()
    if name == 'encoder-decoder':
        module = EncoderDecoder(dataclasses.replace(SHAPE, positions='relative', windows=(), decoder_layers=1))
        params = random_params(module, one, None, one)
        model = Model(None, None, None, module)  # pyright: ignore[reportArgumentType]
        generate, never = generate_target(model, FIRST, (0,), LENGTH), (FIRST,)
        logits = module.apply({'params': params}, SOURCE, SOURCE_LENGTH, TEXT)
        more = {'source': SOURCE, 'source_length': SOURCE_LENGTH}
        return generate, Variables({GROUP: params}, {}), more, logits, never
    module = Transformer(SHAPE)
    params = random_params(module, one)

    def apply(variables, batch, context):
        return module.apply({'params': variables.params[GROUP]}, batch['tokens'])[0], {}

    model = Model(None, apply, None, module)  # pyright: ignore[reportArgumentType]
    generate = generate_text(model, (), LENGTH)
    if name == 'without a cache':
        generate, never = generate_uncached(model, (), LENGTH, never=2), (2,)
    if name == 'prefix':
        more = {'prefix': PROMPTS.astype(np.int32)}
    logits = module.apply({'params': params}, TEXT, **more)[0]
    return generate, Variables({GROUP: params}, {}), more, logits, never


@pytest.mark.parametrize('name', ['decoder', 'prefix', 'encoder-decoder', 'without a cache'])
def test_chunks_of_mixed_lengths_equal_the_whole_text(name):
    generate, variables, more, expected, never = built(name)
    expected = np.array(expected)
    expected[..., list(never)] = -np.inf
    prompts = np.where(np.arange(6) < PROMPTS[:, None], TEXT[:, :6], 19)
    cache = jax.jit(lambda: generate.start(variables, {'tokens': prompts, 'length': PROMPTS, **more}, LENGTH))()
    extend = jax.jit(generate.extend, static_argnames='whole')
    rows = np.arange(3)
    np.testing.assert_array_equal(cache['position'], PROMPTS - 1)
    for number, count in enumerate(CHUNKS):
        position = np.asarray(cache['position'])
        places = position[:, None] + np.arange(5)
        # Padding gets ids of its own, and the last chunk's lies beyond the model's positions.
        tokens = np.where(np.arange(5) < count[:, None], TEXT[rows[:, None], np.minimum(places, LENGTH - 1)], 18)
        earlier, (cache, logits) = cache, extend(variables, cache, tokens, count, whole=number == 1)
        np.testing.assert_array_equal(cache['position'], position + count)
        unchanged = count == 0
        jax.tree.map(
            lambda new, old, rows=unchanged: np.testing.assert_array_equal(new[rows], old[rows]), cache, earlier
        )
        for row in np.flatnonzero(count):
            following = position[row] + (np.arange(count[row]) if number == 1 else count[row] - 1)
            got = logits[row, : count[row]] if number == 1 else logits[row]
            np.testing.assert_allclose(got, expected[row, following], atol=1e-5)
    assert np.isfinite(jax.tree.leaves(jax.tree.map(jnp.sum, cache))).all()


@pytest.mark.parametrize('name', ['decoder', 'encoder-decoder', 'without a cache'])
def test_one_chunk_equals_start_and_steps_and_a_lower_position_takes_tokens_back(name):
    generate, variables, more, *_ = built(name)
    step, extend = jax.jit(generate.step), jax.jit(generate.extend)
    first = {'tokens': TEXT[:, :1], 'length': np.ones(3, np.int32), **more}
    cache = jax.jit(lambda: generate.start(variables, first, LENGTH))()
    whole, expected = cache, None
    for position in range(4):
        cache, expected = step(variables, cache, TEXT[:, position])
    whole, logits = extend(variables, whole, TEXT[:, :4], np.full(3, 4))
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    whole, _ = extend(variables, whole, np.full((3, 4), 18, np.int32), np.array([3, 1, 2]))
    whole = {**whole, 'position': cache['position']}
    for row in (TEXT[:, 4], TEXT[:, 5]):
        (cache, expected), (whole, logits) = step(variables, cache, row), step(variables, whole, row)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
