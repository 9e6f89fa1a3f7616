"""Labelled texts by name, and labels as arrays."""

import collections

import numpy as np
import pytest
from etils import epath

from research.data.dataset import open_dataset
from research.data.labels import collect, make_encode_label, read_labels, write_labels
from research.errors import UserError

SPLITS = ('train', 'validation', 'test')


def test_the_chinese_sentences_are_always_there():
    data = open_dataset({'name': 'chinese', 'reader': '', 'train': ''})
    rows = [row for split in SPLITS for row in data.source(split)]
    assert len(rows) == len({row['text'] for row in rows}) == 160
    assert set(collections.Counter(row['label'] for row in rows).values()) == {40}
    assert all(set(row) == {'text', 'label', 'english'} and all(row.values()) for row in rows)
    two = open_dataset({'name': 'chinese', 'topics': 2})
    assert {row['label'] for row in two.source('train')} == {'天气', '饮食'}


@pytest.mark.data
def test_published_sets_have_their_published_sizes(data, monkeypatch):
    monkeypatch.setenv('TESSERA_DATA', str(data))
    sst2 = open_dataset({'name': 'sst2'})
    assert [len(sst2.source(split)) for split in SPLITS] == [6920, 872, 1821]
    assert collections.Counter(row['label'] for row in sst2.source('test')) == {'negative': 912, 'positive': 909}
    trec = open_dataset({'name': 'trec'})
    train = [row for split in SPLITS[:2] for row in trec.source(split)]
    assert len(train) == 5452 and len(trec.source('test')) == 500
    assert collections.Counter(row['label'] for row in train) == {
        'ENTY': 1250, 'HUM': 1223, 'DESC': 1162, 'NUM': 896, 'LOC': 835, 'ABBR': 86
    }  # fmt: skip
    texts = [{row['text'] for row in trec.source(split)} for split in SPLITS[:2]]
    assert not texts[0] & texts[1]
    assert any('ð' in row['text'] for row in train)  # the byte that is not UTF-8
    fine = open_dataset({'name': 'trec', 'labels': 'fine'})
    assert len({row['label'] for split in SPLITS[:2] for row in fine.source(split)}) == 50


@pytest.mark.parametrize(('settings', 'pair', 'message'), [
    ({'name': 'sst'}, False, "did you mean 'sst2'"),
    ({'name': 'chinese', 'topics': 9}, False, 'topics must be at least 2 and at most 4'),
    ({'name': 'chinese', 'topcis': 2}, False, "did you mean 'topics'"),
    ({'name': 'chinese'}, True, "its rows have no 'pair'"),
    ({'name': 'trec', 'folder': 'nowhere'}, False, 'nowhere'),
])  # fmt: skip
def test_sets_that_cannot_be_are_refused(settings, pair, message):
    with pytest.raises(UserError, match=message):
        open_dataset(settings, ('text', 'pair') if pair else ('text',)).source('train')


def test_labels_of_each_kind(tmp_path):
    single = collect([{'label': each} for each in ('b', 'a', 'b', ' b')], 'single', ',', 'x')
    assert single.classes == ['a', 'b'] and single.counts == [1, 3]
    assert make_encode_label(single, ',')('b') == 1
    multi = collect([{'label': each} for each in ('x, y', 'y', ['z', 'y'], '')], 'multi', ',', 'x')
    assert multi.classes == ['x', 'y', 'z'] and multi.counts == [1, 3, 1] and multi.size == 4
    assert make_encode_label(multi, ',')('z,x').tolist() == [1, 0, 1] and not make_encode_label(multi, ',')('').any()
    number = collect([{'label': each} for each in ('1', 2, 3.0)], 'number', ',', 'x')
    assert (number.mean, round(number.deviation, 6)) == (2.0, round(np.std([1, 2, 3]), 6))
    write_labels(single, epath.Path(tmp_path))
    assert read_labels(epath.Path(tmp_path)) == single


@pytest.mark.parametrize(('labels', 'kind', 'message'), [
    (['a', 'a'], 'single', 'all of one class: a'),
    (['1', 'one'], 'number', "'one' is not a finite number"),
    (['1', 'nan'], 'number', "'nan' is not a finite number"),
    (['1', '1'], 'number', 'all 1'),
    (['', ''], 'multi', 'none'),
])  # fmt: skip
def test_labels_that_teach_nothing_are_refused(labels, kind, message):
    with pytest.raises(UserError, match=message):
        collect([{'label': each} for each in labels], kind, ',', 'x')


def test_an_unknown_class_is_named():
    facts = collect([{'label': each} for each in ('cat', 'dog')], 'single', ',', 'x')
    with pytest.raises(UserError, match="class 'dgo' is not among the 2 of the training split; did you mean 'dog'"):
        make_encode_label(facts, ',')('dgo')
