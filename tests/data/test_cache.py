"""Splits that are encoded once: rows give their arrays without encoding again, requests are encoded."""

import numpy as np
import pytest

from research.data.cache import encoded_once
from research.errors import UserError


class Rows(list):
    def where(self, number):
        return f'row {number}'


def test_rows_are_encoded_once_and_requests_each_time():
    calls = []

    def encode(raw, rng=None):
        calls.append(raw['x'])
        return {'x': np.float32(raw['x'])}

    source, encoded = encoded_once(lambda split: Rows([{'x': 1}, {'x': 2}]), encode)
    rows = source('train')
    assert calls == [1, 2] and source('train') is rows
    assert [float(encoded(row, rng=object())['x']) for row in rows] == [1, 2] and dict(rows[1]) == {'x': 2}
    assert calls == [1, 2]
    assert encoded({'x': 3})['x'] == 3 and calls == [1, 2, 3]


def test_a_row_that_cannot_be_encoded_is_named():
    def encode(raw, rng=None):
        raise UserError('no number')

    with pytest.raises(UserError, match='row 0: no number'):
        encoded_once(lambda split: Rows([{}]), encode)[0]('train')
