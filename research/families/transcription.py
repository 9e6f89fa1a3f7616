"""Tasks that write the text of a sequence of frames without an alignment: CTC."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core.task import Aux, Batch, Context, Host, Metric, Task
from research.models.model import GROUP, Model
from research.nn.apply import seen_of
from research.ops.ctc import best_path, ctc_loss, frames_needed, is_before, shortened
from research.ops.transcripts import corpus_errors


def transcription(
    host: Host, source: Callable, model: Model, transform: Callable[[Batch, Context], Batch], **more: Any
) -> Task:
    """Builds a task with a CTC loss.

    A text that needs more frames than the model gives has no alignment: it has no part in the loss and its metric, and
    `metrics` counts it. Its answer is still scored by `finalize`.

    Args:
      host: inputs, encode, decode and buckets. A row has 'frames', and 'labels' [count] with their number 'count'; a
        request has no labels.
      source: (split) -> rows.
      model: computes logits [batch, shorter, labels]; label 0 is the blank.
      transform: (batch, context) -> batch, on the device: the features of raw inputs and, in training, augmentation.
      **more: further fields of `Task`, such as `finalize` and `notes`.
    """

    def logits_of(variables, batch, context):
        logits, changed = model.apply(variables, transform(batch, context), context)
        return logits, shortened(batch['frames']), changed

    def nats_and_weight(logits, frames, batch):
        labels, count = batch['labels'], batch['count']
        fits = batch['mask'] * (frames_needed(labels, count) <= frames)
        nats = ctc_loss(logits, frames, labels, jnp.minimum(count, labels.shape[1]))
        return jnp.sum(jnp.where(fits > 0, nats, 0.0)), jnp.sum(fits * count), jnp.sum(batch['mask'] - fits)

    def loss(variables, batch, context):
        logits, frames, changed = logits_of(variables, batch, context)
        nats, weight, _ = nats_and_weight(logits, frames, batch)
        valid = is_before(frames, logits.shape[1]) * batch['mask'][:, None]
        return nats, Aux(weight, {GROUP: changed} if changed else {}, {}, {'logits': logits, 'mask': valid})

    def predict(variables, batch, context):
        logits, frames, _ = logits_of(variables, batch, context._replace(train=False))
        labels, count = best_path(logits, frames)
        log_probabilities = jax.nn.log_softmax(logits)
        return {'log_probabilities': log_probabilities, 'frames': frames, 'labels': labels, 'count': count}

    def metric_sums(variables, batch, context):
        logits, frames, _ = logits_of(variables, batch, context._replace(train=False))
        nats, characters, unfit = nats_and_weight(logits, frames, batch)
        return {'nll': nats, 'characters': characters, 'unfit': unfit}

    def metrics(sums):
        nats = sums['nll'] / np.maximum(sums['characters'], 1)
        return {
            'loss': Metric(nats, None, 'lower', 'nats per character, CTC'),
            'unfit': Metric(sums['unfit'], None, 'lower', 'texts that need more frames than there are'),
        }

    def score(variables, batch, context):
        logits, frames, changed = logits_of(variables, batch, context._replace(train=False))
        return -ctc_loss(logits, frames, batch['labels'], batch['count']), seen_of(GROUP, changed)

    def claim(batch, outputs):
        return {**batch, 'labels': outputs['labels'], 'count': outputs['count']}

    return Task(
        source=source, init=model.init, load=model.load, losses={GROUP: loss}, predict=predict,
        metric_sums=metric_sums, metrics=metrics, score=score, claim=claim, **{**host._asdict(), **more},
    )  # fmt: skip


def error_rates(
    known: Sequence[str], normalize: Callable[[str], str], form: str, search: str
) -> Callable[[Iterator[tuple[Mapping[str, Any], Any]]], dict[str, Metric]]:
    """Builds a task's `finalize`: word, character and sentence errors of a corpus, with and without a language model.

    Answers have 'text', and 'greedy', the text of the best path. The baseline is the better of the empty answer and
    the commonest training transcript.

    Args:
      known: the training transcripts.
      normalize: the form of transcripts that is compared.
      form: describes `normalize`, for the signature.
      search: describes the search and its language model, for the signature.
    """
    commonest = collections.Counter(known).most_common(1)[0][0]

    def finalize(pairs: Iterator[tuple[Mapping[str, Any], Any]]) -> dict[str, Metric]:
        rows = [(normalize(raw['text']), answer['text'], answer['greedy']) for raw, answer in pairs]
        searched, greedy, always = (
            corpus_errors((row[0], answer) for row, answer in zip(rows, answers, strict=True))
            for answers in ([row[1] for row in rows], [row[2] for row in rows], [commonest] * len(rows))
        )
        constant = f'the empty answer; always {commonest!r}: {always.wer:.0f} WER'

        def metric(name: str, errors: Any, how: str) -> Metric:
            unit = {'wer': f'of {errors.words:,} words', 'cer': f'of {errors.characters:,} letters and spaces',
                    'sentence_errors': f'of {errors.sentences:,} utterances'}[name]  # fmt: skip
            baseline = min(100.0, getattr(always, name))
            return Metric(getattr(errors, name), baseline, 'lower', f'percent {unit}, {how}: {form}', constant)

        seen, plain = set(known), 'best path, no language model'
        new = [row for row in rows if row[0] not in seen]
        metrics = {name: metric(name, searched, search) for name in ('wer', 'cer', 'sentence_errors')}
        metrics |= {f'{name}_greedy': metric(name, greedy, plain) for name in ('wer', 'cer', 'sentence_errors')}
        if 0 < len(new) < len(rows):
            for name, column, how in (('wer_new', 1, search), ('wer_new_greedy', 2, plain)):
                errors = corpus_errors((row[0], row[column]) for row in new)
                about = f'{how}, the {len(new):,} utterances whose transcript is not in the training split'
                metrics[name] = metric('wer', errors, about)
        return metrics

    return finalize
