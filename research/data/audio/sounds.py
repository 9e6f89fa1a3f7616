"""Sounds on the host: decoding, mixing to one channel, resampling, cropping, padding, and drawing."""

import collections.abc
import fractions
import functools
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from research.data.readers.folders import read_sound
from research.data.readers.rows import Broken, Rows
from research.errors import UserError
from research.extras import require

MAX_SECONDS = 600
RATE_LIMITS = (1000, 384_000)  # accepted sample rates in Hz
MAX_RATIO = 50_000  # of the rates before and after resampling, as whole numbers without a common factor
MAX_AMPLITUDE = 8.0  # floats above this cannot be samples in [-1, 1]
MAX_CACHE_BYTES = 1 << 30  # prepared sounds of a split kept in memory
# A colour map from dark (quiet) to light (loud), with even steps of brightness.
SHADES = ((8, 6, 24), (62, 20, 96), (136, 34, 104), (204, 66, 78), (244, 132, 50), (250, 206, 90), (254, 250, 214))


def mono(values: Any) -> Float[np.ndarray, 'samples']:
    """Averages the channels to float32 samples; integers are scaled to [-1, 1].

    Args:
      values: [samples] or [samples, channels]. 64-bit integers, such as from JSON, count as 16-bit ones.

    Raises:
      UserError: for anything that is not a sound.
    """
    try:
        samples = np.asarray(values)
    except ValueError:
        raise UserError('a sound must be numbers [samples] or [samples, channels]; rows differ') from None
    if samples.dtype.kind not in 'iuf' or samples.ndim not in (1, 2):
        raise UserError(
            f'a sound must be numbers [samples] or [samples, channels], got {samples.dtype} {list(samples.shape)}'
        )
    if samples.ndim == 2 and samples.shape[1] > 32:
        raise UserError(f'a sound is [samples, channels], at most 32 channels: got {list(samples.shape)}')
    if not samples.size:
        raise UserError('the sound has no samples')
    if samples.dtype.kind == 'f' and not np.isfinite(samples).all():
        raise UserError(f'{np.sum(~np.isfinite(samples)):,} of {samples.size:,} samples of the sound are not finite')
    samples = scaled(samples)
    if np.abs(samples).max() > MAX_AMPLITUDE:
        raise UserError(
            f'the samples of a sound must be real numbers from -1 to 1 or 16-bit integers; the largest '
            f'is {np.abs(samples).max():g}'
        )
    return samples if samples.ndim == 1 else samples.mean(axis=1, dtype=np.float32)


def scaled(samples: np.ndarray) -> Float[np.ndarray, '...']:
    """Converts samples to float32; integers are divided by half the range of their type."""
    if samples.dtype.kind == 'f':
        return samples.astype(np.float32)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    bits = min(samples.dtype.itemsize * 8, 32) if samples.dtype.itemsize != 8 else 16
    return (samples.astype(np.float64) / 2 ** (bits - 1)).astype(np.float32)


def resample(samples: Float[np.ndarray, 'before'], rate: int, new_rate: int) -> Float[np.ndarray, 'after']:
    """Resamples a sound; frequencies above the new Nyquist limit are filtered out first.

    scipy.signal.resample_poly: a Kaiser window of beta 5, ten zero crossings on either side.
    """
    if rate == new_rate:
        return samples
    from scipy.signal import resample_poly  # importing it takes a third of a second

    ratio = fractions.Fraction(new_rate, rate)
    if max(ratio.numerator, ratio.denominator) > MAX_RATIO:  # the filter would have tens of millions of taps
        ratio = ratio.limit_denominator(1000)  # the speed changes by less than one in a thousand
    return resample_poly(samples, ratio.numerator, ratio.denominator).astype(np.float32)


def seconds_of(data: bytes) -> float:
    """The length of a sound file that was decoded before, from its header."""
    info = require('soundfile').info(io.BytesIO(data))
    return round(info.frames / info.samplerate, 3)


