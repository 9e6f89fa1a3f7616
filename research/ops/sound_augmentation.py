"""What happens to sounds in training, on the device: each row by its own key, whatever batch it travels in."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from research.errors import UserError


class Augmentation(NamedTuple):
    """How much sounds and their spectrograms are changed; 0 leaves each of them out."""

    shift: int = 0  # samples: moved by up to so many, either way
    gain: float = 0.0  # decibels: louder or softer by up to so many
    noise: float = 0.0  # white noise of up to this share of the sound's root mean square
    time_masks: int = 0  # so many stretches of time are hidden (SpecAugment)
    time_mask: int = 0  # frames of the longest
    band_masks: int = 0  # so many stretches of neighbouring bands are hidden
    band_mask: int = 0  # bands of the widest

    def check(self, frames: int, bands: int) -> 'Augmentation':
        """Returns the settings; raises a `UserError` for those that cannot be."""
        if min(self) < 0:
            raise UserError(
                'config.task: shift, gain, noise, time_masks, time_mask, band_masks and band_mask must be zero or '
                f'more, got {", ".join(f"{value:g}" for value in self)}'
            )
        if self.time_mask > frames or self.band_mask > bands:
            raise UserError(
                f'config.task: masks of {self.time_mask} frames and {self.band_mask} bands do not fit into '
                f'{frames} frames and {bands} bands'
            )
        return self


def keys_of(draws: UInt32[Array, 'batch'], purpose: int) -> Array:
    """Returns one key for each row from the number that `encode` drew by (seed, epoch, index)."""
    return jax.vmap(lambda draw: jax.random.fold_in(jax.random.key(draw), purpose))(draws)


def augment_samples(
    samples: Float[Array, 'batch samples'], draws: UInt32[Array, 'batch'], settings: Augmentation
) -> Float[Array, 'batch samples']:
    """Returns sounds moved in time (zeros come in), louder or softer, and with white noise."""

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


def hidden(key: Array, length: int, masks: int, widest: int) -> Float[Array, 'length']:
    """Returns 0 in each of `masks` stretches and 1 elsewhere.

    The width is uniform in 0 to `widest`, the start uniform in where it fits: Park et al. 2019
    (arXiv:1904.08779), section 2.
    """
    if not masks or not widest:
        return jnp.ones(length)
    width_key, start_key = jax.random.split(key)
    widths = jax.random.randint(width_key, (masks, 1), 0, widest + 1)
    starts = jnp.floor(jax.random.uniform(start_key, (masks, 1)) * (length - widths + 1)).astype(jnp.int32)
    there = jnp.arange(length)
    return 1.0 - jnp.any((there >= starts) & (there < starts + widths), axis=0)


def augment_spectrogram(
    features: Float[Array, 'batch frames bands channels'], draws: UInt32[Array, 'batch'], settings: Augmentation
) -> Float[Array, 'batch frames bands channels']:
    """Returns normalised features with stretches of time and of bands set to 0, their mean; no time warping."""
    _, frames, bands, _ = features.shape

    def one(row, key):
        times = hidden(jax.random.fold_in(key, 0), frames, settings.time_masks, settings.time_mask)
        there = hidden(jax.random.fold_in(key, 1), bands, settings.band_masks, settings.band_mask)
        return row * times[:, None, None] * there[:, None]

    return jax.vmap(one)(features, keys_of(draws, 1))


def shares(draws: UInt32[Array, 'batch'], most: float) -> Float[Array, 'batch']:
    """Returns what is kept of each row where rows are mixed: uniform in 1 - most to 1, not Beta's."""
    return jax.vmap(lambda key: 1 - most * jax.random.uniform(key))(keys_of(draws, 2))


def mix(
    features: Float[Array, 'batch frames bands channels'], partner: Int[Array, 'batch'], share: Float[Array, 'batch']
) -> Float[Array, 'batch frames bands channels']:
    """Returns each row mixed with its partner (Zhang et al. 2018, arXiv:1710.09412): rows are not independent."""
    share = share[:, None, None, None]
    return share * features + (1 - share) * features[partner]
