"""The settings of a Transformer, which cover all published architectures."""

import dataclasses
from typing import Annotated, Literal

import numpy as np

from research.errors import (
    Count,
    NonNegative,
    Positive,
    PositiveInt,
    Range,
    Rate,
    SettingError,
    UserError,
    check_ranges,
)
from research.ops.attention import Implementation

RATES = ('dropout', 'attention_dropout', 'embedding_dropout', 'hidden_dropout', 'output_dropout')


@dataclasses.dataclass(frozen=True)
class TransformerSettings:
    """Sizes and options of a Transformer. Widths are numbers of features; 0 selects the usual value."""

    vocabulary: PositiveInt  # number of tokens
    length: PositiveInt  # maximum number of positions
    width: PositiveInt = 128  # of the residual stream
    layers: PositiveInt = 4
    decoder_layers: Count = 0  # of an encoder-decoder; 0: as many as layers
    source_vocabulary: Count = 0  # of an encoder-decoder; 0: source and target share tokens and embedding
    heads: PositiveInt = 4
    key_value_heads: Count = 0  # 0: as many as heads; fewer: grouped-query attention
    head_width: Count = 0  # 0: width / heads
    hidden_width: Count = 0  # of the feed-forward layer; 0: 4 * width, or 2/3 of that if gated
    causal: bool = True  # False: an encoder
    window: Count = 0  # number of positions attended to, itself included; 0: all
    windows: tuple[Count, ...] = ()  # window of each layer, repeated cyclically (GPT-3: dense, banded, dense, ...)
    norm: Literal['layer', 'rms'] = 'layer'
    norm_position: Literal['pre', 'post'] = 'pre'
    norm_bias: bool = True  # of a layer norm
    norm_epsilon: Positive = 1e-5
    qk_norm: bool = False  # RMS norm of every query and key head
    attention_scale: bool = True  # logits divided by sqrt(width of a head); not in T5
    activation: Literal['gelu', 'gelu_tanh', 'silu', 'relu'] = 'gelu_tanh'
    gated: bool = False  # SwiGLU is gated silu
    positions: Literal['rotary', 'learned', 'sinusoidal', 'halves', 'relative', 'none'] = 'rotary'
    position_offset: Count = 0  # learned: index of the first position in the table
    rotary_base: Positive = 10000.0
    rotary_length: Count = 0  # Llama 3.1 scaling: context length of pretraining; 0: off
    rotary_factor: Positive = 8.0  # with rotary_length: divisor of low frequencies
    rotary_low: NonNegative = 1.0  # with rotary_length: fewer periods in it mean a low frequency
    rotary_high: Positive = 4.0  # with rotary_length: more periods in it mean a high frequency, which is kept
    relative_buckets: Annotated[int, Range(4)] = 32  # relative: number of buckets (T5)
    relative_distance: PositiveInt = 128  # relative: larger distances share one bucket
    types: Count = 0  # number of token types, each with an embedding (BERT's segments)
    embedding_scale: bool = False  # token embeddings times sqrt(width) (Vaswani et al. 2017, section 3.4)
    embedding_norm: bool = False  # on the input of the first block
    query_key_value_bias: bool = False
    output_bias: bool = False  # of the attention's output
    feed_forward_bias: bool = False
    pooler: bool = False  # dense and an activation on the first position (BERT)
    pooler_activation: Literal['tanh', 'relu'] = 'tanh'
    tie_embedding: bool = True  # the embedding is also the output projection
    head_transform: bool = False  # dense, activation and norm before the output projection (BERT)
    head_activation: Literal['', 'gelu', 'gelu_tanh', 'silu', 'relu'] = ''  # of head_transform; '': same as activation
    head_bias: bool = False  # of the output projection
    head_scale: bool = False  # multiply hidden states by width ** -0.5 before the output projection (T5, tied)
    dropout: Rate = 0.0  # of each sublayer's output
    hidden_dropout: Rate = 0.0  # inside the feed-forward layer, after its activation
    output_dropout: Rate = 0.0  # of the last hidden states
    attention_dropout: Rate = 0.0  # of the attention weights
    embedding_dropout: Rate = 0.0
    initializer: Literal['fan_in', 'normal'] = 'fan_in'  # kernels: fan_in ** -0.5, or initial_scale
    initial_scale: Positive = 0.02  # deviation of embeddings (and of kernels with 'normal')
    dtype: Literal['float32', 'bfloat16'] = 'float32'  # of activations; all else stays float32
    attention: Implementation = 'auto'
    remat: bool = False  # recompute each block in the backward pass: less memory, a third more compute
    scan: bool = False  # run blocks as a loop, compiled once; False unrolls it, which runs faster

    def __post_init__(self):
        check_ranges(self)  # the settings of published weights come from files
        if not self.head_width and self.width % self.heads:
            raise SettingError(f'heads={self.heads}', f'does not divide width={self.width}: set head_width')
        if self.heads % self.key_heads:
            key_heads = self.key_heads
            raise SettingError(f'key_value_heads={key_heads}', f'does not divide heads={self.heads}')
        if self.positions == 'rotary' and self.width_of_head % 2:
            raise SettingError('heads', f'must have an even width for rotary positions, got {self.width_of_head}')
        if self.positions in ('sinusoidal', 'halves') and self.width % 2:
            raise SettingError('width', f'must be even for sinusoidal positions, got {self.width}')
        if self.positions == 'relative' and self.relative_buckets >= 2 * self.relative_distance:
            buckets, distance = self.relative_buckets, self.relative_distance
            raise SettingError('relative_buckets', f'must be below 2 * relative_distance={2 * distance}, got {buckets}')
        if self.windows and self.window:
            raise SettingError('windows', f'and window exclude each other, got {self.windows} and {self.window}')
        if not self.rotary_low < self.rotary_high:
            raise SettingError('rotary_low', f'must be below rotary_high, got {self.rotary_low}, {self.rotary_high}')

    def check_tokens(self, tokens: np.ndarray, where: str = 'tokens') -> None:
        """Raises `UserError` if there are too many tokens or an id is out of range; for host arrays."""
        self.check_length(tokens.shape[-1], where)
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocabulary:
            wrong = tokens[(tokens < 0) | (tokens >= self.vocabulary)][0]
            raise UserError(
                f'{where}: id {wrong} has no embedding; the model knows 0 to {self.vocabulary - 1}: '
                'the tokenizer does not match the model'
            )

    def check_length(self, length: int, where: str = 'tokens') -> None:
        """Raises `UserError` if there are more positions than `length`."""
        if length > self.length:
            raise UserError(
                f'{where}: {length} positions, and the model reads at most {self.length}: shorten the text, '
                'or set a longer length'
            )

    @property
    def encoder(self) -> 'TransformerSettings':
        """Settings of the encoder of an encoder-decoder."""
        return dataclasses.replace(self, causal=False)

    @property
    def decoder(self) -> 'TransformerSettings':
        """Settings of the decoder of an encoder-decoder."""
        return dataclasses.replace(self, causal=True, layers=self.decoder_layers or self.layers)

    @property
    def key_heads(self) -> int:
        """Number of key and value heads."""
        return self.key_value_heads or self.heads

    @property
    def width_of_head(self) -> int:
        """Features of one head."""
        return self.head_width or self.width // self.heads

    @property
    def width_of_hidden(self) -> int:
        """Features inside the feed-forward layer; if gated 2/3 of the usual, for the same number of parameters."""
        return self.hidden_width or (-(-8 * self.width // 24) * 8 if self.gated else 4 * self.width)
