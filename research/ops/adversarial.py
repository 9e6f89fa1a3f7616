"""GAN losses by name, and gradient penalties for the discriminator.

All functions compute one float32 value per example, which the caller masks and sums.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.errors import choose

Discriminator = Callable[[Float[Array, 'batch ...']], Float[Array, 'batch']]  # images -> logits
EPSILON = 1e-12  # under a square root, whose slope at zero is infinite


class AdversarialLoss(NamedTuple):
    """The losses of both networks as functions of the discriminator's logits, per example."""

    discriminator: Callable[
        [Float[Array, 'batch'], Float[Array, 'batch']], Float[Array, 'batch']
    ]  # (real, fake)
    generator: Callable[[Float[Array, 'batch']], Float[Array, 'batch']]  # (fake)
    boundary: float | None  # logits above it mean 'real'; None if only differences of logits are meaningful


def adversarial_loss(name: str) -> AdversarialLoss:
    """Selects a GAN's losses by name, listed as discriminator and generator loss; D(x) is the logit, S its sigmoid.

    - 'non_saturating': -log S(x) - log(1 - S(G)) and -log S(G)
      (Goodfellow et al. 2014, arXiv:1406.2661, equation 1 and the end of section 3).
    - 'minimax': the same discriminator loss, and log(1 - S(G)) (equation 1 there), whose gradient vanishes
      while the discriminator is confident.
    - 'hinge': max(0, 1 - D(x)) + max(0, 1 + D(G)) and -D(G) (Miyato et al. 2018, arXiv:1802.05957,
      equations 16 and 17).
    - 'wasserstein': D(G) - D(x) and -D(G) (Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1); it needs a
      Lipschitz discriminator, by a gradient penalty or spectral norm.
    - 'least_squares': (D(x) - 1)^2 / 2 + D(G)^2 / 2 and (D(G) - 1)^2 / 2 (Mao et al. 2017, arXiv:1611.04076,
      equation 9).

    Raises:
      UserError: for an unknown name.
    """
    relu, softplus, square = jax.nn.relu, jax.nn.softplus, jnp.square

    def sigmoids(real, fake):
        return softplus(-real) + softplus(fake)

    losses = {
        'non_saturating': (sigmoids, lambda fake: softplus(-fake), 0.0),
        'minimax': (sigmoids, lambda fake: -softplus(fake), 0.0),
        'hinge': (lambda real, fake: relu(1 - real) + relu(1 + fake), lambda fake: -fake, 0.0),
        'wasserstein': (lambda real, fake: fake - real, lambda fake: -fake, None),
        'least_squares': (
            lambda real, fake: square(real - 1) / 2 + square(fake) / 2,
            lambda fake: square(fake - 1) / 2,
            0.5,
        ),
    }
    discriminator, generator, boundary = choose(name, losses, 'loss')
    return AdversarialLoss(float32(discriminator), float32(generator), boundary)


def float32(function: Callable) -> Callable:
    return lambda *logits: function(*(value.astype(jnp.float32) for value in logits))


def squared_slopes(discriminator: Discriminator, images: Float[Array, 'batch *shape']) -> Float[Array, 'batch']:
    """Squared norm of the gradient of each logit with respect to its image.

    One backward pass over the sum of the logits, so each logit must depend on its own image alone: not valid for
    discriminators with batch norm.
    """
    gradient = jax.grad(lambda x: jnp.sum(discriminator(x).astype(jnp.float32)))(images)
    return jnp.sum(jnp.square(gradient.astype(jnp.float32)), axis=tuple(range(1, images.ndim)))


def r1_penalty(discriminator: Discriminator, real: Float[Array, 'batch *shape']) -> Float[Array, 'batch']:
    """R1 penalty |grad D(x)|^2 / 2 per real image, without the factor gamma.

    Mescheder et al. 2018 (arXiv:1801.04406), equation 9.
    """
    return squared_slopes(discriminator, real) / 2


def gradient_penalty(
    discriminator: Discriminator,
    real: Float[Array, 'batch *shape'],
    fake: Float[Array, 'batch *shape'],
    share: Float[Array, 'batch'],
) -> Float[Array, 'batch']:
    """WGAN-GP penalty (|grad D(share x + (1 - share) G)| - 1)^2 per pair, without the factor lambda.

    Gulrajani et al. 2017 (arXiv:1704.00028), equation 3 and algorithm 1; `share` is uniform in [0, 1], drawn per
    example.
    """
    share = share.reshape(-1, *[1] * (real.ndim - 1)).astype(real.dtype)
    between = share * real + (1 - share) * fake
    return jnp.square(jnp.sqrt(squared_slopes(discriminator, between) + EPSILON) - 1)


def lazy_regularization(
    penalty: Callable[[], Float[Array, 'batch']], step: Int[Array, ''], interval: int
) -> Float[Array, 'batch']:
    """Computes `interval` times the penalty every `interval` steps, and 0 in all other steps.

    Karras et al. 2020 (arXiv:1912.04958), section 3.1.
    """
    if interval == 1:
        return penalty()
    shape = jax.eval_shape(penalty)
    return jax.lax.cond(step % interval == 0, lambda: penalty() * interval, lambda: jnp.zeros(shape.shape, shape.dtype))


def discriminator_accuracy(real: Array, fake: Array, mask: Array, boundary: float | None) -> dict[str, Array]:
    """Sums correct decisions of the discriminator, or, without a `boundary`, the differences of its logits."""
    if boundary is None:
        return {'difference': jnp.sum((real - fake) * mask)}
    return {'real_right': jnp.sum((real > boundary) * mask), 'fake_right': jnp.sum((fake < boundary) * mask)}
