"""Extractive question answering: the answer to a question is a part of a given context, or none.

A row is {'question', 'context'} with references, in any layout of `research/data/text/answers.py`. A request is
{'question', 'context'}; its answer is an exact part of the context with bounds in code points. A long context is read
in windows, whose spans compete by their raw scores.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath

from research.core.task import Host, Input, Metric, Task
from research.data.dataset import DataSet, open_dataset
from research.data.text import pieces
from research.data.text.answers import question_rows
from research.data.text.question_windows import MAX_CHARACTERS, TYPES, Plan, Windows, WindowSettings
from research.data.text.question_windows import make_buckets, plan_training
from research.data.text.sentences import best_sentence, rarities, sentences
from research.data.text.span_answers import make_decode, make_join
from research.errors import Count, PositiveInt, task_settings
from research.ops.answer_scores import Unit, answer_scores, best_threshold, mean_scores

MODELS = 'spans'  # builder module in research/models/


class Settings(NamedTuple):
    """Settings of `config.task`. Lengths are in tokens; published weights bring their own tokenizer."""

    vocabulary: PositiveInt = 20_000  # words: the most frequent are kept
    min_count: PositiveInt = 2  # minimum count in the training texts
    length: PositiveInt = 256  # of the model's input: question, window of the context, and marks
    question_length: PositiveInt = 48  # longer questions are cut
    stride: PositiveInt = 128  # from one window of a long context to the next
    buckets: tuple[int, ...] = ()  # shorter lengths to which rows are padded; each compiles once
    other_windows: bool = True  # train windows without the answer on "no answer"; False: leave them out
    longest_answer: PositiveInt = 30
    n_best: PositiveInt = 5  # number of answers in the output
    no_answer: bool = False  # an answer may be missing (SQuAD 2.0)
    threshold: float = 0.0  # with no_answer: how far its score must exceed that of the best span
    metric: Unit = 'words'  # 'characters' for Chinese: scores count characters instead of words
    score_count: Count = 0  # number of questions answered and scored; 0: all

    def check(self) -> 'Settings':
        """Validates the settings; raises `UserError` for impossible values."""
        self.windows.check()
        return self

    @property
    def windows(self) -> WindowSettings:
        """Sizes of windows."""
        return WindowSettings(self.length, self.question_length, self.stride, self.buckets)

    @property
    def none_margin(self) -> float | None:
        """The threshold, or None if every question has an answer."""
        return self.threshold if self.no_answer else None


def open_questions(config: Any) -> DataSet:
    """Opens the data set; all questions of a context stay in one split."""
    return open_dataset(config.data, ('question', 'context'), ignored=('question',))


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores the words of the training texts, or the tokenizer of the weights."""
    from research.models.text import store_text_weights

    settings, folder = task_settings(Settings, config), epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer := store_text_weights(config.model, folder):
        (folder / pieces.TOKENIZER).write_text(tokenizer.to_str(), encoding='utf-8')
        return
    rows = [(row['question'], row['context']) for row in question_rows(open_questions(config), 'train')]
    texts = [question for question, _ in rows] + list(dict.fromkeys(context for _, context in rows))
    pieces.prepare_words(texts, settings.vocabulary, settings.min_count, folder)


def read_windows(config: Any, settings: Settings, folder: epath.Path) -> Windows:
    """Builds the encoder from what `prepare` stored."""
    weights = config.model.get('weights', '')
    reader = pieces.read_pretrained(folder, weights) if weights else pieces.read_words(folder)
    return Windows(reader, settings.windows)


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    settings = task_settings(Settings, config)
    windows = read_windows(config, settings, folder)
    inputs = {
        'question': Input('text', limit=MAX_CHARACTERS, about=f'at most {settings.question_length} tokens are read'),
        'context': Input('text', limit=MAX_CHARACTERS, about='the text that contains the answer'),
    }
    join, decode = make_join(windows, settings.n_best), make_decode(settings.none_margin)
    buckets = make_buckets(settings.windows, windows.reader)
    return Host(inputs, windows.encode, decode, windows.split, join, buckets)


