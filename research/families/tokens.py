"""Tasks whose targets are tokens: language models, masked models, and encoder-decoders.

    token_prediction   the `Task`, with loss, metrics and score, for any model that computes logits of targets
    continue_text      `predict` of a decoder                     claim_continuation   its `claim`
    write_target       `predict` of an encoder-decoder            make_claim_target    its `claim`
    sampled, searched  decoding strategies for both: sampling, or beam search

A row has 'targets' [batch, length]. In a claim, targets of -1 (the prompt of a continuation) are not scored.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.core.task import Aux, Batch, Generate, Host, Metric, Task
from research.models.model import GROUP, Model
from research.nn.apply import seen_of
from research.ops.beam_search import beam_search
from research.ops.claims import token_score
from research.ops.losses import softmax_cross_entropy
from research.ops.sampling import sample
from research.ops.token_metrics import token_metrics, token_sums, unigrams

# (variables, prompts, batch, context) -> (tokens [batch, max_new_tokens], length [batch])
Write = Callable[..., tuple[Array, Array]]


def target_mask(batch: Batch) -> Float[Array, 'batch length']:
    """Returns 1.0 for each target inside a text, after its 'prefix' if it has one."""
    position = jnp.arange(batch['tokens'].shape[1])
    inside = position < batch['length'][:, None] if 'length' in batch else batch['segments'] > 0
    if 'prefix' in batch:  # the last token of the prefix predicts the first one after it
        inside &= position >= batch['prefix'][:, None] - 1
    return inside * batch['mask'][:, None]


def token_prediction(
    host: Host,
    source: Callable,
    model: Model,
    counts: np.ndarray,
    *,
    token_name: str = 'token',
    mask_of: Callable[[Batch], Float[Array, 'batch length']] = target_mask,
    smoothing: float = 0.0,
    sizes: np.ndarray | None = None,
    **more: Any,
) -> Task:
    """Builds a task that predicts tokens; the loss sums their cross-entropies in nats, with their count as weight.

    Args:
      host: inputs, encode and decode.
      source: (split) -> rows.
      model: computes logits [batch, length, vocabulary] of the batch's 'targets'.
      counts: number of each token among training targets, for the unigram baseline.
      token_name: name of the predicted tokens in metrics, such as 'hidden token'.
      mask_of: (batch) -> 1.0 for each target that counts.
      smoothing: label smoothing, in the loss only.
      sizes: bytes of each token, for bits per byte; None if the targets are not whole texts.
      **more: further fields of `Task`, among them `predict` and `claim`.
    """
    baseline = unigrams(counts)

    def loss(variables, batch, context):
        logits, changed = model.apply(variables, batch, context)
        targets, mask = batch['targets'], mask_of(batch)
        values = softmax_cross_entropy(logits, targets, smoothing) * mask
        correct = (jnp.argmax(logits, axis=-1) == targets) * mask
        extra = {GROUP: changed} if changed else {}
        return jnp.sum(values), Aux(
            jnp.sum(mask), extra, {'accuracy': jnp.sum(correct)}, {'logits': logits, 'mask': mask}
        )

    def metric_sums(variables, batch, context):
        logits, _ = model.apply(variables, batch, context._replace(train=False))
        targets, mask = batch['targets'], mask_of(batch)
        sums = token_sums(logits, targets, mask, baseline)
        if sizes is not None:
            sums['bytes'] = jnp.sum(jnp.asarray(sizes, jnp.float32)[targets] * mask)
        return sums

    def metrics(sums):
        return {name: Metric(*row) for name, row in token_metrics(sums, token_name).items()}

    def score(variables, batch, context):
        logits, changed = model.apply(variables, batch, context._replace(train=False))
        targets = batch['targets']
        values = token_score(logits, jnp.maximum(targets, 0), mask_of(batch) * (targets >= 0))
        return values, seen_of(GROUP, changed)

    return Task(
        source=source, init=model.init, load=model.load, losses={GROUP: loss}, metric_sums=metric_sums,
        metrics=metrics, score=score, **{**host._asdict(), **more},
    )  # fmt: skip


def sampled(generate: Generate, max_new_tokens: int, temperature: float, top_k: int, top_p: float) -> Write:
    """Decodes by sampling. Keys derive from a row's index, so the result does not depend on the batch."""

    def write(variables, prompts, batch, context):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(context.fold('sample'), batch['index'])
        return sample(generate, variables, prompts, keys, max_new_tokens, temperature, top_k, top_p)

    return write


