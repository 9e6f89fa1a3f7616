"""Writes what librosa makes of three short sounds, for tests/ops/test_audio.py.

    pip install -e '.[parity]'
    python tests/ops/make_audio_fixtures.py     # writes tests/ops/fixtures/librosa.npz
"""

import pathlib

import librosa
import numpy as np

FILE = pathlib.Path(__file__).parent / 'fixtures' / 'librosa.npz'
# Settings of `research.ops.audio.Mel`; window and hop in milliseconds.
CASES = {
    'digits': dict(rate=8000, window=25.0, hop=12.5, bands=40, fmin=50.0, fmax=0.0, scale='slaney', area=True),
    'htk': dict(rate=16000, window=32.0, hop=10.0, bands=32, fmin=20.0, fmax=7000.0, scale='htk', area=False),
    'odd': dict(rate=22050, window=20.0, hop=7.0, bands=30, fmin=0.0, fmax=0.0, scale='slaney', area=True),
}


def sound(rate: int, seed: int) -> np.ndarray:
    """Returns a fifth of a second of a rising tone in noise."""
    count = rate // 5 + seed
    tone = np.sin(2 * np.pi * np.cumsum(np.geomspace(100, rate / 3, count)) / rate)
    return (0.4 * tone + 0.05 * np.random.default_rng(seed).normal(size=count)).astype(np.float32)


def main() -> None:
    arrays = {}
    for number, (name, case) in enumerate(CASES.items()):
        samples = sound(case['rate'], number)
        window, hop = (round(case[each] * case['rate'] / 1000) for each in ('window', 'hop'))
        size = 1 << (window - 1).bit_length()
        power = librosa.feature.melspectrogram(
            y=samples.astype(np.float64), sr=case['rate'], n_fft=size, win_length=window, hop_length=hop,
            center=True, pad_mode='constant', power=2.0, n_mels=case['bands'], fmin=case['fmin'],
            fmax=case['fmax'] or None, htk=case['scale'] == 'htk', norm='slaney' if case['area'] else None,
            dtype=np.float64,
        )  # fmt: skip
        logarithm = np.log(np.maximum(power, 1e-10))
        arrays[f'{name}/samples'] = samples
        arrays[f'{name}/log_mel'] = logarithm.T.astype(np.float32)
        arrays[f'{name}/deltas'] = librosa.feature.delta(logarithm, width=9, mode='nearest').T.astype(np.float32)
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **arrays)
    print(FILE, FILE.stat().st_size, 'bytes, librosa', librosa.__version__)


if __name__ == '__main__':
    main()
