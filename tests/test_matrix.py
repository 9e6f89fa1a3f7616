"""Every method on every task: a cell trains, or refuses with a reason a person can read."""

import pytest

from launch.matrix import cell, configs
from research import api


@pytest.mark.slow
@pytest.mark.parametrize('method', sorted(api.method_defaults()))
@pytest.mark.parametrize('name', configs())
def test_each_cell_trains_or_says_why_not(name, method, record_property):
    refusal = cell(name, method)
    record_property('cell', refusal or 'trains')
    assert not refusal or (len(refusal) > 20 and method in refusal), refusal
