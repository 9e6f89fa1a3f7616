"""BERT's model of hidden tokens: a bidirectional Transformer and a head that guesses what stood somewhere."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.nn.layers import ACTIVATIONS, dense, normalize
from research.nn.transformer import Transformer
from research.nn.transformer_settings import TransformerSettings


class MaskedTransformer(nn.Module):
    """An encoder with the head of Devlin et al. 2019: dense, activation, norm, tied embedding and a bias."""

    settings: TransformerSettings
    train: bool = False

    def setup(self):
        """Names the parts: encoder, transform, transform_norm, bias."""
        settings = self.settings
        self.encoder = Transformer(settings, self.train)
        self.transform = dense(settings, settings.width, True)
        self.transform_norm = normalize(settings)
        self.bias = self.param('bias', nn.initializers.zeros, (settings.vocabulary,))

    def __call__(
        self,
        tokens: Int[Array, 'batch length'],
        length: Int[Array, 'batch'],
        positions: Int[Array, 'batch count'],
    ) -> Float[Array, 'batch count vocabulary']:
        """Returns float32 logits of what stood at each of `positions`; tokens from `length` on are padding."""
        features, _ = self.encoder.features(tokens, length)
        asked = jnp.take_along_axis(features, positions[..., None], axis=1)
        asked = self.transform_norm(ACTIVATIONS[self.settings.activation](self.transform(asked)))
        return self.encoder.logits(asked) + self.bias
