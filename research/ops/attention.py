"""Scaled dot-product attention with grouped heads, every mask of the published Transformers, and three ways to run it.

A `Mask` describes who sees whom instead of holding a matrix, so that an implementation can skip what is hidden:
chunks of queries leave out the keys after them, and a fused kernel makes no mask at all.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from research.errors import choose

Implementation = Literal['auto', 'einsum', 'chunked', 'fused']

CHUNK = 64  # queries; measured on CPU: 32 and 128 are slower from 256 positions on
HIDDEN = -1e30  # finite: a query that sees nothing gets the mean of the values instead of NaN


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('prefix', 'key_length', 'query_segments', 'key_segments', 'query_positions'),
    meta_fields=('causal', 'window'),
)
@dataclasses.dataclass(frozen=True)
class Mask:
    """Who sees whom; all conditions hold together. Key j stands at position j, query i at i or `query_positions`.

    causal: a query sees keys up to its own position.
    window: a query sees keys less than this many positions away; 0 switches it off.
    prefix: keys before it are seen by all queries of the row, in spite of `causal` and `window` (prefix-LM).
    key_length: keys from it on are padding.
    query_segments, key_segments: a query sees the keys of its own segment only (packed examples; any padding).
    query_positions: positions of the queries where they are not 0, 1, ...: a cache is being read.
    """

    causal: bool = False
    window: int = 0
    prefix: Int[Array, 'batch'] | None = None
    key_length: Int[Array, 'batch'] | None = None
    query_segments: Int[Array, 'batch queries'] | None = None
    key_segments: Int[Array, 'batch keys'] | None = None
    query_positions: Int[Array, 'batch queries'] | None = None

    def visible(self, queries: range, keys: range) -> Bool[Array, 'rows queries keys'] | None:
        """Returns which of `keys` each of `queries` sees, for every row or for all at once; None where all are seen."""
        key = jnp.arange(keys.start, keys.stop)[None, None, :]
        if self.query_positions is None:
            query = jnp.arange(queries.start, queries.stop)[None, :, None]
        else:
            query = self.query_positions[:, queries.start : queries.stop, None]
        seen = [query >= key] if self.causal else []
        if self.window:
            seen.append(abs(query - key) < self.window)
        if self.prefix is not None and seen:
            seen = [functools.reduce(jnp.logical_and, seen) | (key < self.prefix[:, None, None])]
        if self.key_length is not None:
            seen.append(key < self.key_length[:, None, None])
        if self.query_segments is not None:
            query_segments = self.query_segments[:, queries.start : queries.stop, None]
            seen.append(query_segments == self.key_segments[:, None, keys.start : keys.stop])
        return functools.reduce(jnp.logical_and, seen) if seen else None

    def span(self, queries: range, keys: int) -> range:
        """Returns the keys that some of `queries` can see, as far as is known before the program runs."""
        if self.query_positions is not None or self.prefix is not None:
            return range(keys)
        start = max(0, queries.start - self.window + 1) if self.window else 0
        stop = min(keys, queries.stop) if self.causal else keys
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
    """Returns softmax(scale * query @ key + bias) @ value over the keys that `mask` shows.

    Vaswani et al. 2017 (arXiv:1706.03762), equation 1; heads share key heads in groups of heads / key_heads
    (Ainslie et al. 2023, arXiv:2305.13245). Logits and softmax are float32; the result has the type of `value`.

    Args:
      query, key, value: heads must be a multiple of key_heads; query head h reads key head h // (heads / key_heads).
      mask: who sees whom.
      bias: added to the scaled logits (relative positions).
      scale: of the logits; None is 1 / sqrt(width), T5 uses 1.
      dropout: rate at which attention weights are dropped, with `dropout_key`.
      implementation: 'einsum' forms all logits; 'chunked' forms those of 64 queries at a time and skips keys
        that no query of the chunk sees; 'fused' is `jax.nn.dot_product_attention`, with cuDNN's kernel where
        it applies. 'auto' is 'fused' on a GPU (without dropout) and otherwise the faster of the first two.

    Raises:
      UserError: for an unknown implementation.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    choose(implementation, dict.fromkeys(('auto', 'einsum', 'chunked', 'fused')), 'attention implementation')
    if implementation == 'auto':
        implementation = automatic(query.shape[1], mask, dropout, jax.default_backend())
    if implementation == 'fused':
        return fused(query, key, value, mask, bias, scale)
    chunk = CHUNK if implementation == 'chunked' else query.shape[1]
    return in_chunks(query, key, value, mask, bias, scale, dropout, dropout_key, chunk)


