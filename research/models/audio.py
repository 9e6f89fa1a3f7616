"""Audio classifiers over spectrograms: convolutions, a residual network, a Transformer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from research.errors import PositiveInt, choose, unpack, unpack_part, without_name
from research.models.model import Model, builder_outside, defaults_of, model_of
from research.nn.audio import SoundConvolution, SoundTransformer, patches_of
from research.nn.resnet import ResNet
from research.nn.transformer_settings import TransformerSettings


class Patches(NamedTuple):
    """Settings of the Transformer in addition to `TransformerSettings`."""

    patch: PositiveInt = 8  # size of a patch, in bands and frames


SETTINGS = {
    'convnet': defaults_of(SoundConvolution, 'classes'),
    'resnet': defaults_of(ResNet, 'classes'),
    'transformer': defaults_of(TransformerSettings, 'vocabulary', 'length', 'causal') | defaults_of(Patches),
}


def sound_model(section: Mapping[str, Any], classes: int, shape: tuple[int, int, int]) -> Model:
    """Builds the model of `config.model`; it reads 'spectrogram' [batch, bands, frames, channels].

    Args:
      section: `config.model`.
      classes: number of classes.
      shape: bands, frames and channels.

    Raises:
      UserError: if the model or a setting is unknown, or a value impossible.
    """
    name, settings = section.get('name', ''), without_name(section)
    if outside := builder_outside(name, 'sound_model'):
        return outside(section, classes, shape)
    choose(name, SETTINGS, 'config.model.name')
    if name == 'transformer':
        patches, rest = unpack_part(Patches, settings, 'model')
        length = patches_of(*shape[:2], patches.patch) + 1
        encoder = unpack(TransformerSettings, rest, 'model', vocabulary=1, length=length, causal=False)
        module = SoundTransformer(encoder, patches.patch, classes)
    else:
        kind = {'convnet': SoundConvolution, 'resnet': ResNet}[name]
        module = unpack(kind, settings, 'model', classes=classes)
    return model_of(module, lambda batch: (batch['spectrogram'],), {'spectrogram': np.zeros((1, *shape), np.float32)})
