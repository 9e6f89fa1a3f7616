"""The game of a GAN: the losses of both sides by name, and what keeps a discriminator smooth.

Everything here is one float32 value per example, so that the caller masks and sums.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.errors import choose

Judge = Callable[[Float[Array, 'batch ...']], Float[Array, 'batch']]  # pictures to logits
TINY = 1e-12  # under a root, whose slope at zero is infinite


class AdversarialLoss(NamedTuple):
    """The two sides of a GAN's game, as functions of the discriminator's logits, per example."""

    discriminator: Callable[
        [Float[Array, 'batch'], Float[Array, 'batch']], Float[Array, 'batch']
    ]  # (real, fake)
    generator: Callable[[Float[Array, 'batch']], Float[Array, 'batch']]  # (fake)
    boundary: float | None  # logits above it say 'real'; None where only their differences mean something


def adversarial_loss(name: str) -> AdversarialLoss:
    """Returns a GAN's pair of losses by name; D(x) is the logit, S its sigmoid.

    - 'non_saturating': -log S(x) - log(1 - S(G)) and -log S(G)
      (Goodfellow et al. 2014, arXiv:1406.2661, equation 1 and the end of section 3).
    - 'minimax': the same for the discriminator and log(1 - S(G)) for the generator (equation 1 there): it
      hardly learns where the discriminator is sure.
    - 'hinge': max(0, 1 - D(x)) + max(0, 1 + D(G)) and -D(G) (Miyato et al. 2018, arXiv:1802.05957,
      equations 16 and 17).
    - 'wasserstein': D(G) - D(x) and -D(G) (Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1); it needs a
      discriminator that is held smooth.
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
    discriminator, generator, boundary = choose(name, losses, 'config.task.loss')
    return AdversarialLoss(float32(discriminator), float32(generator), boundary)


def float32(function: Callable) -> Callable:
    """Returns the function of logits, computed in float32."""
    return lambda *logits: function(*(each.astype(jnp.float32) for each in logits))


def squared_slopes(judge: Judge, pictures: Float[Array, 'batch *shape']) -> Float[Array, 'batch']:
    """Returns the squared norm of each logit's gradient by its own picture.

    One backward pass over the sum of the logits: right where a logit depends on its own picture alone, hence
    for no discriminator with batch norm.
    """
    gradient = jax.grad(lambda given: jnp.sum(judge(given).astype(jnp.float32)))(pictures)
    return jnp.sum(jnp.square(gradient.astype(jnp.float32)), axis=tuple(range(1, pictures.ndim)))


def r1_penalty(judge: Judge, real: Float[Array, 'batch *shape']) -> Float[Array, 'batch']:
    """Returns |grad D(x)|^2 / 2 of each real picture, to be multiplied by gamma.

    Mescheder et al. 2018 (arXiv:1801.04406), equation 9.
    """
    return squared_slopes(judge, real) / 2


def gradient_penalty(
    judge: Judge, real: Float[Array, 'batch *shape'], fake: Float[Array, 'batch *shape'], share: Float[Array, 'batch']
) -> Float[Array, 'batch']:
    """Returns (|grad D(share x + (1 - share) G)| - 1)^2 per pair, to be multiplied by lambda.

    Gulrajani et al. 2017 (arXiv:1704.00028), equation 3 and algorithm 1; `share` is uniform in [0, 1], one for
    each example.
    """
    share = share.reshape(-1, *[1] * (real.ndim - 1)).astype(real.dtype)
    between = share * real + (1 - share) * fake
    return jnp.square(jnp.sqrt(squared_slopes(judge, between) + TINY) - 1)


def lazy_regularization(
    penalty: Callable[[], Float[Array, 'batch']], step: Int[Array, ''], every: int
) -> Float[Array, 'batch']:
    """Returns `every` times the penalty at each step that `every` divides, and 0 at those between.

    Lazy regularization: Karras et al. 2020 (arXiv:1912.04958), section 3.1.
    """
    if every == 1:
        return penalty()
    shape = jax.eval_shape(penalty)
    return jax.lax.cond(step % every == 0, lambda: penalty() * every, lambda: jnp.zeros(shape.shape, shape.dtype))


def right(real: Array, fake: Array, mask: Array, boundary: float | None) -> dict[str, Array]:
    """Returns how often the discriminator is right, summed; where its logits have no zero, by how much they differ."""
    if boundary is None:
        return {'difference': jnp.sum((real - fake) * mask)}
    return {'real_right': jnp.sum((real > boundary) * mask), 'fake_right': jnp.sum((fake < boundary) * mask)}
