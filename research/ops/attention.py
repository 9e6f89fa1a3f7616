"""Scaled dot-product attention with grouped heads, masks of the published Transformers, and three implementations.

A `Mask` describes visibility by rules instead of a matrix, so that an implementation can skip hidden keys: chunks of
queries drop the keys after them, and a fused kernel forms no mask.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from research.errors import choose

Implementation = Literal['auto', 'einsum', 'chunked', 'fused']

QUERIES_PER_CHUNK = 64  # queries; on 2 CPU cores as fast as 32 for 128 to 512 positions, with half the code to compile
MAX_CHUNKS = 8  # each is compiled separately; 2048 positions in chunks of 64 take the TPU compiler minutes
MASKED_LOGIT = -1e30  # finite: a query without visible keys gets the mean of the values instead of NaN


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('prefix', 'key_length', 'query_segments', 'key_segments', 'query_positions', 'band'),
    meta_fields=('causal', 'window'),
)
@dataclasses.dataclass(frozen=True)
class Mask:
    """The keys that each query sees: those that meet all conditions. Key j is at position j, query i at i by default.

    causal: a query sees keys up to its own position.
    window: a query sees keys less than this many positions away; 0: all.
    prefix: all queries of the row see the keys before this position, despite `causal` and `window` (prefix-LM).
    key_length: keys from this position on are padding.
    query_segments, key_segments: a query sees the keys of its own segment (packed examples, any padding).
    query_positions: positions of the queries if they are not 0, 1, ..., as when reading from a cache.
    band: like `window`, but traced, as it differs between the layers of a scan.
    """

    causal: bool = False
    window: int = 0
    prefix: Array | None = None  # int32 [batch]
    key_length: Array | None = None  # int32 [batch]
    query_segments: Array | None = None  # int32 [batch, queries]
    key_segments: Array | None = None  # int32 [batch, keys]
    query_positions: Array | None = None  # int32 [batch, queries]
    band: Array | None = None  # int32 []

    def visible(self, queries: range, keys: range) -> Bool[Array, 'rows #queries #keys'] | None:
        """Visibility of `keys` for `queries`, per row or for all rows; None if all keys are visible."""
        key = jnp.arange(keys.start, keys.stop)[None, None, :]
        if self.query_positions is None:
            query = jnp.arange(queries.start, queries.stop)[None, :, None]
        else:
            query = self.query_positions[:, queries.start : queries.stop, None]
        conditions = [query >= key] if self.causal else []
        if self.window:
            conditions.append(abs(query - key) < self.window)
        if self.band is not None:
            conditions.append((abs(query - key) < self.band) | (self.band == 0))
        if self.prefix is not None and conditions:
            conditions = [functools.reduce(jnp.logical_and, conditions) | (key < self.prefix[:, None, None])]
        if self.key_length is not None:
            conditions.append(key < self.key_length[:, None, None])
        if self.query_segments is not None:
            query_segments = self.query_segments[:, queries.start : queries.stop, None]
            conditions.append(query_segments == self.key_segments[:, None, keys.start : keys.stop])  # pyright: ignore[reportOptionalSubscript]
        return functools.reduce(jnp.logical_and, conditions) if conditions else None

    def span(self, queries: range, keys: int) -> range:
        """Range of keys that `queries` may see, as far as static fields determine it."""
        if self.query_positions is not None or self.prefix is not None:
            return range(keys)
        start = max(0, queries.start - self.window + 1) if self.window else 0
        ahead = 0 if self.causal else self.window - 1 if self.window else keys
        stop = min(keys, queries.stop + ahead)
        return range(min(start, stop - 1), stop)


def attention(
    query: Float[Array, 'batch queries heads width'],
    key: Float[Array, 'batch keys key_heads width'],
    value: Float[Array, 'batch keys key_heads width'],
    mask: Mask = Mask(),
    bias: Float[Array, '#batch #heads queries keys'] | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    dropout_key: PRNGKeyArray | None = None,
    implementation: Implementation = 'auto',
) -> Float[Array, 'batch queries heads width']:
    """Computes softmax(scale * query @ key + bias) @ value over the visible keys.

    Vaswani et al. 2017 (arXiv:1706.03762), equation 1; groups of heads share a key head (Ainslie et al. 2023,
    arXiv:2305.13245). Logits and softmax are float32; the result has the type of `value`.

    Args:
      query, key, value: head h of the query reads head h // (heads / key_heads) of key and value.
      mask: the keys that each query sees.
      bias: added to the scaled logits (relative positions).
      scale: of the logits; None is 1 / sqrt(width), T5 uses 1.
      dropout: rate at which attention weights are dropped, with `dropout_key`.
      implementation: 'einsum' forms all logits; 'chunked' those of 64 queries (or an eighth) at a time, without
        keys that none of them sees; 'fused' is `jax.nn.dot_product_attention`, with cuDNN's kernel where possible,
        and without dropout. 'auto' selects the fastest on the default backend.

    Raises:
      UserError: for an unknown implementation.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    choose(implementation, dict.fromkeys(('auto', 'einsum', 'chunked', 'fused')), 'attention implementation')
    if implementation == 'auto':
        implementation = automatic(query.shape[1], mask, dropout, jax.default_backend())
    if implementation == 'fused':
        return fused(query, key, value, mask, bias, scale)
    chunk = max(QUERIES_PER_CHUNK, -(-query.shape[1] // MAX_CHUNKS)) if implementation == 'chunked' else query.shape[1]
    return in_chunks(query, key, value, mask, bias, scale, dropout, dropout_key, chunk)


def attention_weights(
    query: Float[Array, 'batch queries heads width'],
    key: Float[Array, 'batch keys key_heads width'],
    mask: Mask = Mask(),
    bias: Float[Array, '#batch #heads queries keys'] | None = None,
    scale: float | None = None,
) -> Float[Array, 'batch heads queries keys']:
    """Computes the whole matrix softmax(scale * query @ key + bias) in float32; arguments as in `attention`."""
    batch, count, heads, width = query.shape
    keys, key_heads = key.shape[1:3]
    grouped = query.reshape(batch, count, key_heads, heads // key_heads, width)
    if bias is not None:
        bias = jnp.broadcast_to(bias, (bias.shape[0], heads, count, keys)).astype(jnp.float32)
        bias = bias.reshape(bias.shape[0], key_heads, heads // key_heads, count, keys)
    scale = width**-0.5 if scale is None else scale
    visible = mask.visible(range(count), range(keys))
    key = jnp.swapaxes(key, 1, 2)
    logits = scaled_logits(jnp.transpose(grouped, (0, 2, 3, 1, 4)), key, scale, bias, visible)
    return jax.nn.softmax(logits, axis=-1).reshape(batch, heads, count, keys)


def weighted_values(
    weights: Float[Array, 'batch heads queries keys'],
    value: Float[Array, 'batch keys key_heads width'],
    dropout: float = 0.0,
    dropout_key: PRNGKeyArray | None = None,
) -> Float[Array, 'batch queries heads width']:
    """Computes weights @ value in the type of `value`, with dropout of weights: the second half of `attention`."""
    batch, heads, count, keys = weights.shape
    key_heads = value.shape[2]
    if dropout:
        kept = jax.random.bernoulli(dropout_key, 1 - dropout, weights.shape)  # pyright: ignore[reportArgumentType]
        weights = jnp.where(kept, weights / (1 - dropout), 0.0)
    grouped = weights.reshape(batch, key_heads, heads // key_heads, count, keys).astype(value.dtype)
    return jnp.einsum('bhgqk,bkhd->bqhgd', grouped, value).reshape(batch, count, heads, value.shape[3])


def automatic(queries: int, mask: Mask, dropout: float, backend: str) -> Implementation:
    """Selects the fastest implementation on a backend ('cpu', 'gpu', 'tpu')."""
    if backend == 'gpu' and not dropout and queries > 1:
        return 'fused'
    skips = (mask.causal or mask.window) and mask.query_positions is None and mask.prefix is None
    return 'chunked' if skips and queries > QUERIES_PER_CHUNK else 'einsum'


def in_chunks(query, key, value, mask, bias, scale, dropout, dropout_key, chunk):
    """Computes attention for `chunk` queries at a time. Axis order: heads before positions, 1.4x faster on a CPU."""
    batch, count, heads, width = query.shape
    keys, key_heads = key.shape[1:3]
    query = query.reshape(batch, count, key_heads, heads // key_heads, width)
    query = jnp.transpose(query, (0, 2, 3, 1, 4))  # batch, key head, head of its group, query, width
    key, value = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)
    if bias is not None:
        bias = jnp.broadcast_to(bias, (bias.shape[0], heads, count, keys))
        bias = bias.reshape(bias.shape[0], key_heads, heads // key_heads, count, keys)
    outputs = []
    for start in range(0, count, chunk):
        queries = range(start, min(start + chunk, count))
        span = mask.span(queries, keys)
        rows, columns = slice(queries.start, queries.stop), slice(span.start, span.stop)
        part = None if bias is None else bias[..., rows, columns].astype(jnp.float32)
        visible = mask.visible(queries, span)
        logits = scaled_logits(query[..., rows, :], key[:, :, columns], scale, part, visible)
        weights = jax.nn.softmax(logits, axis=-1)
        if dropout:
            kept = jax.random.bernoulli(jax.random.fold_in(dropout_key, start), 1 - dropout, weights.shape)
            weights = jnp.where(kept, weights / (1 - dropout), 0.0)
        flat = weights.reshape(batch, key_heads, -1, len(span)).astype(value.dtype)
        output = jnp.einsum('bhqk,bhkd->bhqd', flat, value[:, :, columns])
        outputs.append(output.reshape(*weights.shape[:-1], width))
    output = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=3)
    return jnp.transpose(output, (0, 3, 1, 2, 4)).reshape(batch, count, heads, width)


def scaled_logits(query, key, scale, bias, visible):
    """Computes float32 logits [batch, key head, group, query, key]; masked ones are `MASKED_LOGIT`."""
    batch, key_heads, groups, count, width = query.shape
    # The heads of a group become further queries of their key head: one matrix product per key head.
    flat = query.reshape(batch, key_heads, groups * count, width)
    logits = jnp.einsum('bhqd,bhkd->bhqk', flat, key, preferred_element_type=jnp.float32) * scale
    logits = logits.reshape(batch, key_heads, groups, count, key.shape[2])
    logits = logits if bias is None else logits + bias
    return logits if visible is None else jnp.where(visible[:, None, None], logits, MASKED_LOGIT)


def fused(query, key, value, mask, bias, scale):
    """Computes attention by `jax.nn.dot_product_attention`; masks that its kernels lack become a matrix."""
    batch, queries, _, width = query.shape
    keys = key.shape[1]
    settings = {}
    positional = mask.causal or mask.window
    arrays = (mask.prefix, mask.query_positions, mask.query_segments, mask.band)
    native = all(array is None for array in arrays)
    # With different lengths, conventions for positions differ; cuDNN's windows only look back.
    if native and (queries == keys or not positional) and (mask.causal or not mask.window):
        settings['is_causal'] = mask.causal
        if mask.window:
            settings['local_window_size'] = (mask.window - 1, 0)
        if mask.key_length is not None:
            settings['key_value_seq_lengths'] = mask.key_length.astype(jnp.int32)
            settings['query_seq_lengths'] = jnp.full((batch,), queries, jnp.int32)
    else:
        visible = mask.visible(range(queries), range(keys))
        settings['mask'] = None if visible is None else visible[:, None]
    matrix = bias is not None or settings.get('mask') is not None
    kernel = kernel_for(query.dtype, width, jax.default_backend())
    if matrix and (queries % 2 or keys % 2):  # cuDNN's backward pass does not support it
        kernel = 'xla'
    bias = None if bias is None else bias.astype(query.dtype)
    settings.update(scale=scale, implementation=kernel)
    return jax.nn.dot_product_attention(query, key, value, bias, **settings)


def kernel_for(dtype: Any, width: int, backend: str) -> Literal['cudnn', 'xla']:
    """Selects the kernel for a head width: cuDNN supports 16-bit types and multiples of 8 up to 128."""
    suits = dtype in (jnp.bfloat16, jnp.float16) and width % 8 == 0 and width <= 128
    return 'cudnn' if backend == 'gpu' and suits else 'xla'