def searched(generate: Generate, max_new_tokens: int, beams: int, length_penalty: float) -> Write:
    """Decodes by beam search; returns the best hypothesis."""

    def write(variables, prompts, batch, context):
        del batch, context
        best = beam_search(generate, variables, prompts, max_new_tokens, beams, length_penalty)
        return best.tokens[:, 0], best.length[:, 0]

    return write


def continue_text(write: Write, row_prompt: Callable[[Batch], Array], prefix: bool) -> Callable:
    """Builds `predict`: continues the text of a request, or the first `row_prompt` tokens of a row.

    Outputs are 'prompt' [batch, length], 'prompt_length', 'tokens' [batch, max_new_tokens] and their 'length'.
    """

    def predict(variables, batch, context):
        length = row_prompt(batch) if 'targets' in batch else batch['length']
        prompts = {'tokens': batch['tokens'], 'length': length, **({'prefix': length} if prefix else {})}
        tokens, written = write(variables, prompts, batch, context)
        return {'prompt': batch['tokens'], 'prompt_length': length, 'tokens': tokens, 'length': written}

    return predict


def claim_continuation(batch: Batch, outputs: dict[str, Array]) -> Batch:
    """Implements `claim`: prompt and continuation as a row, with targets on the continuation only."""
    start, stop = outputs['prompt_length'][:, None], (outputs['prompt_length'] + outputs['length'])[:, None]
    position = jnp.arange(outputs['prompt'].shape[1])
    offset = jnp.clip(position - start, 0, outputs['tokens'].shape[1] - 1)
    text = jnp.where(position < start, outputs['prompt'], jnp.take_along_axis(outputs['tokens'], offset, axis=1))
    inside = position < stop - 1  # the last token is a target but not an input
    following = jnp.pad(text[:, 1:], ((0, 0), (0, 1)))
    row = {
        'tokens': jnp.where(inside, text, 0),
        'targets': jnp.where(inside & (position >= start - 1), following, -1),
        'length': stop[:, 0] - 1,
    }
    if 'segments' in batch:
        row['segments'] = jnp.where(inside, 0, -1).astype(batch['segments'].dtype)
    if 'prefix' in batch:
        row['prefix'] = outputs['prompt_length']
    return {**batch, **row}


def write_target(write: Write, start: int) -> Callable:
    """Builds `predict`: decodes a target for each source (the first one of a packed row), starting with `start`.

    Outputs are 'source', 'source_length', 'tokens' [batch, max_new_tokens] and their 'length'.
    """

    def predict(variables, batch, context):
        packed = 'source_segments' in batch
        length = jnp.sum(batch['source_segments'] == 1, axis=1) if packed else batch['source_length']
        source, ones = {'source': batch['source'], 'source_length': length}, jnp.ones_like(length)
        prompts = {**source, 'tokens': ones[:, None] * start, 'length': ones}
        tokens, written = write(variables, prompts, batch, context)
        return {**source, 'tokens': tokens, 'length': written}

    return predict


def make_claim_target(start: int, source_length: int, length: int) -> Callable:
    """Builds `claim`: source and decoded target as a row, padded to the lengths of training rows."""

    def padded(tokens: Array, width: int) -> Array:
        return jnp.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))

    def claim(batch, outputs):
        targets = padded(outputs['tokens'], length)
        row = {
            'source': padded(outputs['source'], source_length),
            'tokens': jnp.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=start),
            'targets': targets,
        }
        if 'segments' not in batch:
            return {**batch, **row, 'length': outputs['length']}
        inside = jnp.arange(length) < outputs['length'][:, None]
        first = padded(batch['source_segments'] == 1, source_length)
        segments = {'source_segments': first, 'segments': inside}
        return {**batch, **row, **{name: value.astype(batch[name].dtype) for name, value in segments.items()}}

    return claim
