"""The shape of a Transformer as one frozen value: every published architecture is a setting of these."""

import dataclasses
from typing import Literal

import numpy as np

from research.errors import SettingError, UserError
from research.ops.attention import Implementation

SIZES = (
    'vocabulary', 'length', 'width', 'layers', 'heads', 'rotary_base', 'rotary_factor', 'relative_distance',
    'norm_epsilon', 'initial_scale',
)  # fmt: skip
COUNTS = (
    'key_value_heads', 'head_width', 'hidden_width', 'window', 'decoder_layers', 'source_vocabulary', 'types',
    'position_offset', 'rotary_length',
)  # fmt: skip
RATES = ('dropout', 'attention_dropout', 'embedding_dropout', 'hidden_dropout', 'output_dropout')


@dataclasses.dataclass(frozen=True)
class TransformerSettings:
    """Sizes and choices of a Transformer; widths are numbers of features, and 0 stands for the usual one."""

    vocabulary: int  # tokens
    length: int  # the most positions it reads
    width: int = 128  # of the residual stream
    layers: int = 4
    decoder_layers: int = 0  # of an encoder-decoder; 0: as many as layers
    source_vocabulary: int = 0  # of an encoder-decoder; 0: source and target share tokens and embedding
    heads: int = 4
    key_value_heads: int = 0  # 0: as many as heads; fewer: grouped-query attention
    head_width: int = 0  # 0: width / heads
    hidden_width: int = 0  # of the feed-forward layer; 0: 4 width, and 2/3 of that where it is gated
    causal: bool = True  # False: an encoder
    window: int = 0  # a position attends to this many positions up to itself; 0: to all
    windows: tuple[int, ...] = ()  # as window, of each layer in turn, then again (GPT-3: dense, banded, dense ...)
    norm: Literal['layer', 'rms'] = 'layer'
    norm_position: Literal['pre', 'post'] = 'pre'
    norm_bias: bool = True  # of a layer norm
    norm_epsilon: float = 1e-5
    qk_norm: bool = False  # RMS norm of every query and key head
    attention_scale: bool = True  # logits divided by sqrt(width of a head); not in T5
    activation: Literal['gelu', 'gelu_tanh', 'silu', 'relu'] = 'gelu_tanh'
    gated: bool = False  # SwiGLU is gated silu
    positions: Literal['rotary', 'learned', 'sinusoidal', 'halves', 'relative', 'none'] = 'rotary'
    position_offset: int = 0  # learned: rows of the table before that of the first position
    rotary_base: float = 10000.0
    rotary_length: int = 0  # positions of the first training, for a longer text (Llama 3.1); 0: as they are
    rotary_factor: float = 8.0  # with rotary_length: what slow frequencies are divided by
    rotary_low: float = 1.0  # with rotary_length: slow are fewer turns in it than this
    rotary_high: float = 4.0  # with rotary_length: fast, and kept, are more turns in it than this
    relative_buckets: int = 32  # relative: classes of distances (T5)
    relative_distance: int = 128  # relative: from here on, all distances are one class
    types: int = 0  # kinds of tokens, with an embedding each (BERT's segments)
    embedding_scale: bool = False  # token embeddings times sqrt(width) (Vaswani et al. 2017, section 3.4)
    embedding_norm: bool = False  # of what enters the first block
    query_key_value_bias: bool = False
    output_bias: bool = False  # of the attention's output
    feed_forward_bias: bool = False
    pooler: bool = False  # dense and tanh on the first position (BERT)
    tie_embedding: bool = True  # the embedding is also the output projection
    head_transform: bool = False  # dense, activation and norm before the output projection (BERT)
    head_activation: Literal['', 'gelu', 'gelu_tanh', 'silu', 'relu'] = ''  # of head_transform; '': that of the blocks
    head_bias: bool = False  # of the output projection
    head_scale: bool = False  # hidden states times width ** -0.5 before the output projection (T5, tied)
    dropout: float = 0.0  # of what each sublayer adds
    hidden_dropout: float = 0.0  # inside the feed-forward layer, after its activation
    output_dropout: float = 0.0  # of the last hidden states
    attention_dropout: float = 0.0  # of the attention weights
    embedding_dropout: float = 0.0
    initializer: Literal['fan_in', 'normal'] = 'fan_in'  # kernels: fan_in ** -0.5, or initial_scale
    initial_scale: float = 0.02  # deviation of embeddings (and of kernels with 'normal')
    dtype: Literal['float32', 'bfloat16'] = 'float32'  # of activations; all else stays float32
    attention: Implementation = 'auto'
    remat: bool = False  # recompute each block in the backward pass: less memory, a third more work
    scan: bool = False  # blocks as a loop, compiled once for all layers; False unrolls it and runs faster

    def __post_init__(self):
        for name in SIZES:
            if not getattr(self, name) > 0:
                raise SettingError(name, f'must be above zero, got {getattr(self, name)!r}')
        for name in COUNTS:
            if getattr(self, name) < 0:
                raise SettingError(name, f'must be zero or more, got {getattr(self, name)!r}')
        for name in RATES:
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(name, f'must be from 0 to below 1, got {getattr(self, name)!r}')
        if not self.head_width and self.width % self.heads:
            raise SettingError(f'heads={self.heads}', f'does not divide width={self.width}: set head_width')
        if self.heads % self.key_heads:
            key_heads = self.key_heads
            raise SettingError(f'key_value_heads={key_heads}', f'does not divide heads={self.heads}')
        if self.positions == 'rotary' and self.width_of_head % 2:
            raise UserError(f'rotary positions need an even width of heads, got {self.width_of_head}')
        if self.positions in ('sinusoidal', 'halves') and self.width % 2:
            raise SettingError('width', f'must be even for sinusoidal positions, got {self.width}')
        if self.positions == 'relative' and not 4 <= self.relative_buckets < 2 * self.relative_distance:
            raise SettingError(
                'relative_buckets',
                f'must be at least 4 and below twice relative_distance={self.relative_distance}, '
                f'got {self.relative_buckets}',
            )
        if self.windows and (self.window or min(self.windows) < 0):
            raise SettingError(
                'windows', f'must be zero or more each and go without window, got {self.windows}, window={self.window}'
            )
        if not self.rotary_low < self.rotary_high:
            raise SettingError('rotary_low', f'must be below rotary_high, got {self.rotary_low}, {self.rotary_high}')

    def check_tokens(self, tokens: np.ndarray, where: str = 'tokens') -> None:
        """Raises a `UserError` for ids on the host that have no embedding, or more than the positions there are."""
        self.check_length(tokens.shape[-1], where)
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocabulary:
            wrong = tokens[(tokens < 0) | (tokens >= self.vocabulary)][0]
            raise UserError(
                f'{where}: id {wrong} has no embedding; the model knows 0 to {self.vocabulary - 1}: '
                'the tokenizer does not belong to it'
            )

    def check_length(self, length: int, where: str = 'tokens') -> None:
        """Raises a `UserError` for more positions than the model reads."""
        if length > self.length:
            raise UserError(
                f'{where}: {length} positions, and the model reads at most {self.length}: shorten the text, '
                'or set a longer length'
            )

    @property
    def encoder(self) -> 'TransformerSettings':
        """The encoder of an encoder-decoder."""
        return dataclasses.replace(self, causal=False)

    @property
    def decoder(self) -> 'TransformerSettings':
        """The decoder of an encoder-decoder."""
        return dataclasses.replace(self, causal=True, layers=self.decoder_layers or self.layers)

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.key_value_heads or self.heads

    @property
    def width_of_head(self) -> int:
        """Features of one head."""
        return self.head_width or self.width // self.heads

    @property
    def width_of_hidden(self) -> int:
        """Features inside the feed-forward layer; gated, 2/3 of the usual: parameters stay as many."""
        return self.hidden_width or (-(-8 * self.width // 24) * 8 if self.gated else 4 * self.width)
