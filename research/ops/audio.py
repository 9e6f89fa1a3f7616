"""Log-mel spectrograms on the device.

The Fourier transform of a frame is a matrix product: windows are short, and matrix products are partitioned over
devices by rows, whereas the partitioner gathers the whole batch before an FFT.
"""

import functools
import math
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.errors import SettingError

DELTA_FRAMES = 4  # frames on either side in the fit of a slope
MAX_WINDOW_SAMPLES = 8192  # 170 ms at 48 kHz


class Mel(NamedTuple):
    """Settings of a mel spectrogram."""

    rate: int  # samples a second
    window: float = 25.0  # milliseconds of a frame
    hop: float = 10.0  # milliseconds from one frame to the next
    bands: int = 40
    fmin: float = 0.0  # Hz, lower edge of the first band
    fmax: float = 0.0  # Hz, upper edge of the last band; 0: half the rate
    scale: Literal['slaney', 'htk'] = 'slaney'
    area: bool = True  # filters have equal area; False: equal height
    power_floor: float = 1e-10  # lower bound of the power, before the logarithm

    @property
    def window_samples(self) -> int:
        """Samples of a frame."""
        return round(self.window * self.rate / 1000)

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""
        return round(self.hop * self.rate / 1000)

    @property
    def transform_size(self) -> int:
        """Samples of the Fourier transform: the power of two that holds a window; the rest are zeros."""
        return 1 << max(self.window_samples - 1, 1).bit_length()

    @property
    def highest(self) -> float:
        """Hz, where the last band ends."""
        return self.fmax or self.rate / 2

    def frames(self, samples: int) -> int:
        """Number of frames of this many samples; frame i is centred on sample i * hop."""
        return 1 + samples // self.hop_samples

    def check(self) -> 'Mel':
        """Validates the settings and returns them; raises `SettingError` if they are impossible."""
        if not 1 <= self.hop_samples or not 2 <= self.window_samples <= MAX_WINDOW_SAMPLES:
            raise SettingError(
                f'window={self.window:g}:',
                f'at {self.rate} Hz such a window has {self.window_samples} samples (allowed: 2 to '
                f'{MAX_WINDOW_SAMPLES}), and a hop of {self.hop:g} ms has {self.hop_samples} (1 or more)',
            )
        if not self.fmin < self.highest <= self.rate / 2:
            raise SettingError(
                'fmin',
                f'and fmax must satisfy fmin < fmax <= {self.rate / 2:g} Hz (half of sample_rate), got '
                f'{self.fmin:g} and {self.highest:g}',
            )
        empty = np.flatnonzero(filter_bank(self).max(axis=0) <= 0)
        if len(empty):
            raise SettingError(
                f'mels={self.bands}:',
                f'band {empty[0] + 1} contains none of the {self.transform_size // 2 + 1} frequencies of a window of '
                f'{self.window:g} ms: use fewer bands, a longer window, or a higher fmin',
            )
        return self


def to_mel(frequency: Float[np.ndarray, '*shape'], scale: str) -> Float[np.ndarray, '*shape']:
    """Converts frequencies in Hz to mel.

    'htk': 2595 log10(1 + f / 700) (O'Shaughnessy 1987; the HTK Book, section 5.4). 'slaney': 3 f / 200 below
    1000 Hz, and 15 + 27 log(f / 1000) / log(6.4) above (Slaney's Auditory Toolbox, 1998).
    """
    frequency = np.asarray(frequency, np.float64)
    if scale == 'htk':
        return 2595 * np.log10(1 + frequency / 700)
    above = 15 + 27 * np.log(np.maximum(frequency, 1000) / 1000) / math.log(6.4)
    return np.where(frequency < 1000, 3 * frequency / 200, above)


def from_mel(mel: Float[np.ndarray, '*shape'], scale: str) -> Float[np.ndarray, '*shape']:
    """Converts mel to frequencies in Hz: the inverse of `to_mel`."""
    mel = np.asarray(mel, np.float64)
    if scale == 'htk':
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp((np.maximum(mel, 15) - 15) * math.log(6.4) / 27))


