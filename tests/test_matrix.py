"""Every method on every task: a cell trains, or refuses with a reason a person can read."""

import pytest

from launch.method_matrix import cell, configs
from research import api

TRAINED = ('fashion_private', 'python_lm', 'digits_gan')  # one of each family, whose steps are really taken
TRACED = ('spoken_digits',)  # the first config of its task refuses privacy


def one_of_each_task() -> list[str]:
    """Returns the first config, by name, of every task; `python -m launch.method_matrix` tries all configs."""
    tasks = {}
    for name in configs():
        tasks.setdefault(api.read(f'{name}:tiny').task['name'], name)
    return [name for name in (*tasks.values(), *TRACED) if name not in TRAINED]


@pytest.mark.slow
@pytest.mark.parametrize('method', sorted(api.method_defaults()))
@pytest.mark.parametrize('name', [*TRAINED, *one_of_each_task()])
def test_each_cell_trains_or_says_why_not(name, method, record_property):
    refusal = cell(name, method, train=name in TRAINED)
    record_property('cell', refusal or 'trains')
    assert name not in (*TRAINED, *TRACED) or not refusal
    assert not refusal or (len(refusal) > 20 and method in refusal), refusal
