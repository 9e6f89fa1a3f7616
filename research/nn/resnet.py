"""Residual convolutional networks, from 8x8 digits to ImageNet shapes.

He et al. 2016 (arXiv:1512.03385); the stride of a bottleneck block is in its 3x3 convolution ("v1.5").
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from research.errors import PositiveInt, Rate, SettingError, Sizes
from research.nn.convolution import Conv
from research.nn.tap import DELTAS, OBSERVED, tap


def normalize(
    features: Array,
    name: str,
    norm: str,
    groups: int,
    train: bool,
    dtype: str,
    scale_init=nn.initializers.ones,
) -> Array:
    """Applies a norm layer with the given module name; call it in a compact method.

    'batch' keeps statistics in 'batch_stats' (global under jit). 'group' is independent of the batch, which suits
    per-example gradients and tiny batches; its number of groups is the largest divisor of the channels up to `groups`.
    'none' is the identity.
    """
    if norm == 'none':
        return features
    if norm == 'batch':
        layer = nn.BatchNorm(not train, momentum=0.9, dtype=dtype, scale_init=scale_init, name=name)
    else:
        count = max(n for n in range(1, groups + 1) if features.shape[-1] % n == 0)
        layer = nn.GroupNorm(num_groups=count, dtype=dtype, scale_init=scale_init, name=name)
    return layer(features)


class Block(nn.Module):
    """One residual block: two 3x3 convolutions, or the 1x1, 3x3, 1x1 bottleneck."""

    width: int  # output channels
    bottleneck: bool
    stride: int
    norm: str
    groups: int
    zero_init: bool
    dtype: str

    @nn.compact
    def __call__(
        self, features: Float[Array, 'batch height width channels'], train: bool
    ) -> tuple[Float[Array, 'batch height_out width_out channels_out'], None]:
        """Applies the block; returns its features and None, as `nn.scan` expects."""
        norm: dict[str, Any] = dict(norm=self.norm, groups=self.groups, train=train, dtype=self.dtype)
        # No biases: the norm that follows would cancel them.
        conv = functools.partial(Conv, use_bias=False, dtype=self.dtype)
        stride = (self.stride, self.stride)
        if self.bottleneck:
            inner = self.width // 4
            layers = [(inner, (1, 1), (1, 1)), (inner, (3, 3), stride), (self.width, (1, 1), (1, 1))]
        else:
            layers = [(self.width, (3, 3), stride), (self.width, (3, 3), (1, 1))]
        hidden = features
        for number, (width, kernel, strides) in enumerate(layers):
            hidden = conv(width, kernel, strides, name=f'conv_{number}')(hidden)
            last = number == len(layers) - 1
            start = nn.initializers.zeros if last and self.zero_init else nn.initializers.ones
            hidden = normalize(hidden, f'norm_{number}', **norm, scale_init=start)
            hidden = hidden if last else jax.nn.relu(hidden)
        if features.shape != hidden.shape:
            features = conv(self.width, (1, 1), stride, name='conv_shortcut')(features)
            features = normalize(features, 'norm_shortcut', **norm)
        return jax.nn.relu(features + hidden), None


class Stage(nn.Module):
    """A first block that may change the shape, then `depth - 1` blocks of one shape, stacked under 'blocks'."""

    depth: int
    stride: int  # of the first block
    unroll: int
    block: Any  # the other settings of `Block`

    @nn.compact
    def __call__(self, features: Array, train: bool) -> Array:
        """Applies all blocks."""
        features, _ = Block(stride=self.stride, **self.block, name='first')(features, train)
        if self.depth > 1:
            scanned = nn.scan(
                Block, variable_axes={'params': 0, 'batch_stats': 0, OBSERVED: 0, DELTAS: 0},
                split_rngs={'params': True}, in_axes=nn.broadcast, length=self.depth - 1, unroll=self.unroll,  # pyright: ignore[reportArgumentType]
                metadata_params={nn.PARTITION_NAME: 'layers'},
            )  # fmt: skip
            features, _ = scanned(stride=1, **self.block, name='blocks')(features, train)
        return features


class ResNet(nn.Module):
    """A residual network over images [batch, height, width, channels], with float32 logits.

    Settings of known networks: ResNet-20 for CIFAR is widths (16, 32, 64), depths (3, 3, 3), stem 'small'; with
    depths (5, 5, 5) and (9, 9, 9) it is ResNet-32 and ResNet-56. ResNet-18 is widths (64, 128, 256, 512), depths
    (2, 2, 2, 2), stem 'large'; with depths (3, 4, 6, 3) it is ResNet-34. ResNet-50 is widths (256, 512, 1024, 2048),
    depths (3, 4, 6, 3), bottleneck, stem 'large'.

    After its first block, a stage has blocks of one shape; their parameters are stacked under 'blocks', and a scan
    runs over them. `unroll` blocks form one scan step: the compiler fuses more, and takes longer.
    """

    classes: int
    widths: Sizes = (16, 32, 64)  # channels of each stage; all but the first have stride 2
    depths: Sizes = (1, 1, 1)  # blocks of each stage
    # A 3x3 convolution, a 5x5 with stride 2, or a 7x7 with stride 2 and 3x3 max-pooling.
    stem: Literal['small', 'half', 'large'] = 'small'
    bottleneck: bool = False
    norm: Literal['batch', 'group'] = 'batch'
    groups: PositiveInt = 8  # maximum per group norm
    zero_init: bool = False  # blocks start as the identity (Goyal et al. 2017, arXiv:1706.02677, section 5.1)
    dropout: Rate = 0.0  # before the last layer
    unroll: PositiveInt = 1  # blocks per scan step; does not change results
    dtype: Literal['float32', 'bfloat16'] = 'float32'

    def __post_init__(self):
        if len(self.widths) != len(self.depths):
            raise SettingError(
                'depths', f'and widths are both per stage, but there are {len(self.depths)} and {len(self.widths)}'
            )
        if self.bottleneck and any(width % 4 for width in self.widths):
            raise SettingError('widths', f'must be multiples of 4 for a bottleneck, got {self.widths}')
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, 'batch height width channels'], train: bool = False
    ) -> Float[Array, 'batch classes']:
        """Computes the logits."""
        width = self.widths[0] // (4 if self.bottleneck else 1)
        side, stride = {'small': (3, 1), 'half': (5, 2), 'large': (7, 2)}[self.stem]
        kernel, strides = (side, side), (stride, stride)
        features = Conv(width, kernel, strides, use_bias=False, dtype=self.dtype, name='stem_conv')(images)
        features = jax.nn.relu(normalize(features, 'stem_norm', self.norm, self.groups, train, self.dtype))
        if self.stem == 'large':
            features = nn.max_pool(features, (3, 3), (2, 2), 'SAME')
        for number, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            block = dict(
                width=width, bottleneck=self.bottleneck, norm=self.norm, groups=self.groups,
                zero_init=self.zero_init, dtype=self.dtype,
            )  # fmt: skip
            stride = 1 if number == 0 else 2
            features = Stage(depth, stride, self.unroll, block, name=f'stage_{number}')(features, train)
        features = tap(self, 'features', features)
        pooled = jnp.mean(features.astype(jnp.float32), axis=(1, 2))
        pooled = tap(self, 'pooled', nn.Dropout(self.dropout, deterministic=not train)(pooled))
        return nn.Dense(self.classes, dtype=self.dtype, name='head')(pooled).astype(jnp.float32)
