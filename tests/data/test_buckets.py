"""Batches by bucket: every row once an epoch, one bucket a batch, a pure function of (seed, step)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.buckets import (
    Parts,
    batches_per_epoch,
    bucket_sampler,
    by_length,
    epoch_batches,
    evaluation_batches,
)

ROWS = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@settings(max_examples=50, deadline=None)
@given(ROWS, st.integers(1, 9), st.integers(0, 5), st.booleans())
def test_every_row_comes_once_an_epoch_in_a_batch_that_holds_it(buckets, size, epoch, rising):
    buckets = np.array(buckets)
    batches = epoch_batches(buckets, size, 7, epoch, rising)
    assert sorted(row for _, rows in batches for row in rows) == list(range(len(buckets)))
    assert len(batches) == batches_per_epoch(buckets, size, rising)
    for bucket, rows in batches:
        assert all(buckets[row] <= bucket if rising else buckets[row] == bucket for row in rows)
        assert 1 <= len(rows) <= size
    if rising:
        assert sum(len(rows) < size for _, rows in batches) <= 1


@settings(max_examples=30, deadline=None)
@given(ROWS, st.integers(1, 9), st.integers(0, 30))
def test_a_step_does_not_depend_on_the_steps_before(buckets, size, step):
    buckets = np.array(buckets)
    walked = bucket_sampler(buckets, size, 3, True)
    for before in range(step):
        walked(before)
    rows = bucket_sampler(buckets, size, 3, True)(step)
    assert walked(step) == rows and len(rows) == size
    assert len({row.bucket for row in rows}) == 1


def test_epochs_and_seeds_have_orders_of_their_own():
    buckets = np.arange(64) % 4
    orders = [epoch_batches(buckets, 4, seed, epoch, True) for seed in (0, 1) for epoch in (0, 1)]
    assert all(one != other for number, one in enumerate(orders) for other in orders[:number])


@given(ROWS, st.integers(1, 9))
def test_evaluation_passes_over_each_row_once_and_masks_the_rest(buckets, size):
    batches = evaluation_batches(np.array(buckets), size)
    real = [row.index for batch in batches for row in batch if row.real]
    assert sorted(real) == list(range(len(buckets)))
    for batch in batches:
        assert len(batch) == size and batch[0].real
        assert all(buckets[row.index] == row.bucket for row in batch)  # padding too: it has the shape of its batch


def test_lengths_go_to_the_smallest_size_that_holds_them():
    buckets = by_length(lambda split: [3, 4, 5, 8], (4, 8), {'x': -1.0})
    assert buckets.of('train').tolist() == [0, 0, 1, 1]
    example = {'x': np.ones((3, 2), np.float32), 'length': np.int32(3)}
    assert buckets.bucket(example) == 0
    padded = buckets.pad(example, 1)['x']
    np.testing.assert_array_equal(padded, np.concatenate([np.ones((3, 2)), -np.ones((5, 2))]))


def test_parts_are_those_of_each_row_in_order():
    rows = ['abc', 'd', 'ef']
    parts = Parts(rows, list)
    assert list(parts) == list('abcdef')
    assert [parts.origin(number) for number in range(6)] == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)]
    assert [parts.count(row) for row in range(3)] == [3, 1, 2]
    assert len(Parts(rows, list, limit=2)) == 4
    with pytest.raises(IndexError):
        parts[6]
