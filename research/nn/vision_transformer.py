"""The Vision Transformer (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.errors import UserError
from research.nn.layers import dense
from research.nn.tap import tap
from research.nn.transformer import Stack
from research.nn.transformer_settings import TransformerSettings


class VisionTransformer(nn.Module):
    """A class token and embedded patches, an encoder, and a linear head on the class token.

    `settings.length` is the number of patches + 1; `settings.vocabulary` is not used.
    """

    settings: TransformerSettings
    patch: int  # side of a patch in pixels
    classes: int = 0  # 0: no output layer
    train: bool = False

    def setup(self):
        """Defines the parts of `Stack`, and patch_embedding, class_embedding and head."""
        settings = self.settings
        self.patch_embedding = dense(settings, settings.width, True)
        initial = nn.initializers.normal(settings.initial_scale)
        self.class_embedding = self.param('class_embedding', initial, (1, settings.width))
        self.stack = Stack(settings, self.train)
        nn.share_scope(self, self.stack)  # its parameters are not nested
        if self.classes:
            self.head = dense(settings, self.classes, True)

    def __call__(self, images: Float[Array, 'batch height width channels']) -> Float[Array, 'batch classes']:
        """Computes float32 logits.

        Raises:
          UserError: if the image does not split into the expected number of whole patches.
        """
        pooled = tap(self, 'pooled', self.features(images)[:, 0])
        return self.head(pooled).astype(jnp.float32) if self.classes else pooled

    def features(self, images: Float[Array, 'batch height width channels']) -> Float[Array, 'batch length features']:
        """Computes the last hidden states: of the class token, then of the patches row by row."""
        batch, height, width, channels = images.shape
        rows = height // self.patch
        columns = width // self.patch
        side = self.patch
        if (rows * side, columns * side) != (height, width) or rows * columns + 1 != self.settings.length:
            raise UserError(
                f'images of {height}x{width} pixels are not {self.settings.length - 1} patches of {side}x{side}: '
                'resize them'
            )
        x = images.reshape(batch, rows, side, columns, side, channels)
        x = jnp.swapaxes(x, 2, 3).reshape(batch, rows * columns, side * side * channels)
        x = tap(self, 'patches', self.patch_embedding(x))
        first = jnp.broadcast_to(self.class_embedding.astype(x.dtype), (batch, *self.class_embedding.shape))
        return self.stack.read(jnp.concatenate([first, x], axis=1))[0]