@functools.lru_cache(maxsize=16)
def filter_bank(mel: Mel) -> Float[np.ndarray, 'bins bands']:
    """Weight of each frequency in each band, float64: triangular filters that overlap by half.

    Corners are evenly spaced on the mel scale. With `area`, each filter is divided by half its width in Hz.
    """
    bins = np.arange(mel.transform_size // 2 + 1) * mel.rate / mel.transform_size
    ends = to_mel(np.array([mel.fmin, mel.highest]), mel.scale)
    corners = from_mel(np.linspace(ends[0], ends[1], mel.bands + 2), mel.scale)
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - left) / (middle - left)
    falling = (right - bins[:, None]) / (right - middle)
    bank = np.maximum(0, np.minimum(rising, falling))
    return bank * 2 / (right - left) if mel.area else bank


@functools.lru_cache(maxsize=16)
def transform(mel: Mel) -> tuple[Float[np.ndarray, 'window bins'], Float[np.ndarray, 'window bins']]:
    """Real and imaginary part of the windowed Fourier transform as matrices, float64.

    The window is a periodic Hann window, 1/2 - cos(2 pi n / N) / 2.
    """
    steps = np.arange(mel.window_samples)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * steps / mel.window_samples)
    turns = np.outer(steps, np.arange(mel.transform_size // 2 + 1)) % mel.transform_size / mel.transform_size
    return hann[:, None] * np.cos(2 * np.pi * turns), -hann[:, None] * np.sin(2 * np.pi * turns)


def frame(samples: Float[Array, 'batch samples'], mel: Mel) -> Float[Array, 'batch frames window']:
    """Cuts sounds into overlapping windows, zero-padded at both ends.

    Concatenates blocks of one hop, as a gather is slow on accelerators.
    """
    size = mel.window_samples
    hop = mel.hop_samples
    count = mel.frames(samples.shape[1])
    before = mel.transform_size // 2 - (mel.transform_size - size) // 2
    blocks = -(-size // hop)
    after = (count - 1 + blocks) * hop - before - samples.shape[1]
    if after < 0:  # no window covers the last samples
        samples, after = samples[:, :after], 0
    padded = jnp.pad(samples, ((0, 0), (before, after)))
    hops = padded.reshape(samples.shape[0], -1, hop)
    return jnp.concatenate([hops[:, start : start + count] for start in range(blocks)], axis=-1)[..., :size]


def power_spectrum(samples: Float[Array, 'batch samples'], mel: Mel) -> Float[Array, 'batch frames bins']:
    """Computes |windowed Fourier transform| ** 2 of every frame, float32, in squared units of the samples."""
    frames = frame(samples.astype(jnp.float32), mel)
    parts = [
        jnp.einsum('bfn,nk->bfk', frames, jnp.asarray(matrix, jnp.float32), precision='highest')
        for matrix in transform(mel)
    ]
    return parts[0] ** 2 + parts[1] ** 2


def log_mel(samples: Float[Array, 'batch samples'], mel: Mel) -> Float[Array, 'batch frames bands']:
    """Computes the natural logarithm of the power in each mel band, clipped below at `mel.power_floor`.

    Args:
      samples: in [-1, 1], `mel.rate` per second.
      mel: the settings; the output has `mel.frames(samples.shape[1])` frames.
    """
    bank = jnp.asarray(filter_bank(mel), jnp.float32)
    bands = jnp.einsum('bfk,km->bfm', power_spectrum(samples, mel), bank, precision='highest')
    return jnp.log(jnp.maximum(bands, mel.power_floor))


def deltas(features: Float[Array, 'batch frames bands']) -> Float[Array, 'batch frames bands']:
    """Computes the slope of each band over time, fitted to 4 frames on either side (the HTK Book, equation 5.16).

    The first and last frames are repeated beyond the ends.
    """
    count = features.shape[1]
    reach = DELTA_FRAMES
    padded = jnp.pad(features, ((0, 0), (reach, reach), (0, 0)), mode='edge')
    slopes = sum(
        n * (padded[:, reach + n : reach + n + count] - padded[:, reach - n : reach - n + count])
        for n in range(1, reach + 1)
    )
    return slopes / (2 * sum(n * n for n in range(1, reach + 1)))  # pyright: ignore[reportReturnType]
