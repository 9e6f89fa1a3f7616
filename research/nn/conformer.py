"""Encoders of utterances: convolutions that shorten them by 4, then a Conformer or a Transformer, then logits."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.nn.layers import Attention, BlockContext, FeedForward, dense, normalize
from research.nn.tap import tap
from research.nn.transformer import Stack, scanned, turns_of
from research.nn.transformer_settings import TransformerSettings
from research.ops.attention import Mask
from research.ops.constrain import BATCH, constrain
from research.ops.ctc import is_before

KERNEL = 3  # of each strided convolution


def strided_windows(x: Float[Array, 'batch frames width']) -> Float[Array, 'batch half inside']:
    """Concatenates three neighbouring frames around every second one, zero-padded: the input of a convolution."""
    count = (x.shape[1] + 1) // 2
    padded = jnp.pad(x, ((0, 0), (1, KERNEL), (0, 0)))
    return jnp.concatenate([padded[:, start : start + 2 * count : 2] for start in range(KERNEL)], axis=-1)


class ConvolutionModule(nn.Module):
    """A gated layer, a convolution of each feature over time, a norm, and a layer.

    Gulati et al. 2020 (arXiv:2005.08100), figure 2, with layer norm in place of batch norm.
    """

    settings: TransformerSettings
    kernel: int

    @nn.compact
    def __call__(
        self, x: Float[Array, 'batch length width'], length: Int[Array, 'batch']
    ) -> Float[Array, 'batch length width']:
        """Computes the features to add to the stream; frames beyond `length` count as zeros."""
        settings, width = self.settings, self.settings.width
        content, gate = jnp.split(dense(settings, 2 * width, True, name='gated')(x), 2, axis=-1)
        count = x.shape[1]
        x = content * jax.nn.sigmoid(gate) * is_before(length, count)[..., None].astype(x.dtype)
        weights = self.param('depthwise', nn.initializers.normal(self.kernel**-0.5), (self.kernel, width))
        padded = jnp.pad(x, ((0, 0), (self.kernel // 2, self.kernel // 2), (0, 0)))
        shifted = [padded[:, step : step + count] * weights[step].astype(x.dtype) for step in range(self.kernel)]
        x = functools.reduce(jnp.add, shifted)
        x = jax.nn.silu(normalize(settings, name='norm')(x))
        return dense(settings, width, True, 1 / (2 * settings.layers), name='out')(x)


class ConformerBlock(nn.Module):
    """Half a feed-forward layer, attention, a convolution, and the other half (arXiv:2005.08100, equation 1)."""

    settings: TransformerSettings
    train: bool
    kernel: int

    @nn.compact
    def __call__(self, carry: tuple, layer: Int[Array, ''], context: BlockContext) -> tuple:
        """Applies one layer; returns ((stream, valid frames), None), as `nn.scan` expects."""
        x, length = carry
        settings = self.settings
        drop = nn.Dropout(settings.dropout, deterministic=not self.train)

        def entering(name: str) -> Array:
            return normalize(settings, name=f'{name}_norm')(x)

        x = x + 0.5 * drop(FeedForward(settings, self.train, name='feed_forward_1')(entering('feed_forward_1')))
        attended, _ = Attention(settings, self.train, name='attention')(entering('attention'), context, None, layer)
        x = x + drop(attended)
        x = x + drop(ConvolutionModule(settings, self.kernel, name='convolution')(entering('convolution'), length))
        x = x + 0.5 * drop(FeedForward(settings, self.train, name='feed_forward_2')(entering('feed_forward_2')))
        x = tap(self, 'stream', constrain(normalize(settings, name='final_norm')(x), BATCH))
        return (x, length), None


class Conformer(nn.Module):
    """A stack of Conformer blocks with rotary positions."""

    settings: TransformerSettings
    kernel: int
    train: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, 'batch length width'], length: Int[Array, 'batch']
    ) -> Float[Array, 'batch length width']:
        """Computes the last hidden states; frames beyond `length` are not read."""
        settings = self.settings
        settings.check_length(x.shape[1], 'frames')
        turns = turns_of(settings, jnp.arange(x.shape[1])[None])
        context = BlockContext(Mask(causal=False, window=settings.window, key_length=length), turns)
        x = nn.Dropout(settings.embedding_dropout, deterministic=not self.train)(constrain(x, BATCH))
        blocks = scanned(ConformerBlock, settings, self.train, self.kernel, name='blocks')
        (x, _), _ = blocks((x, length), jnp.arange(settings.layers), context)
        return x


class SpeechEncoder(nn.Module):
    """Two strided convolutions, an encoder, and the logits of every fourth frame."""

    settings: TransformerSettings  # length: of the shortened utterance
    units: int  # labels, with the blank
    kernel: int = 0  # of the Conformer's convolutions; 0: a Transformer
    train: bool = False

    @nn.compact
    def __call__(
        self, features: Float[Array, 'batch frames bands'], frames: Int[Array, 'batch']
    ) -> Float[Array, 'batch shorter units']:
        """Computes float32 logits; frames beyond `frames` are padding, on which no valid output depends."""
        settings, x, length = self.settings, features.astype(self.settings.dtype), frames
        for number in range(2):
            x = x * is_before(length, x.shape[1])[..., None].astype(x.dtype)
            x = jax.nn.relu(dense(settings, settings.width, True, 2.0, name=f'shorten_{number}')(strided_windows(x)))
            length = (length + 1) // 2
        x = tap(self, 'features', dense(settings, settings.width, True, name='enter')(x))
        if self.kernel:
            x = Conformer(settings, self.kernel, self.train, name='encoder')(x, length)
        else:
            x, _ = Stack(settings, self.train, name='encoder').read(x, length)
        return dense(settings, self.units, True, name='head')(x).astype(jnp.float32)
