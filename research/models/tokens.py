"""Transformers over tokens: a decoder, a masked encoder, and an encoder-decoder.

Each is built from `config.model`, which gives the shape of a Transformer, names pretrained weights, or is the dotted
path of a module with a function of the same name and arguments; it computes float32 logits of the targets.
`generate_text` and `generate_target` build `Task.generate`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array, Int

from research.core.task import Context, Generate, Variables
from research.errors import UserError
from research.interop import pretrained
from research.models.model import GROUP, Model, builder_outside, defaults_of
from research.nn.apply import initialize, run_group
from research.nn.encoder_decoder import EncoderDecoder
from research.nn.transformer import Transformer, empty_cache
from research.nn.transformer_settings import TransformerSettings

# config.model has no name here: the task selects encoder or decoder.
SETTINGS = {'': defaults_of(TransformerSettings, 'vocabulary', 'length', 'source_vocabulary') | pretrained.DEFAULTS}


def decoder(section: Mapping[str, Any], folder: epath.Path, vocabulary: int, length: int) -> Model:
    """Builds a causal Transformer; it reads 'tokens', and optionally 'segments' and 'prefix'.

    Args:
      section: `config.model`.
      folder: the run's prepared folder.
      vocabulary, length: sizes of the task; pretrained weights bring their own vocabulary.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    if outside := builder_outside(section.get('name', ''), 'decoder'):
        return outside(section, folder, vocabulary, length)
    shape = pretrained.read_shape(section, folder, vocabulary=vocabulary, length=length)
    if not shape.causal:
        raise UserError('config.model.causal=False: a language model must be causal')
    module = Transformer(shape)

    def apply(variables, batch, context):
        more = {name: batch.get(name) for name in ('segments', 'prefix')}
        (logits, _), changed = run_group(module, variables, GROUP, context, batch['tokens'], **more)
        return logits, changed

    return Model(init_of(module, jnp.zeros((1, 1), jnp.int32)), apply, pretrained.make_load(section, folder), module)


def encoder_shape(
    section: Mapping[str, Any], folder: epath.Path, vocabulary: int, length: int
) -> TransformerSettings:
    """The shape of a bidirectional Transformer with a head that predicts tokens."""
    shape = pretrained.read_shape(section, folder, vocabulary=vocabulary, length=length)
    if shape.causal:
        raise UserError('config.model.causal=True: a masked model is bidirectional; set it to False')
    if section.get('weights'):  # drop the untrained pooler; initialize a head if the weights have none
        shape = dataclasses.replace(shape, pooler=False, head_transform=True, head_bias=True)
    return shape


def encoder(section: Mapping[str, Any], folder: epath.Path, vocabulary: int, length: int) -> Model:
    """Builds a bidirectional Transformer that reads 'tokens' and computes logits at 'positions'; see `decoder`."""
    if outside := builder_outside(section.get('name', ''), 'encoder'):
        return outside(section, folder, vocabulary, length)
    module = Transformer(encoder_shape(section, folder, vocabulary, length))

    def logits_at(module: Transformer, tokens: Array, length: Array, positions: Array) -> Array:
        features, _ = module.features(tokens, length)
        return module.logits(jnp.take_along_axis(features, positions[..., None], axis=1))

    def apply(variables, batch, context):
        inputs = (batch[name] for name in ('tokens', 'length', 'positions'))
        return run_group(module, variables, GROUP, context, *inputs, method=logits_at)

    return Model(init_of(module, jnp.zeros((1, 1), jnp.int32)), apply, pretrained.make_load(section, folder), module)


def pair_shape(
    section: Mapping[str, Any], folder: epath.Path, row_length: int = 0, **sizes: int
) -> TransformerSettings:
    """The shape of an encoder-decoder whose packed rows may be longer than what weights read at once (`length`)."""
    shape = pretrained.read_shape(section, folder, **sizes)
    return dataclasses.replace(shape, length=row_length or shape.length)


def encoder_decoder(section: Mapping[str, Any], folder: epath.Path, row_length: int = 0, **sizes: int) -> Model:
    """Builds an encoder-decoder; it reads 'source' and 'tokens', and their lengths or segments.

    Args:
      section, folder: see `decoder`.
      row_length: tokens of a packed row; 0: the length of a text.
      **sizes: vocabulary, length, and source_vocabulary if it differs.
    """
    if outside := builder_outside(section.get('name', ''), 'encoder_decoder'):
        return outside(section, folder, row_length, **sizes)
    module = EncoderDecoder(pair_shape(section, folder, row_length, **sizes))

    def apply(variables, batch, context):
        names = ('source', 'source_length', 'tokens', 'length', 'source_segments', 'segments')
        return run_group(module, variables, GROUP, context, *(batch.get(name) for name in names))

    one = jnp.zeros((1, 1), jnp.int32)
    return Model(init_of(module, one, None, one), apply, pretrained.make_load(section, folder), module)


def init_of(module: Any, *inputs: Any) -> Any:
    """Builds `init` for a single module with parameters only."""
    return lambda key: Variables({GROUP: initialize(module, key, *inputs)[0]}, {})


