"""Encoding, dropping and bucketing of utterances."""

import functools

import numpy as np
import pytest

from research.data.audio.utterances import (
    Front,
    bucket_sizes,
    lengths_of,
    make_buckets,
    make_encode,
    needed,
    read_plan,
    stretched,
    survey,
    utterances,
    write_plan,
)
from research.data.readers.rows import Rows, in_memory
from research.errors import UserError
from research.ops.audio import Mel
from research.ops.ctc import frames_needed, shortened
from research.ops.transcripts import normalize

MEL = Mel(8000, window=25.0, hop=10.0, bands=8)
STORED = Front(MEL, 3, 100, ' abc', normalize)
SOUNDS = STORED._replace(values=0)


def row_of(text, frames=40, values=3):
    return {'text': text, 'features': np.random.default_rng(frames).normal(size=(frames, values))}


def test_a_text_needs_a_frame_for_each_letter_and_one_between_equal_letters():
    for text, expected in (('', 0), ('a', 1), ('ab', 2), ('aab', 4), ('aaa', 5)):
        labels = STORED.labels(text)
        assert needed(labels) == expected
        assert frames_needed(np.pad(labels, (0, 9))[None], np.array([len(labels)]))[0] == expected


def test_rows_are_encoded_with_the_labels_of_their_letters():
    example = make_encode(STORED, shortened)(row_of('Cab, a?', 41))
    assert example['features'].shape == (41, 3) and example['features'].dtype == np.float32
    assert example['labels'].tolist() == [4, 2, 3, 1, 2, 0, 0, 0, 0, 0, 0] and example['count'] == 5
    assert 'labels' not in make_encode(STORED, shortened)({'features': np.zeros((8, 3))})
    cut = make_encode(STORED, shortened)(row_of('abcabc', 16))
    assert len(cut['labels']) == 4 and cut['count'] == 6  # has no alignment, and its count shows that
    assert make_encode(STORED, shortened)(row_of('ax', 16))['count'] == 1  # a letter without a label


def test_sounds_have_the_frames_of_their_spectrogram():
    sound = np.zeros(1234, np.float32)
    example = make_encode(SOUNDS, shortened)({'audio': sound, 'rate': 8000, 'text': 'a'})
    assert example['audio'].shape == (1234,) and example['frames'] == MEL.frames(1234) == 16


@pytest.mark.parametrize('front', [STORED, SOUNDS])
def test_the_speed_changes_the_length_and_is_a_function_of_the_generator(front):
    front = front._replace(speeds=(0.5, 2.0))
    row = row_of('a', 60) | {'audio': np.random.default_rng(0).normal(size=4800) / 9, 'rate': 8000}
    encode = make_encode(front, shortened)
    drawn = {int(encode(row, np.random.default_rng(seed))['frames']) for seed in range(9)}
    assert drawn == ({30, 120} if front.values else {31, 121})
    plain = encode(row)['frames']
    assert plain == (60 if front.values else 61)
    one, again = (encode(row, np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    crowded = row | {'text': 'abc abc abc'}  # eleven letters do not fit 30 frames: the true speed is kept
    drawn = {int(encode(crowded, np.random.default_rng(seed))['frames']) for seed in range(9)}
    assert drawn == {plain, 120 if front.values else 121}


def test_features_are_interpolated_linearly_in_time():
    line = np.arange(11, dtype=np.float32)[:, None] * [1.0, -2.0]
    slow = stretched(line, 0.5)
    assert slow.shape == (22, 2)
    np.testing.assert_allclose(slow, np.linspace(0, 10, 22)[:, None] * [1.0, -2.0], atol=1e-5)


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        ({'audio': np.zeros(9)}, 'stored features'),
        ({'features': np.zeros((9, 4))}, r'\[9, 4\]'),
        ({'features': np.zeros((3, 3))}, 'at least 4 frames'),
        ({'features': [[1.0], [2.0, 3.0]]}, 'numbers'),
        ({'features': np.full((9, 3), np.nan)}, 'finite'),
        ({'features': np.zeros((101, 3))}, 'config.task.seconds'),
    ],
)
def test_impossible_requests_are_refused(row, message):
    with pytest.raises(UserError, match=message):
        make_encode(STORED, shortened)(row)


