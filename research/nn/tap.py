"""Taps: named activations that a score reports on request, and to which it adds what it is given.

    'embedding'  vectors of the ids that were looked up, [batch, positions, width]
    'patches'    vectors of a picture's patches, [batch, patches, width]
    'weights'    attention after its softmax, [batch, heads, queries, keys]; computed explicitly only while watched
    'stream'     what leaves a block of a Transformer, [batch, positions, width]
    'features'   what leaves the last convolution, [batch, ..., channels]
    'pooled'     what enters the head of a classifier, [batch, width]

The path of a tap is that of its module and its name: 'encoder/blocks/attention/weights'. Taps below 'blocks' are
stacked over layers on a first axis, whether the loop over layers is unrolled or not.

The gradient with respect to an activation is the gradient with respect to a delta of zeros added there.
"""

from flax import linen as nn
from jaxtyping import Array

from research.ops.constrain import BATCH, constrain

OBSERVED = 'observed'  # the collection that taps write, {path: activation}
DELTAS = 'deltas'  # the collection that taps read, {path: what to add}


def tap(module: nn.Module, name: str, value: Array) -> Array:
    """Returns `value`, moved by the delta of this tap where there is one, and reports it while somebody watches.

    Call it inside a method of `module`. `name` must be no submodule or parameter of it.

    Raises:
      ValueError: when one pass reaches the tap twice: the two activations would share a path.
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
    """Returns whether `tap(module, name, ...)` reports or moves anything; decided while tracing."""
    if module.is_initializing():  # every collection is mutable then, and 'observed' would be stored with the weights
        return False
    return module.is_mutable_collection(OBSERVED) or module.has_variable(DELTAS, name)


def only_once(earlier: Array | None, value: Array) -> Array:
    """Returns `value`; a `ValueError` where there is one already."""
    if earlier is not None:
        raise ValueError('a tap was reached twice in one pass; give the two calls modules or names of their own')
    return value
