"""A multi-layer perceptron over flattened inputs."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from research.errors import PositiveInt, Rate
from research.nn.tap import tap


class MLP(nn.Module):
    """Hidden layers with an activation and dropout, then a linear layer.

    Inputs of any shape [batch, ...] are flattened; logits are float32.
    """

    classes: int
    widths: tuple[PositiveInt, ...] = (256, 128)
    dropout: Rate = 0.0
    activation: Literal['relu', 'gelu', 'tanh'] = 'relu'
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    # Variance 1 / inputs, or uniform with 2 / (inputs + outputs), Keras's default (Glorot & Bengio 2010, equation 16).
    initializer: Literal['fan_in', 'glorot'] = 'fan_in'

    @nn.compact
    def __call__(
        self, inputs: Float[Array, 'batch ...'], train: bool = False
    ) -> Float[Array, 'batch classes']:
        """Computes the logits."""
        activation = {'relu': jax.nn.relu, 'gelu': jax.nn.gelu, 'tanh': jnp.tanh}[self.activation]
        start = {'fan_in': nn.initializers.lecun_normal, 'glorot': nn.initializers.glorot_uniform}[self.initializer]()
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=start)
        hidden = inputs.reshape(inputs.shape[0], -1)
        for number, width in enumerate(self.widths):
            hidden = activation(dense(width, name=f'hidden_{number}')(hidden))
            hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        return dense(self.classes, name='head')(tap(self, 'pooled', hidden)).astype(jnp.float32)
