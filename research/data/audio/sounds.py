"""Sounds on the host: read from files, mixed to one channel, resampled, cut or padded, and drawn as pictures."""

import collections.abc
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from research.data.readers.folders import read_sound
from research.data.readers.rows import Broken, Rows
from research.errors import UserError

LONGEST = 600  # seconds of a sound that is accepted
RATES = (1000, 384_000)  # samples a second that are accepted
LOUDEST = 8.0  # real numbers above this are no samples in [-1, 1]
IN_MEMORY = 1 << 30  # bytes of a split's sounds that are kept once they were read
# Dark to light, evenly in brightness: what is loud is light.
SHADES = ((8, 6, 24), (62, 20, 96), (136, 34, 104), (204, 66, 78), (244, 132, 50), (250, 206, 90), (254, 250, 214))


def mono(values: Any) -> Float[np.ndarray, 'samples']:
    """Returns samples as float32, the mean of their channels; whole numbers are scaled to [-1, 1].

    Args:
      values: [samples] or [samples, channels]. 64-bit whole numbers, as of JSON, count as 16-bit ones.

    Raises:
      UserError: for anything that is no sound: names what is wrong.
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
    if np.abs(samples).max() > LOUDEST:
        raise UserError(
            f'the samples of a sound must lie in -1 to 1 (real numbers) or be 16-bit whole numbers; the largest '
            f'is {np.abs(samples).max():g}'
        )
    return samples if samples.ndim == 1 else samples.mean(axis=1, dtype=np.float32)


def scaled(samples: np.ndarray) -> Float[np.ndarray, '...']:
    """Returns samples as float32: whole numbers divided by half the range of their type."""
    if samples.dtype.kind == 'f':
        return samples.astype(np.float32)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    bits = min(samples.dtype.itemsize * 8, 32) if samples.dtype.itemsize != 8 else 16
    return (samples.astype(np.float64) / 2 ** (bits - 1)).astype(np.float32)


def resample(samples: Float[np.ndarray, 'before'], rate: int, wanted: int) -> Float[np.ndarray, 'after']:
    """Returns a sound at another rate; what the new rate cannot hold is filtered out first.

    scipy.signal.resample_poly: a Kaiser window of beta 5, ten zero crossings on either side.
    """
    if rate == wanted:
        return samples
    from scipy.signal import resample_poly  # importing it takes a third of a second

    common = math.gcd(rate, wanted)
    return resample_poly(samples, wanted // common, rate // common).astype(np.float32)


def check_rate(rate: Any) -> int:
    """Returns a sample rate; a `UserError` for what is none."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)) or rate % 1 != 0:  # pyright: ignore[reportOperatorIssue]
        raise UserError(f"the sound's 'rate' must be a whole number of samples a second, got {rate!r:.40}")
    if not RATES[0] <= rate <= RATES[1]:
        raise UserError(f"the sound's 'rate' must be {RATES[0]:,} to {RATES[1]:,} samples a second, got {rate:g}")
    return int(rate)


