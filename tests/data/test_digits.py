"""The digits: the same split for ever, stratified, disjoint and complete."""

import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from research.data.sets import digits
from research.data.sets.digits import split_rows
from research.errors import UserError

# SHA-256 of the row numbers as little-endian int64: only with these are metrics of two dates comparable.
FIXED = {'train': '1870c7c1b951db5f', 'validation': 'd4b7bc48a70b4e33', 'test': '352e527e98155f5b'}


def rows_of_splits():
    bunch = load_digits()
    return split_rows(bunch.images.astype(np.uint8), bunch.target), bunch


def test_the_split_never_changes():
    rows, _ = rows_of_splits()
    found = {
        name: hashlib.sha256(each.astype('<i8').tobytes()).hexdigest()[:16] for name, each in rows.items()
    }
    assert found == FIXED


def test_splits_are_disjoint_complete_and_stratified():
    rows, bunch = rows_of_splits()
    assert sorted(np.concatenate(list(rows.values()))) == list(range(1797))
    for name, share in (('train', 0.70), ('validation', 0.15), ('test', 0.15)):
        counts = np.bincount(bunch.target[rows[name]])
        np.testing.assert_allclose(counts, share * np.bincount(bunch.target), atol=1)


def test_no_scan_stands_in_two_splits():
    data = digits.open()
    seen = {split: {row['image'].tobytes() for row in data.source(split)} for split in data.splits}
    assert sum(map(len, seen.values())) == len(set.union(*seen.values())) == 1797


def test_rows_are_scans_between_0_and_1_with_their_label():
    data = digits.open()
    row = data.source('test')[0]
    assert row['image'].shape == data.shape == (8, 8, 1) and row['image'].dtype == np.float32
    assert 0 <= row['image'].min() and 0.5 < row['image'].max() <= 1
    assert row['label'] in data.classes == tuple('0123456789')
    np.testing.assert_array_equal(row['image'], data.source('test')[0]['image'])


def test_an_unknown_split_is_named():
    with pytest.raises(UserError, match="split: 'tset' is unknown; did you mean 'test'"):
        digits.open().source('tset')
