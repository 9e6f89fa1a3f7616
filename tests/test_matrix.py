"""Every method on every task: a cell trains, or refuses with a reason a person can read."""

import pytest

from launch.method_matrix import cell, configs
from research import api

TRAINED = ('fashion_private', 'spoken_digits')  # the first configs of their tasks refuse privacy


def one_of_each_task() -> list[str]:
    """Returns the first config, by name, of every task; `python -m launch.method_matrix` tries all configs."""
    tasks = {}
    for name in configs():
        tasks.setdefault(api.read(f'{name}:tiny').task['name'], name)
    return [*tasks.values(), *TRAINED]


@pytest.mark.slow
@pytest.mark.parametrize('method', sorted(api.method_defaults()))
@pytest.mark.parametrize('name', one_of_each_task())
def test_each_cell_trains_or_says_why_not(name, method, record_property):
    refusal = cell(name, method)
    record_property('cell', refusal or 'trains')
    assert name not in TRAINED or not refusal
    assert not refusal or (len(refusal) > 20 and method in refusal), refusal
