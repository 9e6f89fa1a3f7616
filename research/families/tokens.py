"""Tasks whose targets are tokens: language models, masked models, and encoder-decoders.

    token_prediction   the `Task`, with loss, metrics and score, for any model that computes logits of targets
    continue_text      completes `generate` of a decoder             claim_continuation   its `claim`
    write_target       completes `generate` of an encoder-decoder    make_claim_target    its `claim`
    predict_text       `predict` of both: sampling, or beam search

A row has 'targets' [batch, length]. In a claim, targets of -1 (the prompt of a continuation) are not scored.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.core.task import Aux, Batch, Decoding, Generate, Host, Metric, Task
from research.errors import UserError
from research.models.model import GROUP, Model
from research.nn.apply import seen_of
from research.ops.beam_search import beam_search
from research.ops.claims import token_score
from research.ops.losses import softmax_cross_entropy
from research.ops.sampling import sample
from research.ops.token_metrics import token_metrics, token_sums, unigrams


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


def predict_text(generate: Generate) -> Callable:
    """Builds `predict` from `generate`: decodes a text for each row, by its `decoding`.

    Keys of sampling derive from a row's index, so the result does not depend on the batch.
    """
    assert generate.prompts and generate.outputs and generate.decoding
    prompts_of, outputs_of, decoding = generate.prompts, generate.outputs, generate.decoding

    def predict(variables, batch, context):
        prompts = prompts_of(batch)
        if decoding.beams:
            beams, length_penalty = decoding.beams, decoding.length_penalty
            best = beam_search(generate, variables, prompts, decoding.max_new_tokens, beams, length_penalty)
            return outputs_of(prompts, best.tokens[:, 0], best.length[:, 0])
        keys = jax.vmap(jax.random.fold_in, (None, 0))(context.fold('sample'), batch['index'])
        settings = decoding.max_new_tokens, decoding.temperature, decoding.top_k, decoding.top_p
        return outputs_of(prompts, *sample(generate, variables, prompts, keys, *settings))

    return predict


def continue_text(
    generate: Generate, decoding: Decoding, length: int, row_prompt: Callable[[Batch], Array], prefix: bool,
    tokenizer: Any = None,
) -> Generate:  # fmt: skip
    """Completes `generate` of a decoder, which continues a request, or the first `row_prompt` tokens of a row.

    Outputs are 'prompt' [batch, length], 'prompt_length', 'tokens' [batch, max_new_tokens] and their 'length'.

    Args:
      generate: of `models.tokens.generate_text`.
      decoding: the settings of the task.
      length: positions of a prompt with its continuation.
      row_prompt: (batch) -> tokens of each row's prompt.
      prefix: whether a prompt is the prefix of a prefix-LM.
      tokenizer: of the tokens.
    """

    def prompts(batch):
        length = row_prompt(batch) if 'targets' in batch else batch['length']
        return {'tokens': batch['tokens'], 'length': length, **({'prefix': length} if prefix else {})}

    def outputs(prompts, tokens, written):
        return {
            'prompt': prompts['tokens'], 'prompt_length': prompts['length'], 'tokens': tokens, 'length': written
        }

    def encode_tokens(tokens: Sequence[int]) -> dict[str, np.ndarray]:
        ids = checked_ids(tokens, tokenizer, capacity - 1)
        return {'tokens': ids, 'length': np.asarray(len(ids), np.int32)}

    capacity = min(length, generate.limit)
    return generate._replace(
        prompts=prompts, outputs=outputs, encode_tokens=encode_tokens, decoding=decoding, capacity=capacity,
        tokenizer=tokenizer,
    )  # fmt: skip


def checked_ids(tokens: Sequence[int], tokenizer: Any, limit: int) -> np.ndarray:
    """The ids of a prompt as an array; raises `UserError` for too many, or one that the tokenizer does not have."""
    size = tokenizer.get_vocab_size() if tokenizer else 2**31
    if not 0 < len(tokens) <= limit:
        raise UserError(f'tokens: expected 1 to {limit} ids, got {len(tokens)}')
    if wrong := [token for token in tokens if not 0 <= token < size]:
        raise UserError(f'tokens: ids must be from 0 to {size - 1}, got {wrong[0]}')
    return np.asarray(tokens, np.int32)


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


def write_target(
    generate: Generate, decoding: Decoding, start: int, source_length: int, tokenizer: Any = None,
    source_tokenizer: Any = None,
) -> Generate:  # fmt: skip
    """Completes `generate` of an encoder-decoder: a target for each source (the first one of a packed row).

    Outputs are 'source', 'source_length', 'tokens' [batch, max_new_tokens] and their 'length'.

    Args:
      generate: of `models.tokens.generate_target`.
      decoding: the settings of the task.
      start: the token before a target.
      source_length: tokens of an encoded source.
      tokenizer: of the targets.
      source_tokenizer: None: the same.
    """

    def prompts(batch):
        packed = 'source_segments' in batch
        length = (batch['source_segments'] == 1).sum(1) if packed else batch['source_length']
        ones = length * 0 + 1  # of the host or the device, as the batch
        return {'source': batch['source'], 'source_length': length, 'tokens': ones[:, None] * start, 'length': ones}

    def outputs(prompts, tokens, written):
        return {
            'source': prompts['source'], 'source_length': prompts['source_length'], 'tokens': tokens, 'length': written
        }

    def encode_tokens(tokens: Sequence[int]) -> dict[str, np.ndarray]:
        source = np.zeros(source_length, np.int32)
        source[: len(tokens)] = checked_ids(tokens, source_tokenizer or tokenizer, source_length)
        return {'source': source, 'source_length': np.asarray(len(tokens), np.int32)}

    capacity = min(1 + decoding.max_new_tokens, generate.limit)
    return generate._replace(
        prompts=prompts, outputs=outputs, encode_tokens=encode_tokens, decoding=decoding, capacity=capacity,
        tokenizer=tokenizer,
    )  # fmt: skip


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
