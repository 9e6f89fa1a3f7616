"""Classifiers of letter sequences, one-hot or as k-mers."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from research.core.task import Batch
from research.errors import Rate, UserError, choose, unpack, unpack_part, without_name
from research.models.model import Model, builder_outside, defaults_of, model_of
from research.nn.sequence_models import SequenceConvolution
from research.nn.text_transformer import TextTransformer
from research.nn.transformer_settings import TransformerSettings


class Pooled(NamedTuple):
    """Settings of the Transformer in addition to `TransformerSettings`."""

    pool: Literal['max', 'mean'] = 'mean'
    head_dropout: Rate = 0.1


SETTINGS = {
    'convolution': defaults_of(SequenceConvolution, 'vocabulary'),
    'transformer': defaults_of(TransformerSettings, 'vocabulary', 'length', 'causal') | defaults_of(Pooled),
}


def sequence_model(section: Mapping[str, Any], units: int, kmers: int, length: int, blank: Batch) -> Model:
    """Builds the model of `config.model`; it reads 'bases' or 'kmers', and 'length'.

    Args:
      section: `config.model`.
      units: output units.
      kmers: size of the k-mer vocabulary; 0: one-hot letters.
      length: letters per sequence.
      blank: an encoded batch of one row.

    Raises:
      UserError: if the model or a setting is unknown, or a value impossible.
    """
    name, settings = section.get('name', ''), without_name(section)
    if outside := builder_outside(name, 'sequence_model'):
        return outside(section, units, kmers, length, blank)
    choose(name, SETTINGS, 'config.model.name')
    if name == 'convolution':
        module = unpack(SequenceConvolution, settings, 'model', units=units, vocabulary=kmers)
        return model_of(module, lambda batch: (batch['kmers' if kmers else 'bases'], batch['length']), blank)
    if not kmers:
        raise UserError('config.task.kmer=0: a Transformer reads k-mers; use 1 for single letters')
    pooled, rest = unpack_part(Pooled, settings, 'model')
    shape = unpack(TransformerSettings, rest, 'model', vocabulary=kmers, length=length, causal=False)
    module = TextTransformer(shape, units, *pooled)
    return model_of(module, lambda batch: (batch['kmers'], batch['length'], jnp.zeros_like(batch['kmers'])), blank)
