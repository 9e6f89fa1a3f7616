"""Sounds on the host: what is read, how it is resampled and fitted, and what is refused with which words."""

import io
import tarfile

import numpy as np
import pytest
import soundfile

from research.data.audio import sounds
from research.data.dataset import open_dataset
from research.data.readers.folders import read_sound
from research.data.readers.rows import Rows
from research.data.sets.tones import KINDS, tone
from research.errors import UserError


def file_of(samples, rate=8000, kind='WAV', subtype=None):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def sine(rate, frequency, seconds=0.5):
    return np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize(('rate', 'wanted'), [(44100, 16000), (8000, 16000), (22050, 8000)])
def test_a_resampled_sine_is_the_sine_of_the_new_rate(rate, wanted):
    found = sounds.resample(sine(rate, 440), rate, wanted)
    expected = sine(wanted, 440)
    assert abs(len(found) - len(expected)) <= 1 and found.dtype == np.float32
    middle = slice(wanted // 20, wanted // 20 * 8)  # the ends see silence
    np.testing.assert_allclose(found[middle], expected[middle], atol=5e-3)


def test_what_the_new_rate_cannot_hold_is_filtered_out():
    high = sounds.resample(sine(16000, 6000), 16000, 8000)
    assert np.abs(high[400:-400]).max() < 0.01


def test_files_and_samples_become_the_same_sound():
    samples = (sine(8000, 300) * 0.5).astype(np.float32)
    whole = np.round(samples * 32768).astype(np.int16)
    read = sounds.prepared({'audio': file_of(whole)}, 8000, 200)
    np.testing.assert_allclose(read, samples, atol=2e-5)
    for audio in (samples, whole, whole.astype(np.int64), np.stack([samples, samples], 1), whole.tolist()):
        np.testing.assert_allclose(sounds.prepared({'audio': audio, 'rate': 8000}, 8000, 200), samples, atol=2e-5)
    flac = sounds.prepared({'audio': file_of(whole, kind='FLAC')}, 8000, 200)
    np.testing.assert_array_equal(flac, read)
    one_side = sounds.prepared({'audio': np.stack([samples, 0 * samples], 1), 'rate': 8000}, 8000, 200)
    np.testing.assert_allclose(one_side, samples / 2, atol=1e-6)
    assert not sounds.prepared({'audio': np.zeros(300), 'rate': 8000}, 8000, 200).any()  # silence is a sound


@pytest.mark.parametrize(('raw', 'message'), [
    ({}, "no 'audio'"),
    ({'audio': 'a.wav'}, "'audio' is text, 'a.wav'"),
    ({'audio': b''}, 'the sound: cannot be read as sound'),
    ({'audio': file_of(np.zeros(4))[:30]}, 'the sound: '),
    ({'audio': file_of(np.zeros(0))}, 'no samples'),
    ({'audio': file_of(np.full(400, np.nan, np.float32), subtype='FLOAT')}, '400 of 400 samples of the sound are not'),
    ({'audio': file_of(np.zeros(199))}, 'has 199 samples, 0.0249 s: the model needs at least 0.0250 s'),
    ({'audio': np.zeros(500)}, "no 'rate'"),
    ({'audio': np.zeros(500), 'rate': 0}, "'rate' must be 1,000 to 384,000"),
    ({'audio': np.zeros(500), 'rate': 'fast'}, "'rate' must be a whole number"),
    ({'audio': np.zeros(500), 'rate': 8000.5}, "'rate' must be a whole number"),
    ({'audio': np.zeros(500), 'rate': float('nan')}, "'rate' must be a whole number"),
    ({'audio': np.zeros(500), 'rate': float('inf')}, "'rate' must be a whole number"),
    ({'audio': np.zeros((2, 500)), 'rate': 8000}, r'at most 32 channels: got \[2, 500\]'),
    ({'audio': np.full(500, 1000.0), 'rate': 8000}, 'the largest is 1000'),
    ({'audio': [[0.0], [0.0, 1.0]], 'rate': 8000}, 'rows differ'),
    ({'audio': np.zeros(601 * 1000, np.int16), 'rate': 1000}, '601 s long, at most 600'),
])  # fmt: skip
def test_what_is_no_sound_is_named(raw, message):
    with pytest.raises(UserError, match=message):
        sounds.prepared(raw, 8000, 200)


def test_sounds_are_cut_and_padded_where_asked():
    counted = np.arange(1.0, 8.0)
    assert sounds.fit(counted, 3).tolist() == [3, 4, 5] and sounds.fit(counted, 3, 0).tolist() == [1, 2, 3]
    assert sounds.fit(counted, 3, 1).tolist() == [5, 6, 7] and sounds.fit(counted, 7).tolist() == counted.tolist()
    assert sounds.fit(counted[:2], 6).tolist() == [0, 0, 1, 2, 0, 0]
    assert sounds.fit(counted[:2], 4, 0).tolist() == [1, 2, 0, 0]


def test_rows_are_prepared_once_and_say_where_they_are_broken():
    asked = []

    def get(number):
        asked.append(number)
        return {'audio': np.zeros(300 if number else 3), 'rate': 8000, 'label': 'quiet'}

    rows = sounds.sound_rows(lambda split: Rows(2, get, lambda number: f'file {number}'), 16000, 100)('train')
    assert len(rows[1].prepared()) == 600 and rows[1].prepared() is rows[1].prepared() and asked == [1]
    assert rows[1]['label'] == 'quiet' and dict(rows[1]).keys() == {'audio', 'rate', 'label'}
    with pytest.raises(UserError, match='file 0: the sound has 3 samples'):
        rows[0].prepared()
    full = sounds.SoundRows(rows.rows, 16000, 100)
    full.free_bytes = 2000
    assert full[1].prepared() is not full[1].prepared() and not full.cache


def test_a_loud_band_is_light_and_low_ones_are_below():
    shown = sounds.picture(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    assert shown.shape == (2, 3, 3) and shown.dtype == np.uint8
    assert shown[1, 0].tolist() == list(sounds.SHADES[-1]) and shown[0, 0].tolist() == list(sounds.SHADES[0])
    assert (sounds.picture(np.zeros((3, 2))) == shown[0, 0]).all()


def test_tones_are_a_function_of_the_seed_and_their_splits_share_none():
    data = open_dataset({'name': 'tones', 'examples': 48, 'seed': 3})
    rows = {split: data.source(split) for split in ('train', 'validation', 'test')}
    assert [len(each) for each in rows.values()] == [32, 8, 8]
    assert [row['label'] for row in rows['test']] == [*KINDS, *KINDS]
    np.testing.assert_array_equal(rows['test'][1]['audio'], tone(KINDS[1], 3, 1))
    keys = [row['audio'].tobytes() for each in rows.values() for row in each]
    assert len(set(keys)) == 48 and tone('low', 3, 0).tobytes() != tone('low', 4, 0).tobytes()


@pytest.mark.parametrize(('settings', 'message'), [
    ({'name': 'esc50'}, "did you mean 'esc10'"),
    ({'name': 'esc10', 'fold': 4}, 'fold: expected 1 or 2 or 3'),
    ({'name': 'free_spoken_digits', 'speaker': 'georg'}, "did you mean 'george'"),
    ({'name': 'tones', 'examples': 5}, 'examples must be 24 or more'),
])  # fmt: skip
def test_settings_that_cannot_be_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        open_dataset(settings)


@pytest.mark.data
def test_no_take_and_no_recording_is_in_two_splits(data, monkeypatch):
    monkeypatch.setenv('TESSERA_DATA', str(data))

    def names(split, **settings):
        rows = open_dataset(settings).source(split)
        return [rows.where(number).rpartition('/')[2].removesuffix('.wav') for number in range(len(rows))]

    digits = {split: names(split, name='free_spoken_digits') for split in ('train', 'validation', 'test')}
    assert {split: len(each) for split, each in digits.items()} == {'train': 2400, 'validation': 300, 'test': 300}
    takes = {split: {int(name.split('_')[2]) for name in each} for split, each in digits.items()}
    assert takes == {'test': set(range(5)), 'validation': set(range(5, 10)), 'train': set(range(10, 50))}
    spoken = {split: names(split, name='free_spoken_digits', speaker='theo') for split in digits}
    assert {split: len(each) for split, each in spoken.items()} == {'train': 2250, 'validation': 250, 'test': 500}
    assert {name.split('_')[1] for name in spoken['test']} == {'theo'} and len(set(sum(spoken.values(), []))) == 3000
    assert not any('theo' in name for name in spoken['train'] + spoken['validation'])
    for fold in (1, 2, 3):
        parts = {split: names(split, name='esc10', fold=fold) for split in digits}
        assert len(parts['test']) == 80 and sum(map(len, parts.values())) == 240 and len(parts['validation']) == 20
        assert {name[0] for name in parts['test']} == {str(fold)}
        recordings = [{name.split('-')[1] for name in each} for each in parts.values()]
        assert sum(map(len, recordings)) == len(set.union(*recordings)) == 188


def test_clips_of_esc10_are_read_from_the_original_archive(tmp_path):
    sounds_of = {1: sine(44100, 440, 4.98), 2: sine(44100, 440, 5.02), 3: sine(44100, 880, 5), 4: sine(44100, 880, 5)}
    with tarfile.open(tmp_path / 'esc10.tar', 'w') as archive:
        for fold, samples in sounds_of.items():
            for name in ('001 - Dog bark', '010 - Fire crackling'):
                data = file_of(0.5 * samples, 44100, 'OGG', 'VORBIS')
                header = tarfile.TarInfo(f'{name}/{fold}-{fold}00{name[2]}-A.ogg')
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
    opened = open_dataset({'name': 'esc10', 'folder': str(tmp_path), 'fold': 2, 'validation_share': 0.5})
    train, validation, test = (opened.source(split) for split in ('train', 'validation', 'test'))
    assert (len(train), len(validation), len(test)) == (2, 2, 2)  # the fourth fold is left out
    assert opened.classes == ('Dog bark', 'Fire crackling')
    for row in (train[0], validation[0], test[0]):
        assert row['audio'].shape == (80_000,) and row['audio'].dtype == np.float32 and row['rate'] == 16_000
        np.testing.assert_array_equal(row['audio'] * 32768, np.round(row['audio'] * 32768))
    middle = slice(8_000, 70_000)
    np.testing.assert_allclose(test[0]['audio'][middle], 0.5 * sine(16_000, 440, 5)[middle], atol=0.02)
    short = next(row for row in (*train, *validation) if not row['audio'][79_700:].any())
    assert short['audio'][79_000:79_600].any()
    with tarfile.open(tmp_path / 'esc10.tar', 'w') as archive:
        archive.addfile(tarfile.TarInfo('cats/9.ogg'))
    with pytest.raises(UserError, match='expected a file such as 001 - Dog bark/1-100032-A.ogg'):
        open_dataset({'name': 'esc10', 'folder': str(tmp_path)}).source('train')


def test_a_wav_that_is_cut_short_is_named_and_a_stream_is_read():
    whole = file_of(sine(8000, 440), 8000)
    with pytest.raises(UserError, match='a.wav: the sound is truncated'):
        read_sound(whole[: len(whole) // 2], 'a.wav')
    place = whole.index(b'data') + 4
    streamed = whole[:place] + b'\xff' * 4 + whole[place + 4 :]
    assert len(read_sound(streamed, 'a.wav')['audio']) == len(read_sound(whole, 'a.wav')['audio']) == 4000
