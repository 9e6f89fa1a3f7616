"""Topologies as users write them, and the links that a collective has."""

import pytest

from research.capacity.chips import chips, rate, read_topology
from research.errors import UserError


def test_topologies_count_their_chips():
    assert read_topology('v5e:8x8').count == 64
    assert read_topology('v5p:4x4x8').count == 128
    assert read_topology('h100:16').shape == (16,)
    assert read_topology('h100:16').text == 'h100:16'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('v6:8x8', "did you mean 'v6e'"),
        ('h10:8', "did you mean 'h100'"),
        ('nothing', 'choose one of'),
        ('v5e', 'v5e:8x8'),
        ('v5e:', 'v5e:8x8'),
        ('v5e:8by8', 'v5e:8x8'),
        ('v5e:0x8', 'v5e:8x8'),
        ('v5e:4x4x4', '2 dimensions'),
        ('v5p:4x4', '3 dimensions'),
        ('v5e:32x16', 'largest slice of v5e is 16x16'),
    ],
)
def test_wrong_topologies_say_what_is_right(text, message):
    with pytest.raises(UserError, match=message):
        read_topology(text)


def test_rates_of_a_torus_grow_with_the_axes_a_group_spans():
    whole, half, mesh = (read_topology(text) for text in ('v5e:16x16', 'v5e:8x16', 'v5e:8x8'))
    assert rate(whole, 256) == 200e9  # all four links, each way
    assert rate(whole, 16) == 100e9  # one axis, a ring
    assert rate(half, 128) == 150e9  # 8 chips in a row do not wrap
    assert rate(mesh, 64) == 100e9
    assert rate(read_topology('v5p:4x4x4'), 64) == 600e9


def test_rates_of_gpus_fall_beyond_a_node():
    gpus = read_topology('h100:64')
    assert rate(gpus, 8) == 450e9
    assert rate(gpus, 64) == 50e9


def test_no_chip_offers_more_than_it_has():
    for chip in chips().values():
        assert 0 < chip.usable < 1.01 * chip.memory  # the compiler names 95.73 GiB where 95 are published
