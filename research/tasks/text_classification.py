"""Text classification and regression: one class, any number of labels, or a number, for a text or a pair of texts.

A row is {'text', 'label'}, with a second text 'pair' if `config.task.pair` is set. A request has no label.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from etils import epath

from research.core.task import Host, Input, Metric, Task
from research.data.dataset import DataSet, open_dataset
from research.data.labels import Kind, LabelFacts, collect, make_encode_label, read_labels, write_labels
from research.data.notes import cut_notes
from research.data.text.text_arrays import (
    TextArrays,
    TextSettings,
    prepare_ratios,
    prepare_texts,
    read_texts,
    read_tokenizer,
)
from research.data.text.tokens import Kind as TokenKind
from research.errors import Count, OpenFraction, PositiveInt, Range, Rate, UserError, task_settings
from research.ops import heads
from research.ops.heads import OutputHead
from research.ops.regression import spearman

MODELS = 'text'  # builder module in research/models/
MAX_CHARACTERS = 100_000  # of a request
TEXT_DEFAULTS = TextSettings()


class Settings(NamedTuple):
    """Settings of `config.task`: labels, preprocessing of text, and metrics."""

    labels: Kind = 'single'  # one class, any number of labels ('multi'), or a 'number'
    one_unit: bool = False  # binary classification with one sigmoid unit
    pair: bool = False  # rows have a second text
    # Preprocessing; with config.model.weights the tokenizer of the weights is used.
    tokens: TokenKind = TEXT_DEFAULTS.tokens
    clean: tuple[str, ...] = TEXT_DEFAULTS.clean
    segment: Literal['words', 'space', 'chinese'] = TEXT_DEFAULTS.segment
    stop_words: Literal['', 'english', 'chinese'] = TEXT_DEFAULTS.stop_words
    stemmer: str = TEXT_DEFAULTS.stemmer
    vocabulary: PositiveInt = TEXT_DEFAULTS.vocabulary  # size: the most frequent tokens or n-grams are kept
    min_count: PositiveInt = TEXT_DEFAULTS.min_count  # minimum count in the training texts
    length: Annotated[int, Range(4)] = TEXT_DEFAULTS.length  # tokens in the model's input
    cut: Literal['end', 'start', 'refuse'] = TEXT_DEFAULTS.cut  # which side of a longer text is cut
    padding: Literal['right', 'left'] = TEXT_DEFAULTS.padding
    label_separator: str = ','  # for labels='multi': separates the labels of a row
    label_smoothing: Rate = 0.0
    threshold: OpenFraction = 0.5  # for labels='multi': minimum probability of a predicted label
    top: Count = 0  # report top-k accuracy for this k; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """Validates the settings; raises `UserError` for impossible values."""
        if self.one_unit and self.labels != 'single':
            raise UserError(f"config.task.one_unit requires labels='single', got {self.labels!r}")
        return self

    @property
    def text(self) -> TextSettings:
        """Settings of the text preprocessing."""
        return TextSettings(*(getattr(self, name) for name in TextSettings._fields))


def open_texts(config: Any, settings: Settings) -> DataSet:
    """Opens the data set, with a second text per row if `pair` is set."""
    return open_dataset(config.data, ('text', 'pair', 'label') if settings.pair else ('text', 'label'))


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores the labels and the vocabulary of the training split; see `write_labels` and `prepare_texts`."""
    from research.models.text import store_text_weights

    settings, section = task_settings(Settings, config), config.model
    data = open_texts(config, settings)
    rows = data.source('train')
    labels = collect(rows, settings.labels, settings.label_separator, data.about)
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(labels, folder)
    prepare_texts(settings.text, section, rows, store_text_weights(section, folder), folder)
    if section.get('name') == 'ngrams' and section.get('naive_bayes'):
        one_hot = one_hot_labels(rows, settings, labels)
        prepare_ratios(read_texts(settings.text, section, folder), rows, one_hot, folder)


def one_hot_labels(rows: Sequence[Mapping[str, Any]], settings: Settings, labels: LabelFacts) -> np.ndarray:
    """Returns the labels of `rows` as multi-hot vectors, [rows, units]."""
    if labels.kind == 'number':
        raise UserError("config.model.naive_bayes requires classes, but config.task.labels is 'number'")
    encode_label = make_encode_label(labels, settings.label_separator)
    encoded = np.stack([encode_label(row['label']) for row in rows])
    one_hot = encoded if labels.kind == 'multi' else np.eye(len(labels.classes))[encoded]
    return one_hot[:, 1:] if settings.one_unit else one_hot


