"""Packing: every example once, never too much in a row, little padding, and rows that are what was put in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.dataset import open_dataset
from research.data.text.pair_packing import PackedRows, Ragged, first_fit, flatten, pack, padding_share
from research.data.text.pair_rows import read_pairs
from research.errors import UserError


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_first_fit_is_a_partition_that_fits(sizes):
    sizes = np.array(sizes)
    rows = first_fit(sizes, 20)
    assert sorted(example for row in rows for example in row) == list(range(len(sizes)))
    assert all((sizes[row].sum(axis=0) <= 20).all() for row in rows)
    for number, row in enumerate(rows[1:], 1):  # first fit: no example would have gone into an earlier row
        for example in row:
            for earlier in rows[:number]:
                there = [each for each in earlier if each < example]
                assert (sizes[there].sum(axis=0) + sizes[example] > 20).any()
    share = padding_share(sizes, len(rows), 20)
    assert share == pytest.approx(1 - sizes.sum() / (40 * len(rows)))


def test_sentences_leave_little_padding_and_many_rows_are_planned_soon():
    random = np.random.default_rng(0)
    source = np.clip(random.poisson(15, 5000), 2, 64)
    sizes = np.stack([source, np.clip(source + random.integers(-3, 4, 5000), 2, 64)], axis=1)
    rows = first_fit(sizes, 64)
    assert padding_share(sizes, len(rows), 64) < 0.15


def test_rows_hold_their_texts():
    texts = [[5, 6], [7], [8, 9, 10]]
    stream, starts = flatten(texts, np.uint16)
    assert stream.dtype == np.uint16
    ragged = Ragged(stream, starts)
    rows = PackedRows({'sources': ragged, 'targets': ragged}, np.array([0, 2, 3]))
    assert len(ragged) == 3 and len(rows) == 2
    assert [list(text) for text in rows[0]['sources']] == texts[:2]
    assert [list(text) for text in rows[1]['targets']] == texts[2:]
    for sequence in (rows, ragged):
        with pytest.raises(IndexError):
            sequence[len(sequence)]
    tokens, segments = pack(rows[0]['sources'], 5)
    np.testing.assert_array_equal(tokens, [5, 6, 7, 0, 0])
    np.testing.assert_array_equal(segments, [1, 1, 2, 0, 0])


def test_own_pairs_of_files_side_by_side(tmp_path):
    (tmp_path / 'a.en').write_text('one\n two \nthree\nfour\n')
    (tmp_path / 'a.de').write_text('eins\nzwei\ndrei\nvier\n')
    place = f'source={tmp_path}/a.en,target={tmp_path}/a.de'
    settings = {'reader': 'lines', 'train': place, 'validation': place, 'test': place}
    data = open_dataset(settings, ('source', 'target'), ('target',))
    assert read_pairs(data, 'train') == [('one', 'eins'), ('two', 'zwei'), ('three', 'drei'), ('four', 'vier')]
    alone = open_dataset({**settings, 'train': f'source={tmp_path}/a.en'}, ('source', 'target'), ('target',))
    with pytest.raises(UserError, match="no 'target'"):
        read_pairs(alone, 'train')
    with pytest.raises(UserError, match="its rows have no 'source'"):
        open_dataset({'name': 'chinese'}, ('source', 'target'))


def test_translations_of_a_source_stay_in_one_split(tmp_path):
    rows = [f'{number}\t{number} {copy}' for number in range(60) for copy in 'ab']
    (tmp_path / 'a.tsv').write_text('source\ttarget\n' + '\n'.join(rows))
    settings = {'reader': 'tsv', 'train': str(tmp_path / 'a.tsv'), 'test_fraction': 0.4}
    data = open_dataset(settings, ('source', 'target'), ('target',))
    sources = [{row['source'] for row in data.source(split)} for split in ('train', 'test')]
    assert all(sources) and not sources[0] & sources[1]
