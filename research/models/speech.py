"""Encoders of speech: from the features of every frame to logits of every fourth frame."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from research.errors import PositiveInt, UserError, choose, unpack, unpack_part, without_name
from research.models.model import Model, builder_outside, defaults_of, model_of
from research.nn.conformer import SpeechEncoder
from research.nn.transformer_settings import TransformerSettings
from research.ops.ctc import SUBSAMPLING, shortened


class Convolutions(NamedTuple):
    """Settings of the Conformer in addition to `TransformerSettings`."""

    kernel: PositiveInt = 15  # frames of each convolution, odd


TRANSFORMER = defaults_of(TransformerSettings, 'vocabulary', 'length', 'causal', 'decoder_layers', 'source_vocabulary')
SETTINGS = {'conformer': TRANSFORMER | defaults_of(Convolutions), 'transformer': TRANSFORMER}


def speech_model(section: Mapping[str, Any], units: int, features: int, longest: int) -> Model:
    """Builds the model of `config.model`; it reads 'features' [batch, frames, features] and 'frames' [batch].

    Args:
      section: `config.model`.
      units: labels, with the blank.
      features: values per frame.
      longest: frames of the longest utterance.

    Raises:
      UserError: if the model or a setting is unknown, or a value impossible.
    """
    name, settings = section.get('name', ''), without_name(section)
    if outside := builder_outside(name, 'speech_model'):
        return outside(section, units, features, longest)
    choose(name, SETTINGS, 'config.model.name')
    kernel = 0
    if name == 'conformer':
        (kernel,), settings = unpack_part(Convolutions, settings, 'model')
        if kernel % 2 == 0:
            raise UserError(f'config.model.kernel must be an odd number of frames, got {kernel}')
        if settings.get('positions', 'rotary') not in ('rotary', 'none'):
            raise UserError("config.model.positions: the Conformer has 'rotary' positions or 'none'")
    length = shortened(longest)
    encoder = unpack(TransformerSettings, settings, 'model', vocabulary=1, length=length, causal=False)
    blank = {'features': np.zeros((1, SUBSAMPLING, features), np.float32), 'frames': np.full(1, SUBSAMPLING, np.int32)}
    module = SpeechEncoder(encoder, units, kernel)
    return model_of(module, lambda batch: (batch['features'], batch['frames']), blank)
