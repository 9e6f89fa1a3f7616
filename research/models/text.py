"""Models that read whole texts and give one score for each unit of output.

n-grams, a convolution, an LSTM, or a Transformer encoder from scratch or with published weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from tokenizers import Tokenizer

from research.data.text.corpus import load_array
from research.data.text.ngrams import GramSettings
from research.data.text.text_arrays import RATIOS, TextArrays, gram_settings
from research.data.text.tokens import pretrained_tokens
from research.errors import UserError, choose, unpack, unpack_part, without_name
from research.interop import pretrained
from research.models.model import Model, builder_outside, defaults_of, model_of
from research.nn.text_models import NGramBag, TextConvolution, TextLSTM
from research.nn.text_transformer import TextTransformer
from research.nn.transformer_settings import TransformerSettings


class Pooled(NamedTuple):
    """Settings of a Transformer beside those of its shape."""

    pool: Literal['pooler', 'first', 'mean', 'max'] = 'first'
    head_dropout: float = 0.1


SHAPE_GIVEN = ('vocabulary', 'length', 'causal', 'types', 'pooler')
SETTINGS = {
    'ngrams': GramSettings()._asdict() | defaults_of(NGramBag),
    'convolution': defaults_of(TextConvolution),
    'lstm': defaults_of(TextLSTM),
    'transformer': defaults_of(TransformerSettings, *SHAPE_GIVEN) | Pooled()._asdict() | pretrained.DEFAULTS,
}


def store_text_weights(section: Mapping[str, Any], folder: epath.Path) -> Tokenizer | None:
    """Stores in `folder` what the weights are that `config.model` names, and gives their tokenizer; None for none.

    Raises:
      UserError: for weights that are no encoder of texts.
    """
    if section.get('name') != 'transformer':
        return None
    tokenizer = pretrained.store(section, folder, 'encoder')
    if tokenizer is not None:
        pretrained_tokens(tokenizer, str(section['weights']))  # refuses what is no encoder
    return tokenizer


def text_model(
    section: Mapping[str, Any], units: int, texts: TextArrays, folder: epath.Path, classes: Sequence[str] = ()
) -> Model:
    """The model of `config.model`, which reads the arrays of `texts` in a batch.

    Args:
      section: `config.model`.
      units: scores.
      texts: how texts become arrays.
      folder: the run's prepared folder.
      classes: their names, one a unit: published weights for the same ones bring their trained head; () for none.

    Raises:
      UserError: for an unknown model or setting, or an impossible value.
    """
    name, settings = section.get('name', ''), without_name(section)
    if outside := builder_outside(name, 'text_model'):
        return outside(section, units, texts, folder, classes)
    choose(name, SETTINGS, 'config.model.name')
    if name == 'ngrams':
        return gram_model(settings, units, texts, folder)
    load = None
    if name == 'transformer':
        module = transformer(settings, units, texts, folder)
        matches = len(classes) == units and module.pool == 'pooler'
        head = pretrained.read_head(settings, folder, classes) if matches else None
        load = pretrained.make_load(settings, folder, path='encoder', head=head)
    else:
        kind = {'convolution': TextConvolution, 'lstm': TextLSTM}[name]
        module = unpack(kind, settings, 'model', vocabulary=texts.size, units=units)
    if texts.padding == 'left' and name != 'lstm':
        raise UserError(f"config.task.padding='left' is for config.model.name='lstm', not {name!r}")
    row = np.ones((1, texts.length), np.int32)
    blank = {'tokens': row, 'length': np.full((1,), texts.length, np.int32), 'types': np.zeros_like(row)}
    return model_of(module, lambda batch: (batch['tokens'], batch['length'], batch['types']), blank, load)


def gram_model(settings: Mapping[str, Any], units: int, texts: TextArrays, folder: epath.Path) -> Model:
    """A bag of n-grams."""
    grams, rest = gram_settings(settings)
    module = unpack(NGramBag, rest, 'model', features=texts.size, units=units)
    ratios = jnp.asarray(load_array(folder / RATIOS)) if grams.naive_bayes else None
    return model_of(module, lambda batch: (batch['features'], ratios), {'features': np.zeros((1, 2), np.int32)})


def transformer(settings: Mapping[str, Any], units: int, texts: TextArrays, folder: epath.Path) -> TextTransformer:
    """An encoder from scratch, or the one of the weights that the settings name."""
    pooled, section = unpack_part(Pooled, settings, 'model')
    given = {'vocabulary': texts.size, 'length': texts.length, 'causal': False}
    given |= {'types': 2 * texts.pair, 'pooler': pooled.pool == 'pooler'}
    shape = pretrained.read_shape(section, folder, **given)
    if shape.causal or (pooled.pool == 'pooler' and not shape.pooler):
        problem = 'is no encoder' if shape.causal else "has no pooler: set config.model.pool to 'first' or 'mean'"
        raise UserError(f'config.model.weights={section.get("weights", "")!r} {problem}')
    return TextTransformer(shape, units, *pooled)
