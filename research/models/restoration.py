"""Models that restore pictures: a residual denoiser, a fast one, sub-pixel super-resolution."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from research.errors import UserError, choose, unpack, without_name
from research.models.model import Model, builder_outside, defaults_of, model_of
from research.nn.restoration import DnCNN, FFDNet, SubPixel

MODULES = {'dncnn': DnCNN, 'ffdnet': FFDNet, 'subpixel': SubPixel}
SETTINGS = {name: defaults_of(module, 'scale') for name, module in MODULES.items()}
GRANULE = 4  # pixels: sides of patches and margins are multiples, for the networks that halve the resolution


def restoration_model(section: Mapping[str, Any], scale: int) -> Model:
    """Builds the model of `config.model`; it reads 'image' [batch, height, width, 1] and 'level' [batch].

    Args:
      section: `config.model`.
      scale: how many times larger than its input the output is.

    Raises:
      UserError: if the model or a setting is unknown, a value impossible, or the model cannot enlarge.
    """
    name = section.get('name', '')
    if outside := builder_outside(name, 'restoration_model'):
        return outside(section, scale)
    choose(name, MODULES, 'config.model.name')
    if scale > 1 and name != 'subpixel':
        raise UserError(f"config.model.name={name!r} cannot enlarge a picture; choose 'subpixel' for bicubic pictures")
    module = unpack(MODULES[name], without_name(section), 'model', scale=scale)
    blank = {'image': np.zeros((1, 2 * GRANULE, 2 * GRANULE, 1), np.float32), 'level': np.zeros(1, np.float32)}
    return model_of(module, lambda batch: (batch['image'], batch['level']), blank)


def margin_of(model: Model) -> int:
    """The pixels around a tile that its outputs depend on, rounded up to a multiple of `GRANULE`."""
    return -(-model.module.reach // GRANULE) * GRANULE