def rows_of(*rows):
    return in_memory(rows, 'mine.csv')


def test_training_utterances_that_cannot_be_learned_are_dropped_by_name(tmp_path):
    rows = rows_of(row_of('abc', 20), row_of('aab aab', 20), row_of('ab', 101), row_of('?!', 20), row_of('B', 8))
    plan = survey(rows, STORED, shortened, drop=True)
    assert (plan.kept, plan.lengths, plan.texts, plan.alphabet) == ([0, 4], [20, 8], ['abc', 'b'], ' abc')
    assert [note.split(':')[0].split()[1] for note in plan.notes()] == ['1', '1', '1']
    assert "row 2 ('aab aab' needs 9 of 5 frames)" in plan.notes()[0]
    assert 'row 3' in plan.notes()[1] and 'row 4' in plan.notes()[2]
    with pytest.raises(UserError, match='row 2 .* needs 9 of 5 frames'):
        survey(rows, STORED, shortened, drop=False)
    with pytest.raises(UserError, match='no training utterance'):
        survey(rows_of(row_of('?', 20)), STORED, shortened, drop=True)
    write_plan(plan, tmp_path / 'prepared')
    assert read_plan(tmp_path / 'prepared') == plan


def test_rows_are_padded_to_buckets_that_hold_the_slowest_speed():
    front = STORED._replace(speeds=(0.8, 1.0))
    rows = {'train': rows_of(*(row_of('a', frames) for frames in (10, 20, 99, 40))), 'test': rows_of(row_of('b', 30))}
    plan = survey(rows['train'], front, shortened, drop=True)
    sizes = bucket_sizes(front.slower(plan.lengths), 2, int(front.room))
    assert sizes == sorted(sizes) and sizes[-1] == front.room == 126
    lengths = lengths_of(rows.__getitem__, front, plan.lengths)
    buckets = make_buckets(front, sizes, shortened, lengths)
    encode = make_encode(front, shortened)
    for row, bucket in zip(rows['train'], buckets.of('train'), strict=True):
        for seed in range(6):
            padded = buckets.pad(encode(row, np.random.default_rng(seed)), bucket)
            assert padded['features'].shape == (sizes[bucket], 3)
            assert padded['labels'].shape == (shortened(sizes[bucket]),)
    example = encode(rows['test'][0])
    assert buckets.of('test').tolist() == [buckets.bucket(example)]


def test_padded_sounds_have_the_frames_of_their_bucket():
    row = {'audio': np.zeros(1000, np.float32), 'rate': 8000, 'text': 'ab'}
    buckets = make_buckets(SOUNDS, [20, 40], shortened, lambda split: np.array([13]))
    example = make_encode(SOUNDS, shortened)(row)
    assert [MEL.frames(len(buckets.pad(example, bucket)['audio'])) for bucket in (0, 1)] == [20, 40]
    longest = make_encode(SOUNDS, shortened)({**row, 'audio': np.zeros(20 * MEL.hop_samples - 1, np.float32)})
    assert longest['frames'] == 20 and buckets.bucket(longest) == 0
    assert len(buckets.pad(longest, 0)['audio']) == len(longest['audio'])


def test_an_utterance_of_another_split_that_is_too_long_is_named():
    rows = {'test': rows_of(row_of('a', 20), row_of('a', 200))}
    with pytest.raises(UserError, match='mine.csv, row 2: .*config.task.seconds'):
        lengths_of(rows.__getitem__, STORED, [])('test')


def test_sounds_are_read_once_and_only_the_kept_ones_are_trained_on():
    reads = []

    def get(number):
        reads.append(number)
        return {'audio': np.zeros(800 + 80 * number, np.float32), 'rate': 8000, 'text': 'abc'[number]}

    source = functools.cache(lambda split: Rows(3, get, lambda number: f'row {number}'))
    rows = utterances(source, SOUNDS, [0, 2])('train')
    encode = make_encode(SOUNDS, shortened)
    for _ in range(3):
        assert [encode(row)['labels'][0] for row in rows] == [2, 4]
    assert reads == [0, 2]
