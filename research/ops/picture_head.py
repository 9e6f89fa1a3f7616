"""The output head of a picture: its scores are pixels, 0 to 1; a target pixel that is NaN does not count."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.ops.classification import MetricRow
from research.ops.heads import OutputHead

Pictures = Float[Array, 'batch height width 1']


def errors(images: Pictures, targets: Pictures) -> tuple[Pictures, Pictures]:
    """The difference of each pixel that counts, 0 for the others, and which count."""
    counts = jnp.isfinite(targets)
    return jnp.where(counts, images - jnp.where(counts, targets, 0), 0), counts.astype(jnp.float32)


def picture(
    deviation: float, loss: str, decode: Callable[[Mapping[str, np.ndarray]], Any], baseline_about: str
) -> OutputHead:
    """One picture per example.

    Args:
      deviation: root mean square of what the degradation changes, of the training pictures: the deviation of the
        normal density of a target, whose logarithm up to a constant is the score, and the baseline of the metrics.
      loss: 'l1' (absolute) or 'l2' (squared error), the mean over the pixels of a picture.
      decode: outputs of one example -> the answer.
      baseline_about: what the baseline is.
    """

    def mean(values: Pictures, counts: Pictures) -> Float[Array, 'batch']:
        return jnp.sum(values, (1, 2, 3)) / jnp.maximum(jnp.sum(counts, (1, 2, 3)), 1)

    def example_loss(images, targets):
        difference, counts = errors(images, targets)
        return mean(jnp.abs(difference) if loss == 'l1' else difference**2, counts)

    def logs(images, targets, mask):
        difference, counts = errors(images, targets)
        return {'mse': jnp.sum(mean((255 * difference) ** 2, counts) * mask)}

    def sums(images, targets, mask):
        difference, counts = errors(jnp.clip(images, 0, 1), targets)
        weight = mask[:, None, None, None]
        return {
            'square': jnp.sum((255 * difference) ** 2 * weight),
            'pixels': jnp.sum(counts * weight),
            'nll': -jnp.sum(score(images, targets) * mask),
        }

    def metrics(sums):
        error, trivial = float(sums['square'] / sums['pixels']), (255 * deviation) ** 2
        about = 'mean over all pixels of the split, values 0 to 255'
        return {
            'mse': MetricRow(error, trivial, 'lower', about, baseline_about),
            'pixel_psnr': MetricRow(decibels(error), decibels(trivial), 'higher', 'dB, of mse', baseline_about),
        }

    def score(images, targets):
        difference, _ = errors(images, targets)
        return -jnp.sum((difference / deviation) ** 2, (1, 2, 3)) / 2

    return OutputHead(
        units=1,
        loss=example_loss,
        logs=logs,
        answer=lambda images: {'image': jnp.clip(images, 0, 1)},
        sums=sums,
        metrics=metrics,
        decode=decode,
        score=score,
        claim=lambda outputs: outputs['image'],
    )


def decibels(error: float) -> float:
    """The peak signal-to-noise ratio of a mean squared error of values from 0 to 255."""
    return float(10 * np.log10(255**2 / error)) if error else float('inf')
