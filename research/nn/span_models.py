"""Models that score the first and the last token of a span: a Transformer encoder and a convolution."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from research.errors import Positive, PositiveInt, Rate, SettingError, Sizes
from research.nn.text_models import TokenInput
from research.nn.transformer import Transformer
from research.nn.transformer_settings import TransformerSettings

SHAPE_KINDS = 9  # of words, as `research.data.text.pieces.SHAPES`


class SpanTransformer(nn.Module):
    """Encoder, dropout, and a linear layer without bias, which softmaxes over positions would ignore."""

    settings: TransformerSettings
    head_dropout: Rate = 0.1

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, 'batch tokens'],
        length: Int[Array, 'batch'],
        types: Int[Array, 'batch tokens'],
        train: bool = False,
    ) -> Float[Array, 'batch tokens 2']:
        """Computes scores of first and last tokens; types beyond those of the settings count as the last one."""
        encoder, count = Transformer(self.settings, train, name='encoder'), self.settings.types
        states, _ = encoder.features(tokens, length, types=jnp.minimum(types, count - 1) if count > 1 else None)
        states = nn.Dropout(self.head_dropout, deterministic=not train)(states)
        return nn.Dense(2, use_bias=False, name='head')(states).astype(jnp.float32)


def dilated(x: Float[Array, 'batch tokens width'], size: int, dilation: int) -> Float[Array, 'batch tokens inside']:
    """Concatenates `size` positions around each, `dilation` apart; a dense layer on top is a dilated convolution."""
    reach = size // 2 * dilation
    padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
    return jnp.concatenate([padded[:, start : start + x.shape[1]] for start in range(0, 2 * reach + 1, dilation)], -1)


class GatedConvolution(nn.Module):
    """x + dropout(a * sigmoid(b)), where a and b are convolutions of the normalized x (Dauphin et al. 2017)."""

    size: int
    dilation: int
    dropout: float

    @nn.compact
    def __call__(
        self, x: Float[Array, 'batch tokens width'], valid: Bool[Array, 'batch tokens'], train: bool
    ) -> Float[Array, 'batch tokens width']:
        """Applies the layer; padding counts as zeros."""
        inputs = dilated(nn.LayerNorm(name='norm')(x) * valid[..., None], self.size, self.dilation)
        value, gate = jnp.split(nn.Dense(2 * x.shape[-1], name='convolution')(inputs), 2, axis=-1)
        return x + nn.Dropout(self.dropout, deterministic=not train)(value * jax.nn.sigmoid(gate))


class SpanConvolution(nn.Module):
    """Gated convolutions over question and context, attention to the question between them, and a pointer.

    It follows QANet (Yu et al. 2018, arXiv:1804.09541) without self-attention and pretrained vectors. The types of the
    tokens mark words that the question has too; their shapes mark capitals, numbers and years.
    """

    vocabulary: int
    types: int  # kinds of tokens; 0: the question
    question: int  # leading positions that hold the question
    width: PositiveInt = 96
    window: PositiveInt = 3  # odd: the tokens that one convolution reads
    before: Sizes = (1, 2)  # dilation of each convolution before the attention
    after: Sizes = (1, 2, 4, 8, 1)  # and after it
    heads: PositiveInt = 4
    dropout: Rate = 0.2
    word_dropout: Rate = 0.2  # of words in the input; their types and shapes stay
    scale: Positive = 0.1  # embeddings are initialized uniformly in [-scale, scale]

    def __post_init__(self):
        if self.window % 2 == 0:
            raise SettingError('window', f'must be odd, got {self.window}')
        if self.width % self.heads:
            raise SettingError(f'heads={self.heads}', f'does not divide width={self.width}')
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, 'batch tokens'],
        length: Int[Array, 'batch'],
        types: Int[Array, 'batch tokens'],
        shapes: Int[Array, 'batch tokens'],
        train: bool = False,
    ) -> Float[Array, 'batch tokens 2']:
        """Computes scores of first and last tokens."""
        position = jnp.arange(tokens.shape[1])
        valid = position < length[:, None]
        words = TokenInput(self.vocabulary, self.width, self.scale, self.word_dropout, name='input')
        x = words(tokens, train)
        x = x + nn.Embed(self.types, self.width, name='types')(types)
        x = x + nn.Embed(SHAPE_KINDS, self.width, name='shapes')(shapes)
        for number, dilation in enumerate(self.before):
            x = GatedConvolution(self.window, dilation, self.dropout, name=f'before_{number}')(x, valid, train)
        asked = valid & (types == 0) & (position > 0)
        x = x + self.attended(x, asked, train)
        for number, dilation in enumerate(self.after):
            x = GatedConvolution(self.window, dilation, self.dropout, name=f'after_{number}')(x, valid, train)
        last = GatedConvolution(self.window, 1, self.dropout, name='last')(x, valid, train)
        # No biases: softmaxes over positions would ignore them, and Adam would amplify the rounding of their gradients.
        start = nn.Dense(1, use_bias=False, name='start')(nn.LayerNorm(use_bias=False, name='start_norm')(x))
        end = nn.Dense(1, use_bias=False, name='end')(nn.LayerNorm(use_bias=False, name='end_norm')(last))
        return jnp.concatenate([start, end], axis=-1).astype(jnp.float32)

    def attended(self, x: Array, asked: Array, train: bool) -> Float[Array, 'batch tokens width']:
        """Combines each position with the words of the question it attends to, and with the whole question."""
        normal = nn.LayerNorm(name='attention_norm')(x)
        question, seen = normal[:, : self.question], asked[:, : self.question]
        query, key = (
            nn.Dense(self.width, use_bias=False, name=name)(states).reshape(*states.shape[:2], self.heads, -1)
            for name, states in (('query', normal), ('key', question))
        )
        scores = jnp.einsum('bthd,bqhd->bhtq', query, key) * query.shape[-1] ** -0.5
        weights = jax.nn.softmax(jnp.where(seen[:, None, None], scores, -1e9), axis=-1)
        value = nn.Dense(self.width, name='value')(question).reshape(*question.shape[:2], self.heads, -1)
        matched = jnp.einsum('bhtq,bqhd->bthd', weights, value).reshape(x.shape)
        importance = jnp.where(seen, nn.Dense(1, use_bias=False, name='importance')(question)[..., 0], -1e9)
        summary = jnp.einsum('bq,bqw->bw', jax.nn.softmax(importance, axis=-1), question)
        topic = nn.Dense(self.width, name='topic')(summary)[:, None]
        parts = jnp.concatenate([matched, normal * matched, normal * topic, jnp.broadcast_to(topic, x.shape)], -1)
        mixed = nn.Dense(self.width, name='mixed')(parts)
        return nn.Dropout(self.dropout, deterministic=not train)(jax.nn.relu(mixed))
