"""Tasks whose answer is a span of the tokens of a row, or none."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from research.core.task import Aux, Batch, Host, Metric, Task
from research.models.model import GROUP, Model
from research.nn.apply import seen_of
from research.ops.spans import best_spans, context_positions, masked_scores, span_loss


def span_prediction(
    host: Host, source: Callable, model: Model, *, longest: int, count: int, none_margin: float | None, **more: Any
) -> Task:
    """Builds a task that points at the first and the last token of a span.

    Args:
      host: inputs, encode and decode. A row has 'tokens', 'length', 'types' (above 0 where spans may be), and as its
        target 'start' and 'end', both 0 for no span.
      source: (split) -> rows.
      model: computes scores [batch, tokens, 2] of first and last tokens.
      longest: maximum number of tokens in a predicted span.
      count: number of spans in the outputs: 'spans' [batch, count, 2], 'scores' [batch, count], and 'none' [batch],
        the score of no span.
      none_margin: a claim is "no span" if its score exceeds that of the best span by more than this; None: never.
      **more: further fields of `Task`.
    """

    def scores_of(variables, batch, context):
        scores, changed = model.apply(variables, batch, context)
        return masked_scores(scores, context_positions(batch['types'], batch['length'])), changed

    def loss(variables, batch, context):
        scores, changed = scores_of(variables, batch, context)
        mask = batch['mask']
        right = jnp.all(jnp.argmax(scores, axis=1) == targets_of(batch), axis=-1)
        logits = jnp.moveaxis(scores, -1, 1)
        outputs = {'logits': logits, 'mask': jnp.broadcast_to(mask[:, None], logits.shape[:2])}
        nats = jnp.sum(span_loss(scores, batch['start'], batch['end']) * mask)
        logs = {'accuracy': jnp.sum(right * mask)}
        return nats, Aux(jnp.sum(mask), {GROUP: changed} if changed else {}, logs, outputs)

    def predict(variables, batch, context):
        scores, _ = scores_of(variables, batch, context._replace(train=False))
        valid = context_positions(batch['types'], batch['length'])
        best, spans = best_spans(scores, valid, longest, count)
        return {'spans': spans, 'scores': best, 'none': scores[:, 0].sum(-1)}

    def metric_sums(variables, batch, context):
        scores, _ = scores_of(variables, batch, context._replace(train=False))
        mask, positions = batch['mask'], context_positions(batch['types'], batch['length']).sum(1) + 1
        right = jnp.all(jnp.argmax(scores, axis=1) == targets_of(batch), axis=-1)
        return {
            'nll': jnp.sum(span_loss(scores, batch['start'], batch['end']) * mask),
            'uniform': jnp.sum(2 * jnp.log(positions) * mask),
            'right': jnp.sum(right * mask),
            'count': jnp.sum(mask),
        }

    def score(variables, batch, context):
        scores, changed = scores_of(variables, batch, context._replace(train=False))
        return -span_loss(scores, batch['start'], batch['end']), seen_of(GROUP, changed)

    def claim(batch: Batch, outputs: Mapping[str, Array]) -> Batch:
        span = outputs['spans'][:, 0]
        if none_margin is not None:
            none = outputs['none'] - outputs['scores'][:, 0] > none_margin
            span = jnp.where(none[:, None], 0, span)
        return {**batch, 'start': span[:, 0], 'end': span[:, 1]}

    return Task(
        source=source, init=model.init, load=model.load, losses={GROUP: loss}, predict=predict,
        metric_sums=metric_sums, metrics=span_metrics, score=score, claim=claim, **{**host._asdict(), **more},
    )  # fmt: skip


def targets_of(batch: Batch) -> Array:
    """First and last token of the targets, [batch, 2]."""
    return jnp.stack([batch['start'], batch['end']], axis=-1)


def span_metrics(sums: Mapping[str, Any]) -> dict[str, Metric]:
    """Metrics of single rows, which need no text."""
    count = sums['count']
    return {
        'loss': Metric(
            sums['nll'] / count, sums['uniform'] / count, 'lower', 'nats for the first and the last token of a span',
            'all positions equally probable',
        ),
        'window_accuracy': Metric(sums['right'] / count, about='windows with the right first and last token'),
    }  # fmt: skip
