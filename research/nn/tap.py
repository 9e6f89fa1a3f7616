"""Taps: named activations that can be read, and to which deltas can be added.

    'embedding'  embeddings of the input ids, [batch, positions, width]
    'patches'    embeddings of an image's patches, [batch, patches, width]
    'weights'    attention after its softmax, [batch, heads, queries, keys]; formed explicitly only while watched
    'stream'     output of a Transformer block, [batch, positions, width]
    'features'   output of the last convolution, [batch, ..., channels]
    'pooled'     input of a classifier's head, [batch, width]

The path of a tap is the path of its module, then its name: 'encoder/blocks/attention/weights'. Taps below 'blocks' are
stacked over layers on their first axis, whether or not the loop over layers is unrolled.

The gradient with respect to an activation is the gradient with respect to a delta of zeros added there.
"""

from flax import linen as nn
from jaxtyping import Array

from research.ops.constrain import BATCH, constrain

OBSERVED = 'observed'  # the collection that taps write, {path: activation}
DELTAS = 'deltas'  # the collection that taps read, {path: delta to add}


def tap(module: nn.Module, name: str, value: Array) -> Array:
    """Adds this tap's delta to `value`, if there is one, and records the result while taps are watched.

    Call it inside a method of `module`. `name` must not be the name of a submodule or parameter.

    Raises:
      ValueError: if one pass reaches the tap twice, as the two activations would share a path.
    """
    if not watching(module, name):
        return value
    if module.has_variable(DELTAS, name):
        delta = module.get_variable(DELTAS, name)
        if delta.shape != value.shape:
            raise ValueError(f'the delta of tap {name!r} has shape {delta.shape}, the activation {value.shape}')
        value = value + constrain(delta.astype(value.dtype), BATCH)
    module.sow(OBSERVED, name, value, init_fn=lambda: None, reduce_fn=only_once)
    return value


def watching(module: nn.Module, name: str) -> bool:
    """Whether `tap(module, name, ...)` records or changes anything; known while tracing."""
    if module.is_initializing():  # all collections are mutable here; 'observed' would be stored with the weights
        return False
    return module.is_mutable_collection(OBSERVED) or module.has_variable(DELTAS, name)


def only_once(earlier: Array | None, value: Array) -> Array:
    """Reduction of `sow` that allows one value per tap; raises `ValueError` for a second one."""
    if earlier is not None:
        raise ValueError('a tap was reached twice in one pass; give the two calls different modules or names')
    return value
