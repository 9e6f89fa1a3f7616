"""What a text, or a pair of texts, is: one of several classes, any number of labels, or a number.

A row is {'text', perhaps 'pair', 'label'}; a request is {'text', perhaps 'pair'}.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from etils import epath

from research.core.task import Host, Input, Metric, Task
from research.data.dataset import DataSet, open_dataset
from research.data.labels import Kind, LabelFacts, collect, make_encode_label, read_labels, write_labels
from research.data.notes import cut_notes
from research.data.text.text_arrays import TextArrays, TextSettings, prepare_ratios, prepare_texts, read_texts
from research.data.text.tokens import Kind as TokenKind
from research.errors import UserError, task_settings
from research.ops import heads
from research.ops.heads import OutputHead
from research.ops.regression import spearman

MODELS = 'text'  # the module of research/models/ that builds them
LIMIT = 100_000  # characters of a request
TEXT = TextSettings()


class Settings(NamedTuple):
    """Settings of `config.task`: what is read, how, and what is predicted."""

    labels: Kind = 'single'  # one class, any number of labels ('multi'), or a 'number'
    one_unit: bool = False  # two classes from one sigmoid unit
    pair: bool = False  # a row has a second text
    # How a text becomes tokens; with config.model.weights they are those of the weights.
    tokens: TokenKind = TEXT.tokens
    clean: tuple[str, ...] = TEXT.clean
    segment: Literal['words', 'space', 'chinese'] = TEXT.segment
    stop_words: Literal['', 'english', 'chinese'] = TEXT.stop_words
    stemmer: str = TEXT.stemmer
    vocabulary: int = TEXT.vocabulary  # tokens (or n-grams) that are kept, the commonest
    min_count: int = TEXT.min_count  # times that one must occur in the training texts
    length: int = TEXT.length  # tokens that the model reads
    cut: Literal['end', 'start', 'refuse'] = TEXT.cut  # which end of a longer text is lost
    padding: Literal['right', 'left'] = TEXT.padding
    label_separator: str = ','  # between the labels of a row, for 'multi'
    label_smoothing: float = 0.0
    threshold: float = 0.5  # of probability, above which a label is given, for 'multi'
    top: int = 0  # also count labels among this many most probable classes; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """The settings; raises a `UserError` for impossible values."""
        self.text.check()
        heads.check_single(self.label_smoothing, self.top)
        if not 0 < self.threshold < 1:
            raise UserError(f'config.task: threshold must be between 0 and 1, got {self.threshold}')
        if self.one_unit and self.labels != 'single':
            raise UserError(f"config.task.one_unit is for labels='single', not {self.labels!r}")
        return self

    @property
    def text(self) -> TextSettings:
        """How a text becomes tokens."""
        return TextSettings(*(getattr(self, name) for name in TextSettings._fields))


def open_texts(config: Any, settings: Settings) -> DataSet:
    """The data set, whose rows have a second text where the task reads pairs."""
    return open_dataset(config.data, ('text', 'pair', 'label') if settings.pair else ('text', 'label'))


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores labels and vocabulary of the training split; see `write_labels` and `prepare_texts`."""
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
    """The labels of some rows, [rows, units]: 1 where a row is of the unit's class."""
    if labels.kind == 'number':
        raise UserError("config.model.naive_bayes needs classes, and config.task.labels is 'number'")
    encode_label = make_encode_label(labels, settings.label_separator)
    encoded = np.stack([encode_label(row['label']) for row in rows])
    one_hot = encoded if labels.kind == 'multi' else np.eye(len(labels.classes))[encoded]
    return one_hot[:, 1:] if settings.one_unit else one_hot


def text_of(raw: Mapping[str, Any], field: str) -> str:
    """A field of a row as text; a `UserError` where it is missing or empty."""
    text = raw.get(field)
    if not isinstance(text, str):
        raise UserError(f'the request has no {field!r}' if text is None else f'{field!r} is {text!r:.40}, not a text')
    if not text.strip():
        raise UserError(f'{field!r} is empty: there is nothing to classify')
    return text


def make_encode(settings: Settings, labels: LabelFacts, texts: TextArrays) -> Callable[..., dict[str, np.ndarray]]:
    """`encode`: the arrays of the text, and the label where there is one."""
    encode_label = make_encode_label(labels, settings.label_separator)

    def encode(raw, rng=None):
        del rng  # nothing is augmented
        example = texts.encode(text_of(raw, 'text'), text_of(raw, 'pair') if settings.pair else None)
        if raw.get('label') is not None:
            example['label'] = encode_label(raw['label'])
        return example

    return encode


def make_head(settings: Settings, labels: LabelFacts) -> OutputHead:
    """The output head: one class, any number of labels, or a number."""
    if labels.kind == 'number':
        return heads.regression(labels.mean, labels.deviation)
    smoothing = settings.label_smoothing
    if labels.kind == 'multi':
        return heads.multi(labels.classes, labels.counts, labels.size, smoothing, settings.threshold)
    if settings.one_unit and len(labels.classes) != 2:
        raise UserError(f'config.task.one_unit needs two classes, the training split has {len(labels.classes)}')
    return heads.single(labels.classes, labels.counts, smoothing, settings.top, settings.one_unit)


def rank_correlation(answers: Any) -> dict[str, Metric]:
    """Spearman's correlation of answers and labels."""
    pairs = [(answer['value'], float(raw['label'])) for raw, answer in answers]
    return {'spearman': Metric(spearman(*zip(*pairs, strict=True)), about='correlation of the ranks')}


def describe(read: Callable[[Any], str], labels: LabelFacts, row: Mapping[str, Any]) -> dict[str, str]:
    """An encoded row as a person reads it: the tokens that the model sees, and the label."""
    fields = {'tokens': read(row)}
    if 'label' in row:
        label = np.asarray(row['label'])
        numbers = np.flatnonzero(label) if label.ndim else [label]
        names = ', '.join(labels.classes[number] for number in numbers) if labels.classes else ''
        fields['label'] = names if labels.classes else f'{float(label):g}'
    return fields


def host(config: Any, folder: epath.Path) -> Host:
    """What answers requests on the host."""
    settings, labels = task_settings(Settings, config), read_labels(folder)
    texts = read_texts(settings.text, config.model, folder)
    inputs = {'text': Input('text', limit=LIMIT, about=labels.about)}
    if settings.pair:
        inputs['pair'] = Input('text', limit=LIMIT, about='the second text')
    return Host(inputs, make_encode(settings, labels, texts), make_head(settings, labels).decode)


def make(config: Any, folder: epath.Path) -> Task:
    """The task; its model is `config.model.name`.

    Raises:
      UserError: for an unknown setting or an impossible value.
    """
    from research.families.supervised import supervised
    from research.models.text import text_model

    settings, labels = task_settings(Settings, config), read_labels(folder)
    head, texts = make_head(settings, labels), read_texts(settings.text, config.model, folder)
    source = open_texts(config, settings).source
    classes = labels.classes if labels.kind == 'single' else ()
    model = text_model(config.model, head.units, texts, folder, classes)
    return supervised(
        host(config, folder), source, model, head, encode_once=True,
        notes=lambda: cut_notes(source('train'), texts.count, texts.room, 'tokens'),
        finalize=rank_correlation if labels.kind == 'number' else None,
        describe=functools.partial(describe, texts.read, labels) if texts.read else None,
    )  # fmt: skip