def check_rate(rate: Any) -> int:
    """Validates a sample rate and returns it as an integer; raises UserError if invalid."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)) or rate % 1 != 0:  # pyright: ignore[reportOperatorIssue]
        raise UserError(f"the sound's 'rate' must be a whole number of samples a second, got {rate!r:.40}")
    low, high = RATE_LIMITS
    if not low <= rate <= high:
        raise UserError(f"the sound's 'rate' must be {low:,} to {high:,} samples a second, got {rate:g}")
    return int(rate)


def prepared(row: Mapping[str, Any], wanted: int, shortest: int) -> Float[np.ndarray, 'samples']:
    """A row's sound in one channel at the rate `wanted`.

    Args:
      row: 'audio' is the bytes of a file, or samples with their 'rate'; a row of `SoundRows` caches its sound.
      wanted: sample rate in Hz.
      shortest: minimum length in samples at that rate.

    Raises:
      UserError: for anything that is not a sound, is too short, or is longer than 600 seconds.
    """
    if isinstance(row, SoundRow) and (row.rows.rate, row.rows.shortest) == (wanted, shortest):
        return row.prepared()
    if row.get('audio') is None:
        raise UserError("the request has no 'audio'")
    if isinstance(row['audio'], str):
        raise UserError(f"the request's 'audio' is text, {row['audio']!r:.60}: give the bytes of a file, or samples")
    if isinstance(row['audio'], bytes):
        row = read_sound(row['audio'], 'the sound')
    if row.get('rate') is None:
        raise UserError("the request has samples but no 'rate': give the sample rate in Hz")
    rate, samples = check_rate(row['rate']), mono(row['audio'])
    if len(samples) > MAX_SECONDS * rate:
        raise UserError(f'the sound is {len(samples) / rate:,.0f} s long, at most {MAX_SECONDS} are read: cut it')
    if len(samples) * wanted < shortest * rate:
        raise UserError(
            f'the sound has {len(samples):,} samples, {len(samples) / rate:.4f} s: the model needs at least '
            f'{shortest / wanted:.4f} s, one window (config.task.window)'
        )
    return resample(samples, rate, wanted)


def fit(samples: Float[np.ndarray, 'before'], count: int, position: float = 0.5) -> Float[np.ndarray, 'after']:
    """Crops or zero-pads a sound to `count` samples.

    Args:
      samples: of any length.
      count: number of samples to return.
      position: 0 keeps the start of a longer sound and puts a shorter one at the start; 1 the end; 0.5 the middle.
    """
    extra = len(samples) - count
    start = round(abs(extra) * position)
    if extra >= 0:
        return samples[start : start + count]
    return np.pad(samples, (start, -extra - start))


class SoundRows(collections.abc.Sequence):
    """A split whose sounds are mixed and resampled on first access and cached in memory.

    The cache holds up to one gibibyte; the other sounds are read again each time.
    """

    def __init__(self, rows: Rows, rate: int, shortest: int):
        self.rows, self.rate, self.shortest = rows, rate, shortest  # Hz; samples
        self.cache, self.free_bytes = {}, MAX_CACHE_BYTES
        self.facts: dict[int, dict[str, Any]] = {}  # the other fields of rows that were read

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> 'SoundRow':
        return SoundRow(self, range(len(self.rows))[number])

    def where(self, number: int) -> str:
        """Location of a row, for messages."""
        return self.rows.where(number)

    def label(self, number: int) -> Any:
        """Label of a row, read without its sound if possible."""
        return self.rows.label(number) if self.rows.label else self.rows[number].get('label')

    def prepared(self, number: int) -> Float[np.ndarray, 'samples']:
        """The sound of a row in one channel at the model's rate.

        Raises:
          UserError: names the row that cannot be prepared.
        """
        if number in self.cache:
            return self.cache[number]
        try:
            row = self.rows[number]
            self.facts[number] = {name: value for name, value in row.items() if name != 'audio'}
            sound = prepared(row, self.rate, self.shortest)
        except Broken:
            raise
        except UserError as error:
            raise UserError(f'{self.where(number)}: {error}') from None
        if sound.nbytes <= self.free_bytes:
            self.cache[number] = sound
            self.free_bytes -= sound.nbytes
        return sound


class SoundRow(collections.abc.Mapping):
    """A row, read only when accessed, and its sound prepared for the model."""

    def __init__(self, rows: SoundRows, number: int):
        self.rows, self.number = rows, number

    @functools.cached_property
    def raw(self) -> Mapping[str, Any]:
        """The row from the reader."""
        return self.rows.rows[self.number]

    def prepared(self) -> Float[np.ndarray, 'samples']:
        """The sound in one channel at the model's rate."""
        return self.rows.prepared(self.number)

    def __getitem__(self, name: str) -> Any:
        if name == 'label':
            return self.rows.label(self.number)
        facts = self.rows.facts.get(self.number, {})
        return facts[name] if name in facts else self.raw[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)


def picture(values: Float[np.ndarray, 'frames bands']) -> UInt8[np.ndarray, 'bands frames 3']:
    """Draws a spectrogram: time to the right, frequency upwards, loud is light."""
    low, high = float(values.min()), float(values.max())
    shade_index = (values.T[::-1] - low) / max(high - low, 1e-6) * (len(SHADES) - 1)
    steps = np.arange(len(SHADES))
    channels = [np.interp(shade_index, steps, [shade[channel] for shade in SHADES]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def pictures_of(bands_of: Callable[[np.ndarray], Any]) -> Callable[[Mapping[str, Any]], Callable[[int], np.ndarray]]:
    """(batch) -> (row) -> the picture of its sound; `bands_of` makes spectrograms [batch, bands, frames] of samples."""

    def of_batch(batch: Mapping[str, Any]) -> Callable[[int], np.ndarray]:
        bands = np.asarray(bands_of(np.asarray(batch['audio'])))
        return lambda row: picture(bands[row].T)

    return of_batch


def sound_rows(source: Callable[[str], Rows], rate: int, shortest: int) -> Callable[[str], SoundRows]:
    """Wraps a source so that its sounds are prepared once for a model."""
    return functools.cache(lambda split: SoundRows(source(split), rate, shortest))