def prepared(row: Mapping[str, Any], wanted: int, shortest: int) -> Float[np.ndarray, 'samples']:
    """Returns a row's sound in one channel at the rate wanted.

    Args:
      row: 'audio' is the bytes of a file, or numbers beside their 'rate'; a row of `SoundRows` keeps its sound.
      wanted: samples a second.
      shortest: samples, at that rate, of the shortest sound that is accepted.

    Raises:
      UserError: for what is no sound, or one that is too short or longer than 600 seconds.
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
        raise UserError("the request has samples but no 'rate': say how many there are in a second")
    rate, samples = check_rate(row['rate']), mono(row['audio'])
    if len(samples) > LONGEST * rate:
        raise UserError(f'the sound is {len(samples) / rate:,.0f} s long, at most {LONGEST} are read: cut it')
    if len(samples) * wanted < shortest * rate:
        raise UserError(
            f'the sound has {len(samples):,} samples, {len(samples) / rate:.4f} s: the model needs at least '
            f'{shortest / wanted:.4f} s, one window (config.task.window)'
        )
    return resample(samples, rate, wanted)


def fit(samples: Float[np.ndarray, 'before'], count: int, place: float = 0.5) -> Float[np.ndarray, 'after']:
    """Returns `count` samples: a longer sound is cut, a shorter one gets zeros on both sides.

    Args:
      samples: of any number.
      count: of samples wanted.
      place: 0 takes the start of a longer sound and puts a shorter one at the start, 1 the end, 0.5 the middle.
    """
    extra = len(samples) - count
    start = round(abs(extra) * place)
    if extra >= 0:
        return samples[start : start + count]
    return np.pad(samples, (start, -extra - start))


class SoundRows(collections.abc.Sequence):
    """A split whose sounds are mixed and resampled once, when they are first asked for, and kept in memory.

    As many are kept as fit into a gibibyte; the others are read again each time.
    """

    def __init__(self, rows: Rows, rate: int, shortest: int):
        self.rows, self.rate, self.shortest = rows, rate, shortest  # samples a second; samples
        self.kept, self.room = {}, IN_MEMORY

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> 'SoundRow':
        return SoundRow(self, range(len(self.rows))[number])

    def where(self, number: int) -> str:
        """Returns where a row comes from, for messages."""
        return self.rows.where(number)

    def label(self, number: int) -> Any:
        """Returns the label of a row, without reading its sound where that can be."""
        return self.rows.label(number) if self.rows.label else self.rows[number].get('label')

    def prepared(self, number: int) -> Float[np.ndarray, 'samples']:
        """Returns the sound of a row in one channel at the model's rate.

        Raises:
          UserError: where it cannot be; says where it stands.
        """
        if number in self.kept:
            return self.kept[number]
        try:
            sound = prepared(self.rows[number], self.rate, self.shortest)
        except Broken:
            raise
        except UserError as error:
            raise UserError(f'{self.where(number)}: {error}') from None
        if sound.nbytes <= self.room:
            self.kept[number] = sound
            self.room -= sound.nbytes
        return sound


class SoundRow(collections.abc.Mapping):
    """A row as its reader gives it, read only when it is looked at, and its sound as the model hears it."""

    def __init__(self, rows: SoundRows, number: int):
        self.rows, self.number = rows, number

    @functools.cached_property
    def raw(self) -> Mapping[str, Any]:
        """The row as it was read."""
        return self.rows.rows[self.number]

    def prepared(self) -> Float[np.ndarray, 'samples']:
        """Returns the sound in one channel at the model's rate."""
        return self.rows.prepared(self.number)

    def __getitem__(self, name: str) -> Any:
        return self.rows.label(self.number) if name == 'label' else self.raw[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)


def picture(values: Float[np.ndarray, 'frames bands']) -> UInt8[np.ndarray, 'bands frames 3']:
    """Returns a spectrogram as a picture: time to the right, low bands below, loud is light."""
    low, high = float(values.min()), float(values.max())
    place = (values.T[::-1] - low) / max(high - low, 1e-6) * (len(SHADES) - 1)
    steps = np.arange(len(SHADES))
    channels = [np.interp(place, steps, [shade[channel] for shade in SHADES]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def pictures_of(bands_of: Callable[[np.ndarray], Any]) -> Callable[[Mapping[str, Any]], Callable[[int], np.ndarray]]:
    """(batch) -> (row) -> the picture of its sound; `bands_of` makes spectrograms [batch, bands, frames] of samples."""

    def of_batch(batch: Mapping[str, Any]) -> Callable[[int], np.ndarray]:
        bands = np.asarray(bands_of(np.asarray(batch['audio'])))
        return lambda row: picture(bands[row].T)

    return of_batch


def sound_rows(source: Callable[[str], Rows], rate: int, shortest: int) -> Callable[[str], SoundRows]:
    """Returns a source whose sounds are prepared once for a model."""
    return functools.cache(lambda split: SoundRows(source(split), rate, shortest))
