"""Documents packed into rows: nothing lost, nothing twice, nothing of two documents in one piece."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.text.corpus import Blocks
from research.data.text.packing import Packed, cut, pack

END = 0


@given(st.lists(st.lists(st.integers(1, 9), max_size=30), min_size=1, max_size=12), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_every_token_is_predicted_once_from_its_own_document(documents, length):
    stream = np.array([token for text in documents for token in [*text, END]], np.uint16)
    packed = Packed(stream, END, length)
    found = []
    for row in packed:
        assert {value.shape for name, value in row.items() if name != 'length'} == {(length,)}
        count, segments = int(row['length']), row['segments']
        assert np.all(segments[count:] == -1) and not row['tokens'][count:].any()
        assert np.all(np.diff(segments[:count]) >= 0) and segments[0] == 0
        for number in range(segments.max() + 1):
            inside = segments == number
            tokens, targets = row['tokens'][inside].tolist(), row['targets'][inside].tolist()
            assert tokens[1:] == targets[:-1] and END not in targets[:-1]
            found.append((tokens, targets))
    expected = []
    for text in documents:
        whole = [END, *text, END]
        for start in range(0, len(whole) - 1, length):
            piece = whole[start : start + length + 1]
            expected.append((piece[:-1], piece[1:]))
    assert sorted(found) == sorted(expected)


@given(st.lists(st.integers(1, 8), max_size=40))
@settings(max_examples=60, deadline=None)
def test_rows_hold_every_piece_once_and_are_well_filled(sizes):
    rows = pack(sizes, 8)
    assert sorted(piece for row in rows for piece in row) == list(range(len(sizes)))
    filled = [sum(sizes[piece] for piece in row) for row in rows]
    assert all(total <= 8 for total in filled)
    assert sum(total <= 4 for total in filled) <= 1  # two of these would be one row
    assert pack(sizes, 8) == rows


def test_packing_leaves_little_room():
    sizes = np.random.default_rng(0).integers(1, 100, 2000)
    rows = pack(sizes.tolist(), 128)
    assert len(rows) * 128 < 1.03 * sizes.sum()
    packed = Packed(np.array([1, 2, END, 3, END]), END, 4)
    assert len(packed) == 2 and packed.padding() == pytest.approx(1 - 5 / 8)
    assert cut(np.array([END, 1, 2, END]), END, 2).tolist() == [[0, 2], [2, 1]]
    with pytest.raises(IndexError):
        packed[2]


def test_crops_begin_anywhere_and_blocks_without_overlap_share_nothing():
    stream = np.arange(20)
    crops = Blocks(stream, 4, stride=1)
    assert len(crops) == 16 and crops[15]['tokens'].tolist() == [15, 16, 17, 18, 19]
    blocks = Blocks(stream, 4, overlap=0)
    np.testing.assert_array_equal(np.concatenate([row['tokens'] for row in blocks]), stream)
    assert len(Blocks(stream, 20)) == 0 and len(Blocks(stream, 20, overlap=0)) == 1
