"""Log-mel features against librosa's, stored beside this file, and against a float64 transform by hand."""

import pathlib

import jax
import numpy as np
import pytest

from research.errors import SettingError
from research.ops.audio import Mel, deltas, filter_bank, from_mel, log_mel, power_spectrum, to_mel

FIXTURES = pathlib.Path(__file__).parent / 'fixtures' / 'librosa.npz'
CASES = {
    'digits': Mel(8000, 25.0, 12.5, 40, 50.0, 0.0, 'slaney', True),
    'htk': Mel(16000, 32.0, 10.0, 32, 20.0, 7000.0, 'htk', False),
    'odd': Mel(22050, 20.0, 7.0, 30, 0.0, 0.0, 'slaney', True),
}


@pytest.mark.parametrize('name', CASES)
def test_log_mel_and_deltas_are_librosas(name):
    mel, stored = CASES[name].check(), np.load(FIXTURES)
    samples, wanted = stored[f'{name}/samples'], stored[f'{name}/log_mel']
    found = jax.jit(log_mel, static_argnums=1)(samples[None], mel)
    assert found.shape == (1, mel.frames(len(samples)), mel.bands) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], wanted, atol=2e-3)
    np.testing.assert_allclose(np.exp(found[0]), np.exp(wanted), rtol=2e-3, atol=1e-6 * np.exp(wanted).max())
    np.testing.assert_allclose(deltas(wanted[None])[0], stored[f'{name}/deltas'], atol=1e-5)


def by_hand(samples, mel):
    """Returns the power spectrum in float64 by NumPy's FFT, a frame at a time."""
    size, window = mel.transform_size, mel.window_samples
    hann = np.zeros(size)
    start = (size - window) // 2
    hann[start : start + window] = np.sin(np.pi * np.arange(window) / window) ** 2
    padded = np.pad(samples.astype(np.float64), size // 2)
    starts = range(0, len(samples) // mel.hop_samples * mel.hop_samples + 1, mel.hop_samples)
    return np.array([np.abs(np.fft.rfft(padded[at : at + size] * hann)) ** 2 for at in starts])


@pytest.mark.parametrize(('window', 'hop', 'count'), [(25.0, 12.5, 801), (8.0, 20.0, 700), (64.0, 43.4, 1000)])
def test_power_is_that_of_a_float64_transform(window, hop, count):
    mel = Mel(8000, window, hop, 8)
    samples = np.random.default_rng(0).normal(size=count).astype(np.float32)
    wanted = by_hand(samples, mel)
    np.testing.assert_allclose(power_spectrum(samples[None], mel)[0], wanted, rtol=1e-4, atol=1e-5 * wanted.max())


def test_scales_go_there_and_back_and_fix_known_points():
    frequency = np.array([0.0, 150.0, 999.0, 1000.0, 4000.0, 11025.0])
    for scale in ('slaney', 'htk'):
        np.testing.assert_allclose(from_mel(to_mel(frequency, scale), scale), frequency, atol=1e-8)
    assert to_mel(np.array([1000.0]), 'htk') == pytest.approx(999.9855) and to_mel(np.array([1000.0]), 'slaney') == 15
    bank = filter_bank(CASES['htk'])
    assert bank.min() == 0 and 0.5 < bank.max() <= 1  # bands overlap by half: where two meet they sum to one
    inside = slice(np.argmax(bank[:, 0]) + 1, np.argmax(bank[:, -1]))
    np.testing.assert_allclose(bank.sum(1)[inside], 1, atol=1e-9)


def test_silence_is_the_floor_and_a_slope_is_its_slope():
    mel = Mel(8000, bands=10, power_floor=1e-6)
    np.testing.assert_allclose(log_mel(np.zeros((1, 400), np.float32), mel), np.log(1e-6), rtol=1e-6)
    ramp = np.broadcast_to(np.arange(20.0)[:, None] * 3, (1, 20, 2))
    np.testing.assert_allclose(deltas(ramp)[0, 4:-4], 3, rtol=1e-6)


@pytest.mark.parametrize(('settings', 'message'), [
    (dict(bands=200), '^mels=200: band . contains none'),
    (dict(hop=0.01), 'a hop of 0.01 ms has 0'),
    (dict(fmax=5000.0), 'fmax <= 4000 Hz'),
    (dict(fmin=4000.0), '^fmin and fmax must satisfy fmin < fmax'),
])  # fmt: skip
def test_settings_that_cannot_be_are_named(settings, message):
    with pytest.raises(SettingError, match=message):
        Mel(8000, **settings).check()