def automatic(queries: int, mask: Mask, dropout: float, backend: str) -> Implementation:
    """Returns the implementation that is fastest for these queries on a backend ('cpu', 'gpu', 'tpu')."""
    if backend == 'gpu' and not dropout and queries > 1:
        return 'fused'
    skips = (mask.causal or mask.window) and mask.query_positions is None and mask.prefix is None
    return 'chunked' if skips and queries > CHUNK else 'einsum'


def in_chunks(query, key, value, mask, bias, scale, dropout, dropout_key, chunk):
    """Attention of `chunk` queries at a time. Heads stand before positions: 1.4x the speed of the reverse on CPU."""
    batch, count, heads, width = query.shape
    keys, key_heads = key.shape[1:3]
    groups = heads // key_heads
    query = jnp.transpose(query.reshape(batch, count, key_heads, groups, width), (0, 2, 3, 1, 4))
    key, value = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)
    if bias is not None:  # to the layout of the logits: batch, key head, group, query, key
        bias = jnp.broadcast_to(bias, (bias.shape[0], heads, count, keys))
        bias = bias.reshape(bias.shape[0], key_heads, groups, count, keys)
    outputs = []
    for start in range(0, count, chunk):
        queries = range(start, min(start + chunk, count))
        span = mask.span(queries, keys)
        part = slice(span.start, span.stop)
        visible = mask.visible(queries, span)
        # the heads of a group become further queries of their key head: one matrix product per key head
        flat = query[:, :, :, queries.start : queries.stop].reshape(batch, key_heads, groups * len(queries), width)
        logits = jnp.einsum('bhqd,bhkd->bhqk', flat, key[:, :, part], preferred_element_type=jnp.float32) * scale
        logits = logits.reshape(batch, key_heads, groups, len(queries), len(span))
        if bias is not None:
            logits += bias[:, :, :, queries.start : queries.stop, part].astype(jnp.float32)
        if visible is not None:
            logits = jnp.where(visible[:, None, None], logits, HIDDEN)
        weights = jax.nn.softmax(logits, axis=-1)
        if dropout:
            kept = jax.random.bernoulli(jax.random.fold_in(dropout_key, start), 1 - dropout, weights.shape)
            weights = jnp.where(kept, weights / (1 - dropout), 0.0)
        weights = weights.reshape(batch, key_heads, groups * len(queries), len(span)).astype(value.dtype)
        output = jnp.einsum('bhqk,bhkd->bhqd', weights, value[:, :, part])
        outputs.append(output.reshape(batch, key_heads, groups, len(queries), width))
    output = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=3)
    return jnp.transpose(output, (0, 3, 1, 2, 4)).reshape(batch, count, heads, width)


def fused(query, key, value, mask, bias, scale):
    """Attention by `jax.nn.dot_product_attention`; what its kernels cannot express natively becomes a mask."""
    queries, keys = query.shape[1], key.shape[1]
    native = mask.prefix is None and mask.query_positions is None and mask.query_segments is None
    settings = {}
    if native and (queries == keys or not (mask.causal or mask.window)):
        settings['is_causal'] = mask.causal
        if mask.window:
            settings['local_window_size'] = (mask.window - 1, 0 if mask.causal else mask.window - 1)
        if mask.key_length is not None:
            settings['key_value_seq_lengths'] = mask.key_length.astype(jnp.int32)
            settings['query_seq_lengths'] = jnp.full(query.shape[:1], queries, jnp.int32)
    else:
        visible = mask.visible(range(queries), range(keys))
        settings['mask'] = None if visible is None else visible[:, None]
    if bias is not None:
        bias = bias.astype(query.dtype)
    kernel = kernel_for(query.dtype, query.shape[-1], jax.default_backend())
    return jax.nn.dot_product_attention(query, key, value, bias, scale=scale, implementation=kernel, **settings)


def kernel_for(dtype: jnp.dtype, width: int, backend: str) -> Literal['cudnn', 'xla']:
    """Returns the kernel of `jax.nn.dot_product_attention`: cuDNN's takes 16-bit types and widths of 8 n up to 128."""
    suits = dtype in (jnp.bfloat16, jnp.float16) and width % 8 == 0 and width <= 128
    return 'cudnn' if backend == 'gpu' and suits else 'xla'
