"""Text classifiers: n-grams, a convolution, an LSTM, and a Transformer encoder, from scratch or pretrained.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from tokenizers import Tokenizer

from research.data.text.corpus import load_array
from research.data.text.ngrams import GramSettings
from research.data.text.text_arrays import RATIOS, TextArrays, TextSettings, gram_settings, read_texts
from research.data.text.tokens import pretrained_tokens
from research.errors import Rate, UserError, choose, unpack, unpack_part, without_name
from research.interop import pretrained
from research.models.model import Model, builder_outside, defaults_of, model_of
from research.nn.text_models import NGramBag, TextConvolution, TextLSTM
from research.nn.text_transformer import TextTransformer
from research.nn.transformer_settings import TransformerSettings


class Pooled(NamedTuple):
    """Settings of the Transformer in addition to `TransformerSettings`.

    `pool` 'auto' is the 'pooler' of pretrained weights with a trained head for the same classes, 'first' with other
    weights, and 'mean' from scratch.
    """

    pool: Literal['auto', 'pooler', 'first', 'mean', 'max'] = 'auto'
    head_dropout: Rate = 0.1


SHAPE_GIVEN = ('vocabulary', 'length', 'causal', 'types', 'pooler', 'pooler_activation')
SETTINGS = {
    'ngrams': defaults_of(GramSettings) | defaults_of(NGramBag),
    'convolution': defaults_of(TextConvolution),
    'lstm': defaults_of(TextLSTM),
    'transformer': defaults_of(TransformerSettings, *SHAPE_GIVEN) | defaults_of(Pooled) | pretrained.DEFAULTS,
}


def store_text_weights(section: Mapping[str, Any], folder: epath.Path) -> Tokenizer | None:
    """Stores the pretrained weights that `config.model` names and returns their tokenizer; None without weights.

    Raises:
      UserError: if the weights are not a text encoder.
    """
    if section.get('name') != 'transformer':
        return None
    tokenizer = pretrained.store(section, folder, 'encoder')
    if tokenizer is not None:
        pretrained_tokens(tokenizer, str(section['weights']))  # raises if the tokenizer is not that of an encoder
    return tokenizer


def text_model(
    section: Mapping[str, Any], units: int, texts: TextArrays, folder: epath.Path, classes: Sequence[str] = ()
) -> Model:
    """Builds the model of `config.model`; it reads the arrays of `texts`.

    Args:
      section: `config.model`.
      units: output units.
      texts: the text preprocessing.
      folder: the run's prepared folder.
      classes: class names, one per unit; pretrained weights for the same classes keep their trained head.

    Raises:
      UserError: if the model or a setting is unknown, or a value impossible.
    """
    name, settings = section.get('name', ''), without_name(section)
    if outside := builder_outside(name, 'text_model'):
        return outside(section, units, texts, folder, classes)
    choose(name, SETTINGS, 'config.model.name')
    if name == 'ngrams':
        return gram_model(settings, units, texts, folder)
    load = None
    if name == 'transformer':
        module, head = transformer(settings, units, texts, folder, classes)
        load = pretrained.make_load(settings, folder, path='encoder', head=head)
    else:
        kind = {'convolution': TextConvolution, 'lstm': TextLSTM}[name]
        module = unpack(kind, settings, 'model', vocabulary=texts.size, units=units)
    if texts.padding == 'left' and name != 'lstm':
        raise UserError(f"config.task.padding='left' requires config.model.name='lstm', got {name!r}")
    row = np.ones((1, texts.length), np.int32)
    blank = {'tokens': row, 'length': np.full((1,), texts.length, np.int32), 'types': np.zeros_like(row)}
    return model_of(module, lambda batch: (batch['tokens'], batch['length'], batch['types']), blank, load)


def text_encoder(
    section: Mapping[str, Any], units: int, settings: TextSettings, folder: epath.Path, classes: Sequence[str]
) -> tuple[TextTransformer, dict[str, Any]]:
    """The module of an encoder with pretrained weights, and the description of these."""
    module, _ = transformer(without_name(section), units, read_texts(settings, section, folder), folder, classes)
    return module, pretrained.read_description(section, folder) or {}


def gram_model(settings: Mapping[str, Any], units: int, texts: TextArrays, folder: epath.Path) -> Model:
    """Builds a bag of n-grams."""
    grams, rest = gram_settings(settings)
    module = unpack(NGramBag, rest, 'model', features=texts.size, units=units)
    ratios = jnp.asarray(load_array(folder / RATIOS)) if grams.naive_bayes else None
    return model_of(module, lambda batch: (batch['features'], ratios), {'features': np.zeros((1, 2), np.int32)})


def transformer(
    settings: Mapping[str, Any], units: int, texts: TextArrays, folder: epath.Path, classes: Sequence[str] = ()
) -> tuple[TextTransformer, list[int] | None]:
    """Builds an encoder, and the order of `classes` in the trained head of its weights, or None; see `text_model`."""
    pooled, section = unpack_part(Pooled, settings, 'model')
    head = pretrained.head_order(section, folder, classes) if len(classes) == units else None
    if pooled.pool == 'auto':
        other = 'first' if section.get('weights') else 'mean'
        pooled = pooled._replace(pool=other if head is None else 'pooler')
    given = {'vocabulary': texts.size, 'length': texts.length, 'causal': False}
    given |= {'types': 2 * texts.pair, 'pooler': pooled.pool == 'pooler'}
    shape = pretrained.read_shape(section, folder, **given)
    if shape.causal:
        raise UserError(f'config.model.weights={section.get("weights", "")!r} is not an encoder')
    shape = dataclasses.replace(shape, pooler=pooled.pool == 'pooler')  # initialized if the weights have none
    return TextTransformer(shape, units, *pooled), head if pooled.pool == 'pooler' else None
