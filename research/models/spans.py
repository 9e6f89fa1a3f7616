"""Models that point at a span of a text: a convolution, and a Transformer encoder from scratch or pretrained."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from research.errors import Rate, UserError, choose, unpack, unpack_part, without_name
from research.interop import pretrained
from research.models.model import Model, builder_outside, defaults_of, model_of
from research.nn.span_models import SpanConvolution, SpanTransformer
from research.nn.transformer_settings import TransformerSettings


class HeadSettings(NamedTuple):
    """Settings of the Transformer in addition to `TransformerSettings`."""

    head_dropout: Rate = 0.1


SETTINGS = {
    'convolution': defaults_of(SpanConvolution),
    'transformer': defaults_of(TransformerSettings, 'vocabulary', 'length', 'causal', 'types', 'pooler')
    | defaults_of(HeadSettings)
    | pretrained.DEFAULTS,
}


def span_model(
    section: Mapping[str, Any], vocabulary: int, length: int, question: int, types: int, folder: epath.Path
) -> Model:
    """Builds the model of `config.model`; it reads 'tokens', 'length', 'types' and, a convolution, 'shapes'.

    Args:
      section: `config.model`.
      vocabulary: number of tokens.
      length: of a row.
      question: leading positions that hold the question.
      types: kinds of tokens; published weights know two.
      folder: the run's prepared folder.

    Raises:
      UserError: if the model or a setting is unknown, or a value impossible.
    """
    name, settings = section.get('name', ''), without_name(section)
    if outside := builder_outside(name, 'span_model'):
        return outside(section, vocabulary, length, question, types, folder)
    choose(name, SETTINGS, 'config.model.name')
    row = np.ones((1, length), np.int32)
    blank = {name: row for name in ('tokens', 'types', 'shapes')} | {'length': np.full((1,), length, np.int32)}
    if name == 'convolution':
        module = unpack(SpanConvolution, settings, 'model', vocabulary=vocabulary, types=types, question=question)
        return model_of(
            module, lambda batch: tuple(batch[name] for name in ('tokens', 'length', 'types', 'shapes')), blank
        )
    head, shape = unpack_part(HeadSettings, settings, 'model')
    given = {'vocabulary': vocabulary, 'length': length, 'types': types, 'causal': False, 'pooler': False}
    encoder = pretrained.read_shape(shape, folder, **given)
    if encoder.causal:
        raise UserError(f'config.model.weights={settings.get("weights", "")!r} is not an encoder')
    module = SpanTransformer(dataclasses.replace(encoder, pooler=False), *head)
    load = pretrained.make_load(shape, folder, path='encoder')
    return model_of(module, lambda batch: tuple(batch[name] for name in ('tokens', 'length', 'types')), blank, load)
