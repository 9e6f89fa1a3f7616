"""Classifiers of table rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.errors import choose, unpack, without_name
from research.models.model import Model, builder_outside, defaults_of, model_of
from research.nn.table import TableMLP

SETTINGS = {'mlp': defaults_of(TableMLP)}


def table_model(section: Mapping[str, Any], units: int, numbers: int, sizes: Sequence[int]) -> Model:
    """Builds the model of `config.model`; it reads 'numbers' [batch, numbers] and 'categories' [batch, columns].

    Args:
      section: `config.model`; 'name' is optional.
      units: output units.
      numbers: width of the numeric input.
      sizes: number of categories of each categorical column.

    Raises:
      UserError: if the model or a setting is unknown, or a value impossible.
    """
    if outside := builder_outside(section.get('name') or '', 'table_model'):
        return outside(section, units, numbers, sizes)
    choose(section.get('name') or 'mlp', SETTINGS, 'config.model.name')
    module = unpack(TableMLP, without_name(section), 'model', classes=units, sizes=tuple(sizes))
    blank = {'numbers': np.zeros((1, numbers), np.float32), 'categories': np.zeros((1, len(sizes)), np.int32)}
    return model_of(module, lambda batch: (batch['numbers'], batch['categories']), blank)
