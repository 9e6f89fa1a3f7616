"""Augmentation of sounds and spectrograms on the device; each row has its own key, independent of the batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from research.errors import SettingError


class Augmentation(NamedTuple):
    """Strengths of augmentations of sounds and spectrograms; 0: off."""

    shift: int = 0  # maximum shift in samples, in either direction
    gain: float = 0.0  # maximum change in decibels, in either direction
    noise: float = 0.0  # maximum white noise, as a share of the sound's root mean square
    time_masks: int = 0  # number of masked time intervals (SpecAugment)
    time_mask: int = 0  # their maximum width in frames
    band_masks: int = 0  # number of masked ranges of bands
    band_mask: int = 0  # their maximum width in bands

    def check(self, frames: int, bands: int) -> 'Augmentation':
        """Validates the settings and returns them; raises `SettingError` if masks are too wide."""
        if self.time_mask > frames or self.band_mask > bands:
            raise SettingError(
                f'time_mask={self.time_mask}',
                f'or band_mask={self.band_mask} does not fit into {frames} frames and {bands} bands',
            )
        return self


def keys_of(draws: UInt32[Array, 'batch'], purpose: int) -> Array:
    """Derives one key per row from the number that `encode` drew by (seed, epoch, index)."""
    return jax.vmap(lambda draw: jax.random.fold_in(jax.random.key(draw), purpose))(draws)


def augment_samples(
    samples: Float[Array, 'batch samples'], draws: UInt32[Array, 'batch'], settings: Augmentation
) -> Float[Array, 'batch samples']:
    """Shifts sounds in time (zero-padded), changes their gain, and adds white noise."""

    def one(row, key):
        if settings.shift:
            start = jax.random.randint(jax.random.fold_in(key, 0), (), 0, 2 * settings.shift + 1)
            row = jax.lax.dynamic_slice(jnp.pad(row, settings.shift), (start,), row.shape)
        if settings.gain:
            decibels = jax.random.uniform(jax.random.fold_in(key, 1), (), minval=-settings.gain, maxval=settings.gain)
            row = row * 10 ** (decibels / 20)
        if settings.noise:
            share = jax.random.uniform(jax.random.fold_in(key, 2), (), maxval=settings.noise)
            size = jnp.sqrt(jnp.mean(jnp.square(row)))
            row = row + share * size * jax.random.normal(jax.random.fold_in(key, 3), row.shape)
        return row

    return jax.vmap(one)(samples, keys_of(draws, 0))


def interval_mask(
    key: Array, length: int, masks: int, widest: int | Int[Array, ''], inside: int | Int[Array, ''] | None = None
) -> Float[Array, 'length']:
    """Draws a mask that is 0 in `masks` intervals of the first `inside` positions (None: of all) and 1 elsewhere.

    The width is uniform in 0 to `widest`, the start uniform over all positions that fit: Park et al. 2019
    (arXiv:1904.08779), section 2.
    """
    if not masks or (isinstance(widest, int) and not widest):
        return jnp.ones(length)
    inside = length if inside is None else inside
    width_key, start_key = jax.random.split(key)
    widths = jax.random.randint(width_key, (masks, 1), 0, widest + 1)
    starts = jnp.floor(jax.random.uniform(start_key, (masks, 1)) * (inside - widths + 1)).astype(jnp.int32)
    position = jnp.arange(length)
    return 1.0 - jnp.any((position >= starts) & (position < starts + widths), axis=0)


def augment_spectrogram(
    features: Float[Array, 'batch frames bands channels'], draws: UInt32[Array, 'batch'], settings: Augmentation
) -> Float[Array, 'batch frames bands channels']:
    """Masks time intervals and bands of normalized features with 0, their mean; no time warping."""
    _, frames, bands, _ = features.shape

    def one(row, key):
        times = interval_mask(jax.random.fold_in(key, 0), frames, settings.time_masks, settings.time_mask)
        kept_bands = interval_mask(jax.random.fold_in(key, 1), bands, settings.band_masks, settings.band_mask)
        return row * times[:, None, None] * kept_bands[:, None]

    return jax.vmap(one)(features, keys_of(draws, 1))


class UtteranceMasks(NamedTuple):
    """Strengths of SpecAugment for utterances of different lengths; 0: off."""

    time_masks: int = 0  # number of masked time intervals
    time_share: float = 0.0  # their maximum width, as a share of the utterance
    band_masks: int = 0  # number of masked ranges of bands
    band_mask: int = 0  # their maximum width in bands


def mask_utterances(
    features: Float[Array, 'batch frames bands channels'],
    lengths: Int[Array, 'batch'],
    draws: UInt32[Array, 'batch'],
    settings: UtteranceMasks,
) -> Float[Array, 'batch frames bands channels']:
    """Masks time intervals and bands with 0, the mean; intervals lie in the valid frames."""
    _, frames, bands, _ = features.shape

    def one(row, length, key):
        widest = jnp.floor(settings.time_share * length).astype(jnp.int32)
        masks = settings.time_masks if settings.time_share else 0
        times = interval_mask(jax.random.fold_in(key, 0), frames, masks, widest, length)
        kept_bands = interval_mask(jax.random.fold_in(key, 1), bands, settings.band_masks, settings.band_mask)
        return row * times[:, None, None] * kept_bands[:, None]

    return jax.vmap(one)(features, lengths, keys_of(draws, 1))


def shares(draws: UInt32[Array, 'batch'], max_share: float) -> Float[Array, 'batch']:
    """Draws the weight of each row in its mixture: uniform in [1 - max_share, 1], not from a Beta distribution."""
    return jax.vmap(lambda key: 1 - max_share * jax.random.uniform(key))(keys_of(draws, 2))


def mix(
    features: Float[Array, 'batch frames bands channels'], partner: Int[Array, 'batch'], share: Float[Array, 'batch']
) -> Float[Array, 'batch frames bands channels']:
    """Mixes each row with its partner (Zhang et al. 2018, arXiv:1710.09412)."""
    share = share[:, None, None, None]
    return share * features + (1 - share) * features[partner]
