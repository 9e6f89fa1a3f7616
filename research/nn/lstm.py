"""The long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float


class LSTM(nn.Module):
    """One layer in one direction; dropout masks are drawn once per sequence and shared by all its steps.

        i, f, o = sigmoid(W x + U h + b)   g = tanh(W x + U h + b)   c' = f c + i g   h' = o tanh(c')

    Gates are stored in the order i, f, g, o. Initialization: W Glorot uniform, U orthogonal, b zero, and 1 for the
    forget gate (Jozefowicz et al. 2015). Dropout of inputs and state: Gal and Ghahramani 2016 (arXiv:1512.05287),
    with one mask for all gates.
    """

    width: int
    dropout: float = 0.0  # rate of the inputs
    recurrent_dropout: float = 0.0  # rate of the state that the gates read
    reverse: bool = False  # read from the end

    @nn.compact
    def __call__(
        self, inputs: Float[Array, 'batch length features'], valid: Bool[Array, 'batch length'], train: bool = False
    ) -> tuple[Float[Array, 'batch length width'], Float[Array, 'batch width']]:
        """Runs over a sequence; returns the states after every step and after the last one.

        Args:
          inputs: one vector per step.
          valid: False for padding, which leaves the state unchanged.
          train: enables dropout.
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
        from_inputs = inputs @ kernel + bias  # for all steps at once: one large product

        def step(carry, inputs_at_step):
            hidden, cell = carry
            gates, present = inputs_at_step
            gates = gates + (hidden * state_mask) @ recurrent
            write, forget, new, show = jnp.split(gates, 4, axis=-1)
            next_cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(write) * jnp.tanh(new)
            next_hidden = jax.nn.sigmoid(show) * jnp.tanh(next_cell)
            keep = present[:, None]
            carry = jnp.where(keep, next_hidden, hidden), jnp.where(keep, next_cell, cell)
            return carry, carry[0]

        start = jnp.zeros((batch, self.width), from_inputs.dtype)
        steps = jnp.swapaxes(from_inputs, 0, 1), jnp.swapaxes(valid, 0, 1)
        (last, _), states = jax.lax.scan(step, (start, start), steps, reverse=self.reverse)
        return jnp.swapaxes(states, 0, 1), last


def forget_bias(key: Array, shape: tuple[int, ...]) -> Float[Array, 'gates']:
    """Initializes biases to 0, and to 1 for the forget gate."""
    del key
    width = shape[0] // 4
    return jnp.zeros(shape).at[width : 2 * width].set(1.0)
