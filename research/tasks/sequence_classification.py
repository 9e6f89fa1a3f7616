"""Classification of nucleotide sequences.

A row is {'sequence', 'label'}. A request is {'sequence'}. IUPAC ambiguity codes are supported.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from etils import epath

from research.core.task import Host, Input, Metric, Task
from research.data.dataset import DataSet, open_dataset
from research.data.labels import LabelFacts, collect, make_encode_label, read_labels, write_labels
from research.data.notes import cut_notes
from research.data.sequence import genes
from research.errors import Count, PositiveInt, Range, Rate, UserError, task_settings
from research.ops import heads
from research.ops.heads import OutputHead

MODELS = 'sequence'  # builder module in research/models/
MAX_CLASSES_WITH_OWN_ERROR = 12


class Settings(NamedTuple):
    """Settings of `config.task`."""

    length: PositiveInt = 60  # letters in the model's input
    kmer: Annotated[int, Range(0, 8)] = 0  # embed windows of this many letters; 0: one-hot letters
    cut: Literal['end', 'start', 'both', 'refuse'] = 'refuse'  # which side of a longer sequence is cut
    label_smoothing: Rate = 0.0
    top: Count = 0  # report top-k accuracy for this k; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """Validates the settings; raises `UserError` for impossible values."""
        if self.length < self.kmer:
            raise UserError(f'config.task.length must be at least kmer={self.kmer}, got {self.length}')
        return self


def open_sequences(config: Any) -> DataSet:
    """Opens the data set."""
    return open_dataset(config.data, ('sequence', 'label'))


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores the classes of the training split in 'labels.json'."""
    task_settings(Settings, config)
    data = open_sequences(config)
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(collect(data.source('train'), 'single', '', data.about), folder)


def fit_length(letters: str, settings: Settings) -> str:
    """Cuts a sequence to `length` letters; raises `UserError` for longer ones if `cut` is 'refuse'."""
    extra = len(letters) - settings.length
    if extra <= 0:
        return letters
    if settings.cut == 'refuse':
        raise UserError(
            f'the sequence has {len(letters):,} letters, the model reads {settings.length:,} (config.task.length): '
            "shorten it, or set config.task.cut to 'end', 'start' or 'both'"
        )
    start = {'end': 0, 'start': extra, 'both': extra // 2}[settings.cut]
    return letters[start : start + settings.length]


def make_encode(settings: Settings, labels: LabelFacts) -> Callable[..., dict[str, np.ndarray]]:
    """Builds `encode`: 'bases' float32 [length, 4] or 'kmers' int32 [length - k + 1], 'length', and the label."""
    encode_label = make_encode_label(labels, '')

    def encode(raw, rng=None):
        del rng  # nothing is augmented
        if not isinstance(raw.get('sequence'), str):
            raise UserError("the request has no 'sequence'")
        letters = fit_length(genes.clean(raw['sequence']), settings)
        if settings.kmer:
            kmers = genes.kmers(letters, settings.kmer)
            row = np.pad(kmers, (0, settings.length - settings.kmer + 1 - len(kmers)))
            example = {'kmers': row, 'length': np.int32(len(kmers))}
        else:
            row = np.pad(genes.one_hot(letters), ((0, settings.length - len(letters)), (0, 0)))
            example = {'bases': row, 'length': np.int32(len(letters))}
        if raw.get('label') is not None:
            example['label'] = encode_label(raw['label'])
        return example

    return encode


def make_head(settings: Settings, labels: LabelFacts) -> OutputHead:
    """Builds the output head: one class per example."""
    return heads.single(labels.classes, labels.counts, settings.label_smoothing, settings.top)


def class_errors(labels: LabelFacts, metrics: dict[str, Metric]) -> dict[str, Metric]:
    """Error rate of each class, if there are few classes."""
    if len(labels.classes) > MAX_CLASSES_WITH_OWN_ERROR:
        return {}
    return {
        f'error_{name}': Metric(1 - recall, None, 'lower', f'fraction of class {name} predicted as another class')
        for name, recall in zip(labels.classes, metrics['recall_per_class'].value, strict=True)
    }


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    settings, labels = task_settings(Settings, config), read_labels(folder)
    about = f'{labels.about}; {settings.length} letters, cut: {settings.cut}'
    inputs = {'sequence': Input('sequence', limit=100_000, about=about)}
    return Host(inputs, make_encode(settings, labels), make_head(settings, labels).decode)


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model.name` selects the model.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families.supervised import supervised
    from research.models.sequence import sequence_model

    settings, labels, served = task_settings(Settings, config), read_labels(folder), host(config, folder)
    head, source = make_head(settings, labels), open_sequences(config).source
    blank = {name: np.asarray(value)[None] for name, value in served.encode({'sequence': 'A'}).items()}
    kmers = genes.kmer_count(settings.kmer) if settings.kmer else 0
    model = sequence_model(config.model, head.units, kmers, settings.length, blank)
    errors = functools.partial(class_errors, labels)

    def notes():
        return cut_notes(source('train'), lambda raw: len(genes.clean(raw['sequence'])), settings.length, 'letters')

    return supervised(served, source, model, head, extra_metrics=errors, encode_once=True, notes=notes)
