"""The shape of a Transformer as one frozen value: every published architecture is a setting of these."""

import dataclasses
from typing import Literal

from research.errors import UserError
from research.ops.attention import Implementation

SIZES = ('vocabulary', 'length', 'width', 'layers', 'heads', 'rotary_base', 'norm_epsilon', 'initial_scale')
RATES = ('dropout', 'attention_dropout', 'embedding_dropout')


@dataclasses.dataclass(frozen=True)
class TransformerSettings:
    """Sizes and choices of a Transformer; widths are numbers of features, and 0 stands for the usual one."""

    vocabulary: int  # tokens
    length: int  # the most positions it reads
    width: int = 128  # of the residual stream
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 0  # 0: as many as heads; fewer: grouped-query attention
    head_width: int = 0  # 0: width / heads
    hidden_width: int = 0  # of the feed-forward layer; 0: 4 width, and 2/3 of that where it is gated
    causal: bool = True  # False: an encoder
    window: int = 0  # a position attends to this many positions up to itself; 0: to all
    norm: Literal['layer', 'rms'] = 'layer'
    norm_position: Literal['pre', 'post'] = 'pre'
    norm_bias: bool = True  # of a layer norm
    norm_epsilon: float = 1e-5
    qk_norm: bool = False  # RMS norm of every query and key head
    activation: Literal['gelu', 'gelu_tanh', 'silu', 'relu'] = 'gelu_tanh'
    gated: bool = False  # SwiGLU is gated silu
    positions: Literal['rotary', 'learned', 'sinusoidal', 'none'] = 'rotary'
    rotary_base: float = 10000.0
    query_key_value_bias: bool = False
    output_bias: bool = False  # of the attention's output
    feed_forward_bias: bool = False
    tie_embedding: bool = True  # the embedding is also the output projection
    dropout: float = 0.0  # of what each sublayer adds
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
                raise UserError(f'config.model.{name} must be above zero, got {getattr(self, name)!r}')
        for name in ('key_value_heads', 'head_width', 'hidden_width', 'window'):
            if getattr(self, name) < 0:
                raise UserError(f'config.model.{name} must be zero or more, got {getattr(self, name)!r}')
        for name in RATES:
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f'config.model.{name} must be from 0 to below 1, got {getattr(self, name)!r}')
        if not self.head_width and self.width % self.heads:
            raise UserError(
                f'config.model.heads={self.heads} does not divide width={self.width}: set head_width'
            )
        if self.heads % self.key_heads:
            key_heads = self.key_heads
            raise UserError(f'config.model.key_value_heads={key_heads} does not divide heads={self.heads}')
        if self.positions == 'rotary' and self.width_of_head % 2:
            raise UserError(f'rotary positions need an even width of heads, got {self.width_of_head}')
        if self.positions == 'sinusoidal' and self.width % 2:
            raise UserError(f'sinusoidal positions need an even config.model.width, got {self.width}')

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
