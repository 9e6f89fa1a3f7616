"""Extractive question answering: the answer to a question is a part of a given context, or none.

A row is {'question', 'context'} with references, in any layout of `research/data/text/answers.py`. A request is
{'question', 'context'}; its answer is an exact part of the context with bounds in code points. A long context is read
in windows, whose spans compete by their raw scores.
"""

import functools
from typing import Any, NamedTuple

from etils import epath

from research.core.task import Host, Input, Task
from research.data.dataset import DataSet, open_dataset
from research.data.text import pieces
from research.data.text.answers import question_rows
from research.data.text.question_windows import (
    MAX_CHARACTERS,
    TYPES,
    Plan,
    Windows,
    WindowSettings,
    make_buckets,
    plan_notes,
    plan_training,
)
from research.data.text.span_answers import make_decode, make_join
from research.errors import Count, Finite, PositiveInt, task_settings
from research.ops.answer_scores import Unit

MODELS = 'spans'  # builder module in research/models/


class Settings(NamedTuple):
    """Settings of `config.task`. Lengths are in tokens; published weights bring their own tokenizer."""

    vocabulary: PositiveInt = 20_000  # words: the most frequent are kept
    min_count: PositiveInt = 2  # minimum count in the training texts
    length: PositiveInt = 256  # of the model's input: question, window of the context, and marks
    question_length: PositiveInt = 48  # longer questions are cut
    stride: PositiveInt = 128  # from one window of a long context to the next
    buckets: tuple[PositiveInt, ...] = ()  # shorter lengths to which rows are padded; each compiles once
    other_windows: bool = True  # train windows without the answer on "no answer"; False: leave them out
    longest_answer: PositiveInt = 30
    n_best: PositiveInt = 5  # number of answers in the output
    no_answer: bool = False  # an answer may be missing (SQuAD 2.0)
    threshold: Finite = 0.0  # with no_answer: how far its score must exceed that of the best span
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


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model` selects a convolution, a Transformer or published weights.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families.answers import score_answers
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
        finalize=score_answers(settings.metric, settings.no_answer), finalize_count=settings.score_count,
        notes=lambda: plan_notes(plan().counts, settings.windows, settings.other_windows, settings.no_answer),
        describe=windows.describe,
    )  # fmt: skip
