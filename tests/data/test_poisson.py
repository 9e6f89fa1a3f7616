"""Poisson samples: a pure function of (seed, step), in which rows come independently."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import stats

from research.data import batches
from research.data.batches import encode_rows, poisson_capacity, poisson_rows, training_loader
from research.errors import UserError


def draws(count, size, steps, seed=3):
    """Which rows were in which batch, [steps, count]."""
    chosen = np.zeros((steps, count), bool)
    for step in range(steps):
        chosen[step, [row.index for row in poisson_rows(count, size, count, seed, step) if row.real]] = True
    return chosen


def test_rows_come_independently_and_as_often_as_they_should():
    count, size, steps = 200, 30, 4000
    chosen, probability = draws(count, size, steps), 30 / 200
    sizes = chosen.sum(1)
    assert abs(sizes.mean() - size) < 4 * np.sqrt(size * (1 - probability) / steps)
    # A fixed size would have no variance; a binomial one has count p (1 - p).
    assert abs(sizes.var() / (count * probability * (1 - probability)) - 1) < 4 * np.sqrt(2 / steps)
    each = chosen.sum(0)
    assert stats.chisquare(each, np.full(count, each.mean())).pvalue > 1e-3
    pairs = np.corrcoef(chosen.T)[np.triu_indices(count, 1)]  # between rows
    assert abs(pairs.mean()) < 4 / np.sqrt(steps * len(pairs)) and np.abs(pairs).max() < 6 / np.sqrt(steps)
    times = np.mean(chosen[1:] & chosen[:-1])  # between steps
    assert abs(times - probability**2) < 4 * probability / np.sqrt(steps * count)


def test_a_batch_follows_from_seed_and_step_alone():
    rows = poisson_rows(1000, 50, 120, 5, 7)
    assert rows == poisson_rows(1000, 50, 120, 5, 7) and len(rows) == 120
    assert rows != poisson_rows(1000, 50, 120, 5, 8) and rows != poisson_rows(1000, 50, 120, 6, 7)
    words = np.random.Philox(key=[(1 << 32) + 5, 7]).random_raw(1000)  # fixed for all time
    real = [row.index for row in rows if row.real]
    assert real == np.flatnonzero(words < 0.05 * 2.0**64).tolist()
    assert all(row.epoch == 7 for row in rows if row.real) and not any(row.real for row in rows[len(real) :])


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 5000), share=st.floats(0, 1), multiple=st.integers(1, 16))
def test_capacity_is_the_smallest_that_hardly_ever_overflows(count, share, multiple):
    size = max(1, round(share * count))
    capacity = poisson_capacity(count, size, multiple)
    exact = poisson_capacity(count, size)
    assert capacity % multiple == 0 and exact <= capacity < exact + multiple and size <= exact <= count
    tail = stats.binom(count, size / count).sf
    bound = batches.MAX_OVERFLOW_PROBABILITY
    assert tail(exact) < bound * 1.01 and (exact == size or tail(exact - 1) > bound * 0.99)


def test_a_batch_above_its_capacity_is_cut():
    rows = poisson_rows(100, 50, 20, 0, 0)
    assert len(rows) == 20 and all(row.real for row in rows)
    assert all(row.real for row in poisson_rows(10, 10, 10, 0, 0))  # probability 1


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(UserError, match='batch_size=11 is more than the 10 rows'):
        poisson_capacity(10, 11)


def test_the_loader_gives_them_with_their_mask_on_any_devices():
    def encode(raw, rng=None):
        return {'x': np.float32(raw), 'noise': np.float32(0 if rng is None else rng.random())}

    def read(devices):
        mesh = jax.make_mesh(
            (devices,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
        )
        sharding = NamedSharding(mesh, PartitionSpec('data'))
        loader = training_loader(range(40), encode, range(2, 5), 8, 7, sharding, capacity=24)
        return [{name: np.asarray(value) for name, value in batch.items()} for batch in loader]

    one, four = read(1), read(4)
    for step, (left, right) in enumerate(zip(one, four, strict=True), 2):
        wanted = encode_rows(range(40), encode, poisson_rows(40, 8, 24, 7, step), 7)
        for name in wanted:
            np.testing.assert_array_equal(left[name], wanted[name])
            np.testing.assert_array_equal(right[name], wanted[name])
        assert 0 < wanted['mask'].sum() < 24
    noise = np.concatenate([batch['noise'][batch['mask'] > 0] for batch in one])
    assert len(set(noise.tolist())) == len(noise)  # a row that comes again is augmented anew
