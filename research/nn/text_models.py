"""Text classifiers over token ids or n-gram ids."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from research.errors import Count, Positive, PositiveInt, Rate, SettingError, Sizes
from research.nn.lstm import LSTM
from research.nn.tap import tap


def uniform(scale: float):
    """Initializer uniform in [-scale, scale]."""

    def initialize(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -scale, scale)

    return initialize


def masked_pool(
    states: Float[Array, 'batch length width'], valid: Bool[Array, 'batch length'], pool: str
) -> Float[Array, 'batch width']:
    """Pools the valid positions, at least one, by 'max' or 'mean'."""
    if pool == 'max':
        return jnp.max(jnp.where(valid[..., None], states, jnp.finfo(states.dtype).min), axis=1)
    return jnp.sum(states * valid[..., None], axis=1) / jnp.maximum(jnp.sum(valid, axis=1), 1)[:, None]


def windows(
    x: Float[Array, 'batch length width'], size: int, before: int, after: int
) -> Float[Array, 'batch positions inside']:
    """Concatenates each `size` neighbouring positions, zero-padded; a dense layer on top is a convolution.

    On a CPU, forward and backward, this is 6 times faster than XLA's convolution over one axis.
    """
    padded = jnp.pad(x, ((0, 0), (before, after), (0, 0)))
    count = padded.shape[1] - size + 1
    return jnp.concatenate([padded[:, start : start + count] for start in range(size)], axis=-1)


class TokenInput(nn.Module):
    """Embeds tokens, with optional dropout of whole words, of whole features, and of single values."""

    vocabulary: int
    width: int
    scale: float  # embeddings are initialized uniformly in [-scale, scale]
    word_dropout: float = 0.0  # fraction of words dropped entirely
    spatial_dropout: float = 0.0  # fraction of features dropped in all words of a text
    dropout: float = 0.0

    @nn.compact
    def __call__(self, tokens: Int[Array, 'batch length'], train: bool) -> Float[Array, 'batch length width']:
        """Computes one vector per token."""
        vectors = nn.Embed(self.vocabulary, self.width, embedding_init=uniform(self.scale), name='tokens')(tokens)
        vectors = tap(self, 'embedding', vectors)
        rates = {(2,): self.word_dropout, (1,): self.spatial_dropout, (): self.dropout}
        for axes, rate in rates.items():
            vectors = nn.Dropout(rate, broadcast_dims=axes, deterministic=not train)(vectors)
        return vectors


class TextConvolution(nn.Module):
    """Convolutions over words with several window sizes, each max-pooled over the text.

    Kim 2014 (arXiv:1408.5882), CNN-rand: section 2, and 3.1 for the sizes. Windows may extend over both ends of
    the text, padded with zeros; windows that contain only padding are ignored.
    """

    vocabulary: int
    units: int
    width: PositiveInt = 300
    windows: Sizes = (3, 4, 5)
    filters: PositiveInt = 100  # per window size
    dropout: Rate = 0.5
    word_dropout: Rate = 0.0
    embedding_dropout: Rate = 0.0
    scale: Positive = 0.25

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, 'batch tokens'],
        length: Int[Array, 'batch'],
        types: Int[Array, 'batch tokens'],
        train: bool = False,
    ) -> Float[Array, 'batch units']:
        """Computes one logit per unit."""
        del types
        valid = jnp.arange(tokens.shape[1]) < length[:, None]
        rates = self.word_dropout, 0.0, self.embedding_dropout
        look_up = TokenInput(self.vocabulary, self.width, self.scale, *rates, name='input')
        vectors = look_up(tokens, train) * valid[..., None]
        pooled = []
        for size in self.windows:
            neighbours = windows(vectors, size, size - 1, size - 1)
            values = jax.nn.relu(nn.Dense(self.filters, name=f'window_{size}')(neighbours))
            inside = jnp.arange(values.shape[1]) < length[:, None] + size - 1
            pooled.append(masked_pool(values, inside, 'max'))
        hidden = nn.Dropout(self.dropout, deterministic=not train)(jnp.concatenate(pooled, axis=-1))
        return nn.Dense(self.units, name='head')(tap(self, 'pooled', hidden)).astype(jnp.float32)


class TextLSTM(nn.Module):
    """An LSTM over words, in one or both directions; `pool` reduces its states."""

    vocabulary: int
    units: int
    width: PositiveInt = 128  # of a word
    hidden: PositiveInt = 64
    bidirectional: bool = False
    spatial_dropout: Rate = 0.4
    dropout: Rate = 0.2
    recurrent_dropout: Rate = 0.2
    head_dropout: Rate = 0.0
    pool: Literal['last', 'max', 'mean'] = 'last'
    skip_padding: bool = True  # False: the LSTM reads padding like words
    scale: Positive = 0.05

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, 'batch tokens'],
        length: Int[Array, 'batch'],
        types: Int[Array, 'batch tokens'],
        train: bool = False,
    ) -> Float[Array, 'batch units']:
        """Computes one logit per unit; padding is token 0, on either side."""
        del length, types
        valid = tokens > 0 if self.skip_padding else jnp.ones(tokens.shape, bool)
        look_up = TokenInput(self.vocabulary, self.width, self.scale, 0.0, self.spatial_dropout, name='input')
        vectors = look_up(tokens, train)
        pooled = []
        for name, reverse in (('forward', False), ('backward', True))[: 1 + self.bidirectional]:
            layer = LSTM(self.hidden, self.dropout, self.recurrent_dropout, reverse, name=name)
            states, last = layer(vectors, valid, train)
            pooled.append(last if self.pool == 'last' else masked_pool(states, valid, self.pool))
        hidden = nn.Dropout(self.head_dropout, deterministic=not train)(jnp.concatenate(pooled, axis=-1))
        head = nn.Dense(self.units, kernel_init=nn.initializers.glorot_uniform(), name='head')
        return head(tap(self, 'pooled', hidden)).astype(jnp.float32)


class NGramBag(nn.Module):
    """A bag of n-grams: the mean of their embeddings and a linear layer, or a linear model of their presence.

    With a width: fastText (Joulin et al. 2016, arXiv:1607.01759, section 2). With width 0: the sum of one weight per
    n-gram and unit. `ratios` multiply each weight by its log-count ratio (NBSVM, Wang and Manning 2012, equations 1
    to 3), here with logistic loss instead of the squared hinge.
    """

    features: int  # n-grams, and padding
    units: int
    width: Count = 10
    dropout: Rate = 0.0  # rate of whole n-grams
    unit_length: bool = False  # with width 0: normalize the weights of a text's n-grams to length 1

    def __post_init__(self):
        if self.width and self.unit_length:
            raise SettingError('width', f'must be zero (a linear model) with unit_length, got {self.width}')
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        features: Int[Array, 'batch grams'],
        ratios: Float[Array, 'features units'] | None = None,
        train: bool = False,
    ) -> Float[Array, 'batch units']:
        """Computes one logit per unit.

        Args:
          features: ids of n-grams; 0 is padding.
          ratios: log-count ratios of the training split (`log_count_ratios`); only with width 0.
          train: enables dropout.
        """
        valid = (features > 0).astype(jnp.float32)[..., None]
        size = self.width or self.units
        start = uniform(1 / size) if self.width else nn.initializers.zeros_init()
        vectors = nn.Embed(self.features, size, embedding_init=start, name='grams')(features)
        weights = valid if ratios is None else ratios[features] * valid
        vectors = nn.Dropout(self.dropout, broadcast_dims=(2,), deterministic=not train)(vectors * weights)
        total = jnp.sum(vectors, axis=1)
        if not self.width:
            if self.unit_length:
                total /= jnp.sqrt(jnp.maximum(jnp.sum(weights**2, axis=1), 1e-9))
            return total + self.param('bias', nn.initializers.zeros_init(), (self.units,))
        return nn.Dense(self.units, name='head')(tap(self, 'pooled', total / jnp.maximum(jnp.sum(valid, axis=1), 1)))