def plan_notes(counts: Mapping[str, int], settings: Settings) -> list[str]:
    """Describes what was split, left out and cut, as sentences."""
    fate = 'trained on "no answer"' if settings.other_windows else 'left out'
    notes = [
        f'{counts["questions"]:,} training questions give {counts["windows"]:,} windows of at most {settings.length} '
        f'tokens; {counts["without"]:,} windows do not contain the answer and are {fate}'
    ]
    if counts['cut']:
        notes.append(f'{counts["cut"]:,} questions are cut to {settings.question_length} tokens')
    if counts['moved']:
        notes.append(f'{counts["moved"]:,} questions have an answer that is not at its answer_start; the nearest is used')
    if counts['unanswerable'] and not settings.no_answer:
        notes.append(
            f'{counts["unanswerable"]:,} training questions have no answer, but config.task.no_answer is false: every '
            'question gets an answer'
        )
    return notes


def make_finalize(settings: Settings) -> Callable:
    """Builds the scores of whole questions: exact match and F1, 0 to 100."""

    def finalize(answers: Iterator[tuple[Mapping[str, Any], Any]]) -> dict[str, Metric]:
        rows = [(raw['question'], raw['context'], raw['answers'], answer) for raw, answer in answers]
        score = functools.partial(answer_scores, unit=settings.metric)
        rarity = rarities(context for _, context, _, _ in rows)
        split = [(question, sentences(context), gold) for question, context, gold, _ in rows]
        first = mean_scores([score(choices[0], gold) for _, choices, gold in split])
        best = mean_scores([score(best_sentence(asked, choices, rarity), gold) for asked, choices, gold in split])
        mean = mean_scores([score(answer['answer'], gold) for _, _, gold, answer in rows])
        about = f'percent, over {settings.metric}, maximum over references, mean over questions'
        other = 'the sentence that shares the rarest words with the question; the first sentence: '
        metrics = {
            'f1': Metric(mean.f1, best.f1, 'higher', about, f'{other}{first.f1:.1f}'),
            'exact': Metric(mean.exact, best.exact, 'higher', about, f'{other}{first.exact:.1f}'),
        }
        return {**metrics, **(swept(rows, score) if settings.no_answer else {})}

    return finalize


def swept(rows: list[tuple], score: Callable) -> dict[str, Metric]:
    """Scores of questions with and without an answer, and those of the best threshold."""
    answerable = [any(gold) for _, _, gold, _ in rows]
    margins = [answer['no_answer_score'] - answer['n_best'][0]['score'] for *_, answer in rows]
    spans = [score(answer['n_best'][0]['answer'], gold) for _, _, gold, answer in rows]
    given = [score(answer['answer'], gold) for _, _, gold, answer in rows]
    metrics = {}
    for name in ('f1', 'exact'):
        best = best_threshold(margins, [getattr(each, name) for each in spans], answerable)
        about = f'at the threshold with the best {name} on this split, {best.margin:.3g}'
        metrics[f'best_{name}'] = Metric(best.score, 100.0 * (1 - sum(answerable) / len(rows)), 'higher', about, 'no answer')
    for name, wanted in (('has_answer_f1', True), ('no_answer_f1', False)):
        chosen = [each.f1 for each, answered in zip(given, answerable, strict=True) if answered == wanted]
        metrics |= {name: Metric(sum(chosen) / len(chosen), about='of these questions alone')} if chosen else {}
    return metrics


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model` selects a convolution, a Transformer or published weights.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families.spans import span_prediction
    from research.models.spans import span_model

    settings, data = task_settings(Settings, config), open_questions(config)
    windows = read_windows(config, settings, folder)

    @functools.cache
    def plan() -> Plan:
        return plan_training(question_rows(data, 'train'), windows, settings.other_windows)

    @functools.cache
    def source(split: str) -> Any:
        return plan().rows if split == 'train' else question_rows(data, split)

    question = 1 + settings.question_length
    model = span_model(config.model, windows.reader.tokens.size, settings.length, question, TYPES, folder)
    more = {'buckets': make_buckets(settings.windows, windows.reader, lambda split: plan().lengths)}
    return span_prediction(
        host(config, folder)._replace(**more), source, model,
        longest=settings.longest_answer, count=settings.n_best, none_margin=settings.none_margin,
        finalize=make_finalize(settings), finalize_count=settings.score_count,
        notes=lambda: plan_notes(plan().counts, settings), describe=windows.describe,
    )  # fmt: skip
