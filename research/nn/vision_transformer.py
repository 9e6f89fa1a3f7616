"""A Transformer that reads a picture as a row of patches (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.errors import UserError
from research.nn.layers import dense
from research.nn.tap import tap
from research.nn.transformer import Stack
from research.nn.transformer_settings import TransformerSettings


class VisionTransformer(nn.Module):
    """Patches, a class token before them, an encoder, and a linear layer on what the class token became.

    `settings.length` is the number of patches and one more; its vocabulary is not read.
    """

    settings: TransformerSettings
    patch: int  # pixels along each side of a patch
    classes: int = 0  # 0: no output layer
    train: bool = False

    def setup(self):
        """Names the parts: those of `Stack`, patch_embedding, class_embedding, head."""
        settings = self.settings
        self.patch_embedding = dense(settings, settings.width, True)
        initial = nn.initializers.normal(settings.initial_scale)
        self.class_embedding = self.param('class_embedding', initial, (1, settings.width))
        self.stack = Stack(settings, self.train)
        nn.share_scope(self, self.stack)  # its parameters stand beside the others
        if self.classes:
            self.head = dense(settings, self.classes, True)

    def __call__(self, images: Float[Array, 'batch height width channels']) -> Float[Array, 'batch classes']:
        """Returns float32 logits.

        Raises:
          UserError: for pictures that patches do not fill, or of another number of patches than the model's.
        """
        pooled = tap(self, 'pooled', self.features(images)[:, 0])
        return self.head(pooled).astype(jnp.float32) if self.classes else pooled

    def features(self, images: Float[Array, 'batch height width channels']) -> Float[Array, 'batch length features']:
        """Returns the last hidden states: of the class token, then of the patches row by row."""
        batch, height, width, channels = images.shape
        rows, columns, side = height // self.patch, width // self.patch, self.patch
        if (rows * side, columns * side) != (height, width) or rows * columns + 1 != self.settings.length:
            raise UserError(
                f'pictures of {height}x{width} pixels are not {self.settings.length - 1} patches of {side}x{side}: '
                'resize them'
            )
        x = images.reshape(batch, rows, side, columns, side, channels)
        x = jnp.swapaxes(x, 2, 3).reshape(batch, rows * columns, side * side * channels)
        x = tap(self, 'patches', self.patch_embedding(x))
        first = jnp.broadcast_to(self.class_embedding.astype(x.dtype), (batch, *self.class_embedding.shape))
        return self.stack.read(jnp.concatenate([first, x], axis=1))[0]
