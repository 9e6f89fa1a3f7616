"""A multi-layer perceptron over the columns of a table."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from research.errors import Count, PositiveInt, Rate
from research.nn.mlp import MLP
from research.nn.tap import tap


class TableMLP(nn.Module):
    """A perceptron over the concatenated numbers and encoded categories.

    Categories are embedded (entity embeddings: Guo and Berkhahn 2016, arXiv:1604.06737) or one-hot. One table holds
    the embeddings of all columns, each column in its own rows.
    """

    classes: int
    sizes: tuple[int, ...]  # number of categories of each column
    embedding: Count = 8  # width of a category's embedding; 0: one-hot
    widths: tuple[PositiveInt, ...] = (128, 64)
    dropout: Rate = 0.0
    activation: Literal['relu', 'gelu', 'tanh'] = 'relu'
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    @nn.compact
    def __call__(
        self,
        numbers: Float[Array, 'batch numbers'],
        categories: Int[Array, 'batch columns'],
        train: bool = False,
    ) -> Float[Array, 'batch classes']:
        """Computes the logits."""
        parts = [numbers]
        if self.sizes and self.embedding:
            offsets = np.cumsum((0, *self.sizes[:-1])).astype(np.int32)
            vectors = nn.Embed(sum(self.sizes), self.embedding, name='categories')(categories + offsets)
            vectors = tap(self, 'embedding', vectors)
            parts.append(vectors.reshape(vectors.shape[0], -1))
        elif self.sizes:
            parts += [jax.nn.one_hot(categories[:, column], size) for column, size in enumerate(self.sizes)]
        perceptron = MLP(self.classes, self.widths, self.dropout, self.activation, self.dtype, name='mlp')
        return perceptron(jnp.concatenate(parts, axis=-1), train)
