"""Units of real requests: all of them are encoded as the request was, and without one it is still a request."""

import numpy as np
import pytest
from etils import epath

from research import api
from research.explain.units import units

# the config of a task, and how many units its first request has at least
CONFIGS = {
    'digits': 16, 'adult': 5, 'splice_sites': 8, 'spoken_digits': 8, 'masked_lm': 1, 'multi30k_translation': 3,
    'python_lm': 2, 'span_corruption': 3, 'sst2': 2,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_units_of_a_request_are_encoded_again(name, tmp_path):
    config = api.read(f'configs/{name}.py:tiny')
    api.prepare(config, epath.Path(tmp_path))
    task = api.build(config, epath.Path(tmp_path))
    raw = dict(task.examples[0] if task.examples else task.source('train')[0])
    whole, found = task.encode(raw), units(task.inputs, raw)
    count = len(found.names)
    assert count >= CONFIGS[name]

    def encoded(kept):
        return task.encode(found.keep(kept, raw if name == 'adult' else None))

    again = encoded(np.ones(count, bool))
    assert again.keys() == whole.keys()
    for field in whole:
        np.testing.assert_array_equal(again[field], whole[field])
    changes = 0
    for number in range(min(count, 4)):
        without = task.encode(found.keep(np.arange(count) != number))
        changes += any(not np.array_equal(without[field], whole[field]) for field in whole)
    assert changes
    assert encoded(np.zeros(count, bool)).keys() == whole.keys()
