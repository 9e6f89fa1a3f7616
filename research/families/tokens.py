"""Tasks whose targets are tokens: language models, hidden tokens, and texts that are written for other texts.

    token_prediction   loss, metrics, score and the rest of a `Task`, for any model that gives logits of targets
    continue_text      `predict` of a decoder                     claim_continuation   its `claim`
    write_target       `predict` of an encoder-decoder            make_claim_target    its `claim`
    sampled, searched  how either writes: drawn token by token, or the best of a beam

A row has 'targets' [batch, length]. In a claim, a target of -1 is not scored: the prompt of a continuation.
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

Write = Callable[..., tuple[Array, Array]]  # (variables, prompts, batch, context) -> (tokens [batch, most], length)


def target_mask(batch: Batch) -> Float[Array, 'batch length']:
    """1.0 for each target that counts: those inside a text, and behind its 'prefix' where it has one."""
    position = jnp.arange(batch['tokens'].shape[1])
    inside = position < batch['length'][:, None] if 'length' in batch else batch['segments'] > 0
    if 'prefix' in batch:  # its last token predicts the first that is not seen
        inside &= position >= batch['prefix'][:, None] - 1
    return inside * batch['mask'][:, None]


def token_prediction(
    host: Host,
    source: Callable,
    model: Model,
    counts: np.ndarray,
    *,
    what: str = 'token',
    mask_of: Callable[[Batch], Float[Array, 'batch length']] = target_mask,
    smoothing: float = 0.0,
    sizes: np.ndarray | None = None,
    **more: Any,
) -> Task:
    """A task that predicts tokens; its loss is the sum of their cross-entropies in nats, their number is its weight.

    Args:
      host: inputs, encode and decode.
      source: (split) -> rows.
      model: its logits [batch, length, vocabulary] are of the batch's 'targets'.
      counts: of each token among training targets, for the baseline.
      what: names the tokens that are counted, as in 'hidden token'.
      mask_of: from a batch to 1.0 for each target that counts.
      smoothing: of the labels, in the loss alone.
      sizes: bytes of each token, for bits per byte; None where targets are no whole text.
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
        return {name: Metric(*row) for name, row in token_metrics(sums, what).items()}

    def score(variables, batch, context):
        logits, changed = model.apply(variables, batch, context._replace(train=False))
        targets = batch['targets']
        values = token_score(logits, jnp.maximum(targets, 0), mask_of(batch) * (targets >= 0))
        return values, seen_of(GROUP, changed)

    return Task(
        source=source, init=model.init, load=model.load, losses={GROUP: loss}, metric_sums=metric_sums,
        metrics=metrics, score=score, **{**host._asdict(), **more},
    )  # fmt: skip


def sampled(generate: Generate, most: int, temperature: float, top_k: int, top_p: float) -> Write:
    """Writing by `ops.sampling.sample`; what is drawn depends on a row's index, not on the batch it is in."""

    def write(variables, prompts, batch, context):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(context.fold('sample'), batch['index'])
        return sample(generate, variables, prompts, keys, most, temperature, top_k, top_p)

    return write


def searched(generate: Generate, most: int, beams: int, length_penalty: float) -> Write:
    """Writing by `ops.beam_search.beam_search`; nothing is drawn."""

    def write(variables, prompts, batch, context):
        del batch, context
        best = beam_search(generate, variables, prompts, most, beams, length_penalty)
        return best.tokens[:, 0], best.length[:, 0]

    return write


def continue_text(write: Write, row_prompt: Callable[[Batch], Array], prefix: bool) -> Callable:
    """`predict`: a request's whole text, or of a row the first `row_prompt` tokens, and a continuation.

    Outputs are 'prompt' [batch, length], 'prompt_length', 'tokens' [batch, most] and their 'length'.
    """

    def predict(variables, batch, context):
        length = row_prompt(batch) if 'targets' in batch else batch['length']
        prompts = {'tokens': batch['tokens'], 'length': length, **({'prefix': length} if prefix else {})}
        tokens, written = write(variables, prompts, batch, context)
        return {'prompt': batch['tokens'], 'prompt_length': length, 'tokens': tokens, 'length': written}

    return predict


def claim_continuation(batch: Batch, outputs: dict[str, Array]) -> Batch:
    """`claim`: a row of a prompt and its continuation, whose tokens alone are targets."""
    start, stop = outputs['prompt_length'][:, None], (outputs['prompt_length'] + outputs['length'])[:, None]
    position = jnp.arange(outputs['prompt'].shape[1])
    offset = jnp.clip(position - start, 0, outputs['tokens'].shape[1] - 1)
    text = jnp.where(position < start, outputs['prompt'], jnp.take_along_axis(outputs['tokens'], offset, axis=1))
    inside = position < stop - 1  # the last token is no input
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
    """`predict`: what is written for each source, of a packed row for its first; the target begins with `start`.

    Outputs are 'source', 'source_length', 'tokens' [batch, most] and their 'length'.
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
    """`claim`: a row of a source and the target that was written for it, padded to the sizes of training rows."""

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
