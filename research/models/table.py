"""Models that read the columns of a table and give one score for each unit of output."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.errors import choose, unpack, without_name
from research.models.model import Model, builder_outside, defaults_of, model_of
from research.nn.table import TableMLP

SETTINGS = {'mlp': defaults_of(TableMLP)}


def table_model(section: Mapping[str, Any], units: int, numbers: int, sizes: Sequence[int]) -> Model:
    """The model of `config.model`, which reads 'numbers' [batch, numbers] and 'categories' [batch, columns].

    Args:
      section: `config.model`; its 'name' may be left out, as there is one model.
      units: scores.
      numbers: columns of numbers.
      sizes: categories of each other column.

    Raises:
      UserError: for an unknown model or setting, or an impossible value.
    """
    if outside := builder_outside(section.get('name') or '', 'table_model'):
        return outside(section, units, numbers, sizes)
    choose(section.get('name') or 'mlp', SETTINGS, 'config.model.name')
    module = unpack(TableMLP, without_name(section), 'model', classes=units, sizes=tuple(sizes))
    blank = {'numbers': np.zeros((1, numbers), np.float32), 'categories': np.zeros((1, len(sizes)), np.int32)}
    return model_of(module, lambda batch: (batch['numbers'], batch['categories']), blank)
