"""The global order is a pure function of (seed, step), whatever reads it."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.data.batches import (
    encode_rows,
    evaluation_loader,
    evaluation_rows,
    order,
    requests,
    stack,
    training_loader,
    training_rows,
)  # fmt: skip
from research.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]


def encode(raw, rng=None):
    noise = 0 if rng is None else rng.random()
    return {'x': np.array([raw, raw], np.float32), 'noise': np.float32(noise)}


def sharding(devices):
    mesh = jax.make_mesh((devices,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    return NamedSharding(mesh, PartitionSpec('data'))


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 2**31), steps=st.integers(1, 8))
def test_every_epoch_holds_every_row_once(count, size, seed, steps):
    rows = [row for step in range(steps) for row in training_rows(count, size, seed, step)]
    assert len(rows) == steps * size
    for epoch in range(len(rows) // count):
        part = rows[epoch * count : (epoch + 1) * count]
        assert sorted(row.index for row in part) == list(range(count))
        assert {row.epoch for row in part} == {epoch}


def test_order_is_fixed_for_all_time():
    """The numbers are those of Philox, a stream that NumPy guarantees; a change here breaks every resumed run."""
    words = np.random.Philox(key=[5, 2]).random_raw(6)
    np.testing.assert_array_equal(order(6, 5, 2), np.argsort(words))
    assert not np.array_equal(order(50, 5, 2), order(50, 5, 3))
    assert not np.array_equal(order(50, 5, 2), order(50, 6, 2))


def test_evaluation_pads_the_last_batch():
    rows = [row for step in range(3) for row in evaluation_rows(8, 3, step)]
    assert [row.index for row in rows if row.real] == list(range(8))
    batch = encode_rows(range(8), encode, evaluation_rows(8, 3, 2), seed=0)
    assert batch['mask'].tolist() == [1, 1, 0]


@pytest.mark.parametrize('devices', [1, 2, 4])
def test_loader_gives_the_same_batches_on_any_devices_and_from_any_step(devices):
    def read(start):
        loader = training_loader(range(10), encode, range(start, 6), 4, seed=7, sharding=sharding(devices))
        return [{name: np.asarray(value) for name, value in batch.items()} for batch in loader]

    reference = [encode_rows(range(10), encode, training_rows(10, 4, 7, step), 7) for step in range(6)]
    for start in (0, 3):
        for got, wanted in zip(read(start), reference[start:], strict=True):
            for name in wanted:
                np.testing.assert_array_equal(got[name], wanted[name])
    assert len({float(value) for batch in reference for value in batch['noise']}) == 24  # every epoch, new noise


def test_processes_give_what_threads_give():
    read = lambda workers: [  # noqa: E731
        np.asarray(batch['noise'])
        for batch in training_loader(range(10), encode, range(3), 4, 7, sharding(1), workers=workers)
    ]
    np.testing.assert_array_equal(read(0), read(2))


def test_a_consumer_that_stops_early_leaves_no_thread():
    loader = training_loader(range(10), encode, range(1000), 4, 7, sharding(1))
    batches = iter(loader)
    next(batches)
    batches.close()
    with pytest.raises(RuntimeError, match='shutdown'):
        loader._pool.submit(print)


SCRIPT = """
import jax
from research.data.batches import training_loader
loader = training_loader(range(10), lambda raw, rng=None: {'x': raw}, range(9), 4, 7,
                         jax.sharding.SingleDeviceSharding(jax.devices()[0]))
batches = iter(loader)
print(next(batches)['x'].shape)
"""


def test_a_script_that_ends_within_its_batches_says_nothing():
    found = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True, cwd=ROOT)
    assert (found.returncode, found.stdout, found.stderr) == (0, '(4,)\n', '')


def test_evaluation_loader_reads_each_row_once_and_a_limit():
    batches = list(evaluation_loader(range(7), encode, 4, sharding(2)))
    rows = np.concatenate([np.asarray(batch['index'])[np.asarray(batch['mask']) > 0] for batch in batches])
    assert rows.tolist() == list(range(7))
    assert len(list(evaluation_loader(range(7), encode, 2, sharding(2), limit=3))) == 2


def test_rows_that_do_not_fit_together_are_named():
    with pytest.raises(UserError, match="field 'x'"):
        stack([{'x': np.zeros(2)}, {'x': np.zeros(3)}])
    with pytest.raises(UserError, match='1 of 2 have it'):
        stack([{'x': np.zeros(2)}, {}])


def test_requests_are_filled_up_and_masked():
    batch = requests(encode, [5, 6], 4)
    assert batch['mask'].tolist() == [1, 1, 0, 0] and batch['x'][:2, 0].tolist() == [5, 6]
    assert stack([{'x': np.float64(1)}])['x'].dtype == np.float32
