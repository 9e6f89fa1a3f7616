"""Supervised tasks: a model computes scores, an output head turns them into losses, metrics and predictions."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from research.core.task import Aux, Batch, Context, Host, Metric, Task
from research.data.cache import encoded_once
from research.models.model import GROUP, Model
from research.nn.apply import seen_of
from research.ops.heads import OutputHead


def unchanged(batch: Batch, context: Context) -> Batch:
    """Returns the batch itself: the transform of models that read encoded rows directly."""
    del context
    return batch


def supervised(
    host: Host, source: Callable, model: Model, head: OutputHead, *,
    transform: Callable[[Batch, Context], Batch] = unchanged,
    extra_metrics: Callable[[dict[str, Metric]], Mapping[str, Metric]] | None = None,
    label: str = 'label', encode_once: bool = False, **more: Any,
) -> Task:  # fmt: skip
    """Builds a task with one target per example: a class, a set of labels, or a number.

    Args:
      host: inputs, encode and decode. An encoded row has its target in the field `label`; a request has none.
      source: (split) -> rows.
      model: computes scores [batch, head.units].
      head: one of `research/ops/heads.py`, or your own `OutputHead`.
      transform: (batch, context) -> batch, on the device, before model and loss: features of raw inputs, and, if
        `context.train`, augmentation, which may mix rows and their targets. It must keep 'mask'.
      extra_metrics: computes additional metrics from those of the head.
      label: name of the target field.
      encode_once: encode each split once and keep the result; for tasks without augmentation on the host.
      **more: further fields of `Task`, such as `couples_rows`, `finalize`, `render` and `describe`.
    """

    def evaluated(variables, batch, context):
        context = context._replace(train=False)
        return model.apply(variables, transform(batch, context), context)

    def loss(variables, batch, context):
        batch = transform(batch, context)
        scores, changed = model.apply(variables, batch, context)
        mask, targets = batch['mask'], batch[label]
        answer = head.answer(scores)
        outputs = {'logits': answer['logits'], 'mask': mask} if 'logits' in answer else None
        logs = head.logs(scores, targets, mask)
        aux = Aux(jnp.sum(mask), {GROUP: changed} if changed else {}, logs, outputs)
        return jnp.sum(head.loss(scores, targets) * mask), aux

    def predict(variables, batch, context):
        return head.answer(evaluated(variables, batch, context)[0])

    def metric_sums(variables, batch, context):
        return head.sums(evaluated(variables, batch, context)[0], batch[label], batch['mask'])

    def metrics(sums):
        named = {name: Metric(*row) for name, row in head.metrics(sums).items()}
        return {**named, **extra_metrics(named)} if extra_metrics else named

    def score(variables, batch, context):
        scores, changed = evaluated(variables, batch, context)
        return head.score(scores, batch[label]), seen_of(GROUP, changed)

    def claim(batch, outputs):
        return {**batch, label: head.claim(outputs)}

    fields = {**host._asdict(), **more}
    if encode_once:
        source, fields['encode'] = encoded_once(source, host.encode)
    return Task(
        source=source, init=model.init, load=model.load, losses={GROUP: loss}, predict=predict,
        metric_sums=metric_sums, metrics=metrics, score=score, claim=claim, **fields,
    )  # fmt: skip
