"""A text classifier: a Transformer encoder with a linear head."""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from research.nn.tap import tap
from research.nn.text_models import masked_pool
from research.nn.transformer import Transformer
from research.nn.transformer_settings import TransformerSettings


class TextTransformer(nn.Module):
    """Encoder, pooling, dropout, and a linear layer.

    `pool`: BERT's pooler (needs `settings.pooler`), the state of the first token, or the mean or maximum of all.
    """

    settings: TransformerSettings
    units: int
    pool: Literal['pooler', 'first', 'mean', 'max'] = 'first'
    head_dropout: float = 0.1

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, 'batch tokens'],
        length: Int[Array, 'batch'],
        types: Int[Array, 'batch tokens'],
        train: bool = False,
    ) -> Float[Array, 'batch units']:
        """Computes one logit per unit; `types` distinguish the two texts of a pair."""
        encoder = Transformer(self.settings, train, name='encoder')
        states, _ = encoder.features(tokens, length, types=types if self.settings.types > 1 else None)
        if self.pool == 'pooler':
            hidden = encoder.pooled(states)
        elif self.pool == 'first':
            hidden = states[:, 0]
        else:
            valid = jnp.arange(tokens.shape[1]) < length[:, None]
            hidden = masked_pool(states, valid, self.pool)
        hidden = nn.Dropout(self.head_dropout, deterministic=not train)(hidden)
        return nn.Dense(self.units, name='head')(tap(self, 'pooled', hidden)).astype(jnp.float32)