def text_of(raw: Mapping[str, Any], field: str) -> str:
    """Returns a text field of a row; raises `UserError` if it is missing or empty."""
    text = raw.get(field)
    if not isinstance(text, str):
        raise UserError(f'the request has no {field!r}' if text is None else f'{field!r} is {text!r:.40}, not a text')
    if not text.strip():
        raise UserError(f'{field!r} is empty')
    return text


def make_encode(settings: Settings, labels: LabelFacts, texts: TextArrays) -> Callable[..., dict[str, np.ndarray]]:
    """Builds `encode`: the arrays of the text, and the label if the row has one."""
    encode_label = make_encode_label(labels, settings.label_separator)

    def encode(raw, rng=None):
        del rng  # nothing is augmented
        example = texts.encode(text_of(raw, 'text'), text_of(raw, 'pair') if settings.pair else None)
        if raw.get('label') is not None:
            example['label'] = encode_label(raw['label'])
        return example

    return encode


def make_head(settings: Settings, labels: LabelFacts) -> OutputHead:
    """Builds the output head for the kind of labels."""
    if labels.kind == 'number':
        return heads.regression(labels.mean, labels.deviation)
    smoothing = settings.label_smoothing
    if labels.kind == 'multi':
        return heads.multi(labels.classes, labels.counts, labels.size, smoothing, settings.threshold)
    if settings.one_unit and len(labels.classes) != 2:
        raise UserError(f'config.task.one_unit requires two classes; the training split has {len(labels.classes)}')
    return heads.single(labels.classes, labels.counts, smoothing, settings.top, settings.one_unit)


def rank_correlation(answers: Any) -> dict[str, Metric]:
    """Spearman correlation of predictions and labels."""
    pairs = [(answer['value'], float(raw['label'])) for raw, answer in answers]
    return {'spearman': Metric(spearman(*zip(*pairs, strict=True)), about='rank correlation')}


def describe(read: Callable[[Any], str], labels: LabelFacts, row: Mapping[str, Any]) -> dict[str, str]:
    """Describes an encoded row: its tokens as the model reads them, and its label."""
    fields = {'tokens': read(row)}
    if 'label' in row:
        label = np.asarray(row['label'])
        numbers = np.flatnonzero(label) if label.ndim else [label]
        names = ', '.join(labels.classes[number] for number in numbers) if labels.classes else ''
        fields['label'] = names if labels.classes else f'{float(label):g}'
    return fields


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    settings, labels = task_settings(Settings, config), read_labels(folder)
    texts = read_texts(settings.text, config.model, folder)
    inputs = {'text': Input('text', limit=MAX_CHARACTERS, about=labels.about)}
    if settings.pair:
        inputs['pair'] = Input('text', limit=MAX_CHARACTERS, about='the second text')
    return Host(inputs, make_encode(settings, labels, texts), make_head(settings, labels).decode)


def publish(config: Any, folder: epath.Path, params: Any) -> Any:
    """Describes the trained model for `interop.publish.write_folder`."""
    from research.interop.publish import Published, two_logits
    from research.models.text import text_encoder

    settings, labels, section = task_settings(Settings, config), read_labels(folder), config.model
    if section.get('name') != 'transformer' or not section.get('weights'):
        raise UserError(
            'only text classifiers that start from pretrained weights (config.model.weights) have a tokenizer that a '
            'Hugging Face folder can hold'
        )
    if labels.kind == 'number':
        raise UserError("config.task.labels='number': only classifiers are written, not regressions")
    head = make_head(settings, labels)
    module, weights = text_encoder(section, head.units, settings.text, folder, labels.classes)
    if module.pool != 'pooler':
        raise UserError(
            f'config.model.pool={module.pool!r}: classifiers of the hub have a pooler; train with '
            "config.model.pool='pooler'"
        )
    params = {**params, 'head': two_logits(params['head'])} if settings.one_unit else params
    kinds = {'single': 'single_label_classification', 'multi': 'multi_label_classification'}
    return Published(
        'classifier', module.settings, params, weights, read_tokenizer(folder), length=settings.length,
        classes=labels.classes, config={'problem_type': kinds[labels.kind]},
    )  # fmt: skip


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model.name` selects the model.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families.supervised import supervised
    from research.models.text import text_model

    settings, labels = task_settings(Settings, config), read_labels(folder)
    head, texts = make_head(settings, labels), read_texts(settings.text, config.model, folder)
    source = open_texts(config, settings).source
    model = text_model(config.model, head.units, texts, folder, labels.classes)
    return supervised(
        host(config, folder), source, model, head, encode_once=True,
        notes=lambda: cut_notes(source('train'), texts.count, texts.room, 'tokens'),
        finalize=rank_correlation if labels.kind == 'number' else None,
        describe=functools.partial(describe, texts.read, labels) if texts.read else None,
    )  # fmt: skip