def generate_text(model: Model, ends: tuple[int, ...], length: int) -> Generate:
    """Builds cached generation for a decoder; every row keeps its own position.

    Args:
      model: of `decoder`; one from outside generates without a cache.
      ends: ids of the end tokens.
      length: maximum number of positions of a model from outside.
    """
    module = model.module
    if not isinstance(model.module, Transformer):
        return generate_uncached(model, ends, length)
    settings = module.settings

    def start(variables, prompts, capacity):
        tokens, length = prompts['tokens'], prompts['length']
        cache = empty_cache(settings, tokens.shape[0], capacity)
        params = {'params': variables.params[GROUP]}
        _, cache = module.apply(params, tokens, prefix=prompts.get('prefix'), cache=cache)
        # The first step reads the last prompt token again; it and later steps overwrite the cache entries of padding.
        cache = {**cache, 'position': length - 1}
        return {**cache, 'prefix': prompts['prefix']} if 'prefix' in prompts else cache

    def step(variables, cache, tokens):
        position = cache['position']
        params = {'params': variables.params[GROUP]}
        prefix = cache.get('prefix')  # attended to even outside the sliding window
        logits, cache = module.apply(params, tokens[:, None], prefix=prefix, cache=cache, read_from=position)
        return {**cache, 'position': position + 1}, logits[:, 0]

    def extend(variables, cache, tokens, length, whole=False):
        position, length = cache['position'], jnp.asarray(length)
        params = {'params': variables.params[GROUP]}
        features, cache = module.apply(
            params, tokens, length, prefix=cache.get('prefix'), cache=cache, read_from=position, method='features'
        )
        logits = module.apply(params, features if whole else last_of(features, length), method='logits')
        return {**cache, 'position': position + length}, logits if whole else logits[:, 0]

    return Generate(start, step, ends, settings.length, extend)


def last_of(values: Array, length: Int[Array, 'batch']) -> Array:
    """The values at the last of `length` positions of each row, [batch, 1, ...]; of the first one if there are none."""
    return jnp.take_along_axis(values, jnp.maximum(length - 1, 0)[:, None, None], axis=1)


def generate_target(model: Model, first: int, ends: tuple[int, ...], limit: int) -> Generate:
    """Builds cached generation for an encoder-decoder; prompts are encoded requests whose 'tokens' begin the target.

    Args:
      model: of `encoder_decoder`; one from outside generates without a cache.
      first: id of the start token; never generated unless it is also an end token.
      ends: ids of the end tokens.
      limit: maximum number of positions.
    """
    module = model.module
    if not isinstance(model.module, EncoderDecoder):
        return generate_uncached(model, ends, limit, -1 if first in ends else first)

    def start(variables, prompts, capacity):
        params = {'params': variables.params[GROUP]}
        memory = module.apply(params, prompts['source'], prompts['source_length'], method='encode')
        cache = module.apply(params, memory, prompts['source_length'], capacity, method='start_cache')
        if prompts['tokens'].shape[1] == 1:  # the first step reads the last prompt token
            return cache
        return extend(variables, cache, jnp.asarray(prompts['tokens'])[:, :-1], jnp.asarray(prompts['length']) - 1)[0]

    def allowed(logits):
        return logits if first in ends else logits.at[..., first].set(-jnp.inf)

    def step(variables, cache, tokens):
        cache, logits = module.apply({'params': variables.params[GROUP]}, cache, tokens, method='step')
        return cache, allowed(logits)

    def extend(variables, cache, tokens, length, whole=False):
        params, length = {'params': variables.params[GROUP]}, jnp.asarray(length)
        cache, features = module.apply(params, cache, tokens, length, method='extend')
        logits = module.apply(params, features if whole else last_of(features, length), method='logits')
        return cache, allowed(logits if whole else logits[:, 0])

    return Generate(start, step, ends, limit, extend)


def generate_uncached(model: Model, ends: tuple[int, ...], limit: int, never: int = -1) -> Generate:
    """Builds generation for any model of tokens; each step applies it to all positions.

    Args:
      model: its logits at a position depend on the tokens up to it.
      ends: ids of the end tokens.
      limit: maximum number of positions.
      never: id of a token that is not generated; -1: none.
    """

    def start(variables, prompts, capacity):
        tokens, length = jnp.asarray(prompts['tokens']), jnp.asarray(prompts['length'])
        space = jnp.zeros((tokens.shape[0], capacity - tokens.shape[1]), tokens.dtype)
        more = {name: jnp.asarray(value) for name, value in prompts.items() if name != 'length'}
        return {**more, 'tokens': jnp.concatenate([tokens, space], axis=1), 'position': length - 1}

    def step(variables, cache, tokens):
        return extend(variables, cache, tokens[:, None], jnp.ones_like(cache['position']))

    def extend(variables, cache, tokens, length, whole=False):
        position, offset, rows = cache['position'], jnp.arange(tokens.shape[1]), jnp.arange(tokens.shape[0])[:, None]
        places = jnp.where(offset < length[:, None], position[:, None] + offset, jnp.iinfo(jnp.int32).max)
        text = cache['tokens'].at[rows, places].set(tokens, mode='drop')
        batch = {name: value for name, value in cache.items() if name != 'position'}
        batch |= {'tokens': text, 'length': position + length}
        scores: Any = model.apply(variables, batch, Context(jax.random.key(0), jnp.int32(0), False))[0]
        following = position[:, None] + (offset if whole else jnp.maximum(length - 1, 0)[:, None])
        logits = scores[rows, jnp.minimum(following, scores.shape[1] - 1)]
        logits = logits if never < 0 else logits.at[..., never].set(-jnp.inf)
        return {**cache, 'tokens': text, 'position': position + length}, logits if whole else logits[:, 0]

    return Generate(start, step, ends, limit, extend)
