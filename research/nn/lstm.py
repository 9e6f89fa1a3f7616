"""The long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from research.nn.apply import check_settings


class LSTM(nn.Module):
    """One layer read in one direction; dropout masks are drawn once a text and stay the same at every step.

        i, f, o = sigmoid(W x + U h + b)   g = tanh(W x + U h + b)   c' = f c + i g   h' = o tanh(c')

    The four gates stand in the order i, f, g, o. W starts Glorot-uniform, U orthogonal, b at 0 and the forget
    gate's at 1 (Jozefowicz et al. 2015). Masks of inputs and state: Gal and Ghahramani 2016
    (arXiv:1512.05287), one for all gates.
    """

    width: int
    dropout: float = 0.0  # of the inputs
    recurrent_dropout: float = 0.0  # of the state that the gates read
    reverse: bool = False  # read from the end

    def __post_init__(self):
        check_settings(max(self.dropout, self.recurrent_dropout), width=(self.width,))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, inputs: Float[Array, 'batch length features'], there: Bool[Array, 'batch length'], train: bool = False
    ) -> tuple[Float[Array, 'batch length width'], Float[Array, 'batch width']]:
        """Returns the state after every step, and after the last.

        Args:
          inputs: what is read.
          there: False where a step is passed over: padding leaves the state as it is.
          train: whether dropout acts.
        """
        batch, _, features = inputs.shape
        kernel = self.param('kernel', nn.initializers.glorot_uniform(), (features, 4 * self.width))
        recurrent = self.param('recurrent_kernel', nn.initializers.orthogonal(), (self.width, 4 * self.width))
        bias = self.param('bias', forget_bias, (4 * self.width,))

        def mask(rate: float, size: int) -> Float[Array, 'batch size'] | float:
            if not train or not rate:
                return 1.0
            return jax.random.bernoulli(self.make_rng('dropout'), 1 - rate, (batch, size)) / (1 - rate)

        input_mask, state_mask = mask(self.dropout, features), mask(self.recurrent_dropout, self.width)
        if isinstance(input_mask, Array):
            inputs = inputs * input_mask[:, None]
        from_inputs = inputs @ kernel + bias  # of all steps at once: one large product

        def step(carry, now):
            hidden, cell = carry
            gates, present = now
            gates = gates + (hidden * state_mask) @ recurrent
            write, forget, new, show = jnp.split(gates, 4, axis=-1)
            next_cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(write) * jnp.tanh(new)
            next_hidden = jax.nn.sigmoid(show) * jnp.tanh(next_cell)
            keep = present[:, None]
            carry = jnp.where(keep, next_hidden, hidden), jnp.where(keep, next_cell, cell)
            return carry, carry[0]

        start = jnp.zeros((batch, self.width), from_inputs.dtype)
        steps = jnp.swapaxes(from_inputs, 0, 1), jnp.swapaxes(there, 0, 1)
        (last, _), states = jax.lax.scan(step, (start, start), steps, reverse=self.reverse)
        return jnp.swapaxes(states, 0, 1), last


def forget_bias(key: Array, shape: tuple[int, ...]) -> Float[Array, 'gates']:
    """Returns zeros, and ones for the forget gate."""
    del key
    width = shape[0] // 4
    return jnp.zeros(shape).at[width : 2 * width].set(1.0)
