"""The convolutional layer of all trained models."""

import functools

from flax import linen as nn

from research.ops.convolution import convolution

Conv = functools.partial(nn.Conv, conv_general_dilated=convolution)
