"""`finalize` of tasks that answer questions from a text, beside baselines without learning."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from research.core.task import Metric
from research.data.text.sentences import best_sentence, rarities, sentences
from research.ops.answer_scores import Scores, Unit, answer_scores, best_threshold, mean_scores

LEXICAL = 'the sentence that shares the rarest words with the question'
Answers = Iterator[tuple[Mapping[str, Any], Any]]


def score_answers(unit: Unit, no_answer: bool) -> Callable[[Answers], dict[str, Metric]]:
    """Builds `finalize`: exact match and F1 of whole questions, 0 to 100.

    Args:
      unit: what scores compare, words or characters.
      no_answer: whether answers may be missing; adds scores by kind of question, and those of the best threshold.
    """
    score = functools.partial(answer_scores, unit=unit)

    def finalize(answers: Answers) -> dict[str, Metric]:
        rows = [(raw['question'], raw['context'], raw['answers'], answer) for raw, answer in answers]
        golds, given = [row[2] for row in rows], [row[3] for row in rows]
        scores = [score(answer['answer'], gold) for answer, gold in zip(given, golds, strict=True)]
        metrics = beside_sentences(rows, scores, score, unit)
        return metrics | (with_thresholds(given, golds, scores, score) if no_answer else {})

    return finalize


def beside_sentences(
    rows: Sequence[tuple], scores: Sequence[Scores], score: Callable[..., Scores], unit: str
) -> dict[str, Metric]:
    """Mean scores, with the best and the first sentence of each context as baselines."""
    rarity = rarities(context for _, context, *_ in rows)
    choices = [(asked, sentences(context), gold) for asked, context, gold, _ in rows]
    mean = mean_scores(scores)
    first = mean_scores([score(parts[0], gold) for _, parts, gold in choices])
    best = mean_scores([score(best_sentence(asked, parts, rarity), gold) for asked, parts, gold in choices])
    metrics = {}
    for name in ('f1', 'exact'):
        about = (
            f'percent, over {unit}, maximum over references, mean over questions; the first sentence as the answer: '
            f'{getattr(first, name):.1f}'
        )
        metrics[name] = Metric(getattr(mean, name), getattr(best, name), 'higher', about, LEXICAL)
    return metrics


def with_thresholds(
    given: Sequence[Mapping[str, Any]],
    golds: Sequence[Sequence[str]],
    scores: Sequence[Scores],
    score: Callable[..., Scores],
) -> dict[str, Metric]:
    """Scores of questions with and without an answer, and those of the best threshold on this split."""
    answerable = [any(gold) for gold in golds]
    margins = [answer['no_answer_score'] - answer['n_best'][0]['score'] for answer in given]
    spans = [score(answer['n_best'][0]['answer'], gold) for answer, gold in zip(given, golds, strict=True)]
    unanswerable = 100.0 * (1 - sum(answerable) / len(golds))
    metrics = {}
    for name in ('f1', 'exact'):
        best = best_threshold(margins, [getattr(span, name) for span in spans], answerable)
        about = f'{name} at the best config.task.threshold for this split, {best.margin:.3g}'
        metrics[f'best_{name}'] = Metric(best.score, unanswerable, 'higher', about, 'no answer')
    for name, wanted in (('has_answer_f1', True), ('no_answer_f1', False)):
        chosen = [value.f1 for value, has in zip(scores, answerable, strict=True) if has == wanted]
        if chosen:
            metrics[name] = Metric(sum(chosen) / len(chosen), about='f1 of these questions alone')
    return metrics
