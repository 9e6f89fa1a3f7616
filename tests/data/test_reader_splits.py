"""Splits cut off by a hash: copies on one side, the same for ever."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.dataset import open_dataset
from research.data.readers.rows import SPLITS
from research.errors import UserError

WORDS = st.text(st.characters(codec='utf-8', exclude_characters='\r\n'), max_size=5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(WORDS, st.sampled_from('abc')), min_size=1, max_size=60), st.randoms())
def test_the_hash_keeps_copies_on_one_side(tmp_path_factory, pairs, random):
    """Whatever the order of rows and keys and whatever the labels; every row is in exactly one split."""
    folder = tmp_path_factory.mktemp('hash')
    pairs = pairs + [(text, random.choice('abc')) for text, _ in pairs]
    random.shuffle(pairs)
    lines = [
        json.dumps(
            {'text': text, 'label': label} if random.random() < 0.5 else {'label': label, 'text': text}
        )
        for text, label in pairs
    ]
    (folder / 'a.jsonl').write_text('\n'.join(lines))
    data = open_dataset(
        {
            'reader': 'jsonl',
            'train': str(folder / 'a.jsonl'),
            'validation_fraction': 0.3,
            'test_fraction': 0.3,
        }
    )
    found = {}
    for split in SPLITS:
        try:
            found[split] = list(data.source(split))
        except UserError as error:
            assert 'no row fell into' in str(error)
    rows = [(row['text'], row['label']) for each in found.values() for row in each]
    assert sorted(rows) == sorted(pairs)
    texts = [{row['text'] for row in each} for each in found.values()]
    assert sum(map(len, texts)) == len(set().union(*texts))


def test_the_hash_is_fixed_for_all_time_and_near_its_fractions(tmp_path):
    """The rule written out again; a change here would move rows between the splits of every run there is."""
    texts = [f'row {number}' for number in range(2000)]
    (tmp_path / 'a.jsonl').write_text(
        '\n'.join(json.dumps({'text': text, 'label': len(text)}) for text in texts)
    )
    data = open_dataset({'reader': 'jsonl', 'train': str(tmp_path / 'a.jsonl'), 'test_fraction': 0.2})
    places = {
        text: int.from_bytes(hashlib.sha256(b'text\0' + text.encode() + b'\0').digest()[:8], 'big') / 2**64
        for text in texts
    }
    edges = {'test': (0, 0.2), 'validation': (0.2, 0.3), 'train': (0.3, 1)}
    for split, (low, high) in edges.items():
        found = [row['text'] for row in data.source(split)]
        assert found == [text for text in texts if low <= places[text] < high]
        assert abs(len(found) / 2000 - (high - low)) < 0.04


def test_given_splits_are_taken_and_missing_ones_named(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / f'{name}.txt').write_text(name + '\n')
    settings = {'reader': 'lines', 'train': str(tmp_path / 'a.txt'), 'test': str(tmp_path / 'b.txt')}
    data = open_dataset({**settings, 'validation_fraction': 0.0})
    assert [row['text'] for row in data.source('test')] == ['b']
    with pytest.raises(UserError, match="no 'validation' split: set config.data.validation or"):
        data.source('validation')
    with pytest.raises(UserError, match="no split 'valid'; did you mean 'validation'"):
        data.source('valid')
    with pytest.raises(UserError, match='no row fell into the'):
        [open_dataset({**settings, 'validation_fraction': 0.5}).source(split) for split in ('train', 'validation')]
