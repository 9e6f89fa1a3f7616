"""Models that read a text as ids of tokens, or of its n-grams, and give one score for each unit of output."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from research.errors import SettingError
from research.nn.apply import check_settings
from research.nn.lstm import LSTM
from research.nn.tap import tap


def uniform(scale: float):
    """Returns an initializer uniform in [-scale, scale]."""

    def initialize(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -scale, scale)

    return initialize


def masked_pool(
    states: Float[Array, 'batch length width'], there: Bool[Array, 'batch length'], kind: str
) -> Float[Array, 'batch width']:
    """Returns the 'max' or 'mean' over the positions that are there, at least one."""
    if kind == 'max':
        return jnp.max(jnp.where(there[..., None], states, jnp.finfo(states.dtype).min), axis=1)
    return jnp.sum(states * there[..., None], axis=1) / jnp.maximum(jnp.sum(there, axis=1), 1)[:, None]


def windows(
    x: Float[Array, 'batch length width'], size: int, before: int, after: int
) -> Float[Array, 'batch positions inside']:
    """Returns `size` neighbouring positions side by side, with zeros before and after; a dense layer convolves them.

    Measured on a CPU, forward and backward: 6 times faster than XLA's convolution over one axis.
    """
    padded = jnp.pad(x, ((0, 0), (before, after), (0, 0)))
    count = padded.shape[1] - size + 1
    return jnp.concatenate([padded[:, start : start + count] for start in range(size)], axis=-1)


class TokenInput(nn.Module):
    """Looks tokens up; in training, whole words, whole features or single numbers are dropped by choice."""

    vocabulary: int
    width: int
    scale: float  # vectors start uniform in [-scale, scale]
    word_dropout: float = 0.0  # share of the words of which nothing is seen
    spatial_dropout: float = 0.0  # share of the features that are 0 in every word of a text
    dropout: float = 0.0

    @nn.compact
    def __call__(self, tokens: Int[Array, 'batch length'], train: bool) -> Float[Array, 'batch length width']:
        """Returns one vector for each token."""
        vectors = nn.Embed(self.vocabulary, self.width, embedding_init=uniform(self.scale), name='tokens')(tokens)
        vectors = tap(self, 'embedding', vectors)
        rates = {(2,): self.word_dropout, (1,): self.spatial_dropout, (): self.dropout}
        for axes, rate in rates.items():
            vectors = nn.Dropout(rate, broadcast_dims=axes, deterministic=not train)(vectors)
        return vectors


class TextConvolution(nn.Module):
    """Convolutions over words of several widths, each read by its maximum over the text.

    Kim 2014 (arXiv:1408.5882), CNN-rand: section 2, and 3.1 for the sizes. Windows may reach over both ends of
    the text, where they see zeros; those that see nothing but padding do not count.
    """

    vocabulary: int
    units: int
    width: int = 300
    windows: tuple[int, ...] = (3, 4, 5)
    filters: int = 100  # of each width
    dropout: float = 0.5
    word_dropout: float = 0.0
    embedding_dropout: float = 0.0
    scale: float = 0.25

    def __post_init__(self):
        check_settings(self.dropout, width=(self.width,), windows=self.windows, filters=(self.filters,))
        check_rates(self, 'word_dropout', 'embedding_dropout')
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, 'batch tokens'],
        length: Int[Array, 'batch'],
        types: Int[Array, 'batch tokens'],
        train: bool = False,
    ) -> Float[Array, 'batch units']:
        """Returns one score for each unit."""
        del types
        there = jnp.arange(tokens.shape[1]) < length[:, None]
        rates = self.word_dropout, 0.0, self.embedding_dropout
        look_up = TokenInput(self.vocabulary, self.width, self.scale, *rates, name='input')
        vectors = look_up(tokens, train) * there[..., None]
        found = []
        for size in self.windows:
            read = windows(vectors, size, size - 1, size - 1)
            values = jax.nn.relu(nn.Dense(self.filters, name=f'window_{size}')(read))
            inside = jnp.arange(values.shape[1]) < length[:, None] + size - 1
            found.append(masked_pool(values, inside, 'max'))
        hidden = nn.Dropout(self.dropout, deterministic=not train)(jnp.concatenate(found, axis=-1))
        return nn.Dense(self.units, name='head')(tap(self, 'pooled', hidden)).astype(jnp.float32)


class TextLSTM(nn.Module):
    """An LSTM over words, in one direction or both, read by its last state or a pool over all."""

    vocabulary: int
    units: int
    width: int = 128  # of a word
    hidden: int = 64
    bidirectional: bool = False
    spatial_dropout: float = 0.4
    dropout: float = 0.2
    recurrent_dropout: float = 0.2
    head_dropout: float = 0.0
    pool: Literal['last', 'max', 'mean'] = 'last'
    skip_padding: bool = True  # False: padding is read as if it were words
    scale: float = 0.05

    def __post_init__(self):
        check_settings(self.dropout, width=(self.width,), hidden=(self.hidden,))
        check_rates(self, 'spatial_dropout', 'recurrent_dropout', 'head_dropout')
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, 'batch tokens'],
        length: Int[Array, 'batch'],
        types: Int[Array, 'batch tokens'],
        train: bool = False,
    ) -> Float[Array, 'batch units']:
        """Returns one score for each unit; padding is token 0, on whichever side."""
        del length, types
        there = tokens > 0 if self.skip_padding else jnp.ones(tokens.shape, bool)
        read = TokenInput(self.vocabulary, self.width, self.scale, 0.0, self.spatial_dropout, name='input')
        vectors = read(tokens, train)
        found = []
        for name, reverse in (('forward', False), ('backward', True))[: 1 + self.bidirectional]:
            layer = LSTM(self.hidden, self.dropout, self.recurrent_dropout, reverse, name=name)
            states, last = layer(vectors, there, train)
            found.append(last if self.pool == 'last' else masked_pool(states, there, self.pool))
        hidden = nn.Dropout(self.head_dropout, deterministic=not train)(jnp.concatenate(found, axis=-1))
        head = nn.Dense(self.units, kernel_init=nn.initializers.glorot_uniform(), name='head')
        return head(tap(self, 'pooled', hidden)).astype(jnp.float32)


class NGramBag(nn.Module):
    """A bag of n-grams: the mean of their vectors and a linear layer, or a linear model of which n-grams there are.

    With a width: fastText (Joulin et al. 2016, arXiv:1607.01759, section 2). With width 0: one weight for each
    n-gram and unit, summed; with `ratios` each counts as much as its log-count ratio says (NBSVM, Wang and Manning
    2012, equations 1 to 3), here with logistic loss in place of the squared hinge.
    """

    features: int  # n-grams and the padding
    units: int
    width: int = 10
    dropout: float = 0.0  # of whole n-grams
    unit_length: bool = False  # with width 0: the weights of a text's n-grams are a vector of length 1

    def __post_init__(self):
        check_settings(self.dropout)
        if self.width < 0 or (self.width and self.unit_length):
            raise SettingError(
                'width', f'must be zero (a linear model) or more, and zero with unit_length, got {self.width}'
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        features: Int[Array, 'batch grams'],
        ratios: Float[Array, 'features units'] | None = None,
        train: bool = False,
    ) -> Float[Array, 'batch units']:
        """Returns one score for each unit.

        Args:
          features: numbers of n-grams; 0 is padding.
          ratios: log-count ratios of the training split (`log_count_ratios`); only with width 0.
          train: whether dropout acts.
        """
        there = (features > 0).astype(jnp.float32)[..., None]
        size = self.width or self.units
        start = uniform(1 / size) if self.width else nn.initializers.zeros_init()
        vectors = nn.Embed(self.features, size, embedding_init=start, name='grams')(features)
        weights = there if ratios is None else ratios[features] * there
        vectors = nn.Dropout(self.dropout, broadcast_dims=(2,), deterministic=not train)(vectors * weights)
        total = jnp.sum(vectors, axis=1)
        if not self.width:
            if self.unit_length:
                total /= jnp.sqrt(jnp.maximum(jnp.sum(weights**2, axis=1), 1e-9))
            return total + self.param('bias', nn.initializers.zeros_init(), (self.units,))
        return nn.Dense(self.units, name='head')(tap(self, 'pooled', total / jnp.maximum(jnp.sum(there, axis=1), 1)))


def check_rates(module: nn.Module, *names: str) -> None:
    """Raises a `SettingError` for a share that is not in [0, 1)."""
    for name in names:
        if not 0 <= getattr(module, name) < 1:
            raise SettingError(name, f'must be at least 0 and below 1, got {getattr(module, name)!r}')
