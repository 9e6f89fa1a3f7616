"""Which of several classes a sequence of nucleotides belongs to.

A row is {'sequence', 'label'}; a request is {'sequence'}. Letters that stand for several bases (IUPAC) are read.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath

from research.core.task import Aux, Input, Metric, Task, Variables
from research.data.cache import encoded_once
from research.data.dataset import open_dataset
from research.data.labels import LabelFacts, collect, make_encode_label, read_labels, write_labels
from research.data.notes import cut_notes
from research.data.sequence import genes
from research.errors import UserError, choose, task_settings, unpack
from research.nn.apply import initialize, run
from research.nn.sequence_models import SequenceConvolution
from research.nn.text_transformer import TextTransformer
from research.nn.transformer_settings import TransformerSettings
from research.ops import targets
from research.ops.targets import Target

NAMED = 12  # most classes whose errors are metrics of their own


class Settings(NamedTuple):
    """Settings of `config.task`."""

    length: int = 60  # letters that the model reads
    kmer: int = 0  # windows of so many letters are looked up; 0: one-hot letters
    cut: Literal['end', 'start', 'both', 'refuse'] = 'refuse'  # where a longer sequence loses letters
    label_smoothing: float = 0.0
    top: int = 0  # also count labels among so many most probable classes; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """Returns the settings; raises a `UserError` for impossible values."""
        if not 0 <= self.kmer <= 8 or self.length < max(self.kmer, 1) or self.top < 0:
            raise UserError(
                'config.task: kmer must be 0 to 8, length at least kmer and top zero or more, '
                f'got {self.kmer}, {self.length} and {self.top}'
            )
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f'config.task.label_smoothing must be in 0 to 1, got {self.label_smoothing}')
        return self


class Transformed(NamedTuple):
    """Settings of `config.model` for a Transformer beside those of its shape."""

    pool: Literal['max', 'mean'] = 'mean'
    head_dropout: float = 0.1


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores the classes of the training split in 'labels.json'."""
    task_settings(Settings, config)
    data = open_dataset(config.data, ('sequence', 'label'))
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(collect(data.source('train'), 'single', '', data.about), folder)


def fitted(letters: str, settings: Settings) -> str:
    """Returns at most `length` letters; a `UserError` for more, where none may be cut off."""
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


def make_encode(settings: Settings, facts: LabelFacts) -> Callable[..., dict[str, np.ndarray]]:
    """Returns `encode`: 'bases' float32 [length, 4] or 'kmers' int32 [length - k + 1], 'length', and the label."""
    encode_label = make_encode_label(facts, '')

    def encode(raw, rng=None):
        del rng  # nothing is augmented
        if not isinstance(raw.get('sequence'), str):
            raise UserError("the request has no 'sequence'")
        letters = fitted(genes.clean(raw['sequence']), settings)
        if settings.kmer:
            found = genes.kmers(letters, settings.kmer)
            row = np.pad(found, (0, settings.length - settings.kmer + 1 - len(found)))
            example = {'kmers': row, 'length': np.int32(len(found))}
        else:
            row = np.pad(genes.one_hot(letters), ((0, settings.length - len(letters)), (0, 0)))
            example = {'bases': row, 'length': np.int32(len(letters))}
        if raw.get('label') is not None:
            example['label'] = encode_label(raw['label'])
        return example

    return encode


def make_module(config: Any, settings: Settings, units: int) -> tuple[Any, Callable[[Any], tuple]]:
    """Returns the module and the function from a batch to its inputs."""
    name, kmer = config.model.get('name', ''), settings.kmer
    choose(name, {'convolution': 0, 'transformer': 0}, 'config.model.name')
    section = {key: value for key, value in config.model.items() if key != 'name'}
    size = genes.kmer_count(kmer) if kmer else 0

    def inputs(batch):
        return batch['kmers' if kmer else 'bases'], batch['length']

    if name == 'convolution':
        return unpack(SequenceConvolution, section, 'model', units=units, vocabulary=size), inputs
    if not kmer:
        raise UserError('config.task.kmer=0: a Transformer reads k-mers; 1 stands for single letters')
    own = {key: section.pop(key) for key in Transformed._fields if key in section}
    shape = unpack(TransformerSettings, section, 'model', vocabulary=size, length=settings.length, causal=False)
    module = TextTransformer(shape, units, *unpack(Transformed, own, 'model'))
    return module, lambda batch: (*inputs(batch), jnp.zeros_like(batch['kmers']))


def with_errors(metrics: dict[str, Metric], facts: LabelFacts) -> dict[str, Metric]:
    """Returns the metrics and, where there are few classes, the share of each that is called another."""
    if len(facts.classes) > NAMED:
        return metrics
    for number, name in enumerate(facts.classes):
        error = 1 - metrics['recall_per_class'].value[number]
        metrics[f'error_{name}'] = Metric(error, None, 'lower', f'share of class {name} that is called another')
    return metrics


def make(config: Any, folder: epath.Path) -> Task:
    """Returns the task; its model is `config.model.name`.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    settings, data = task_settings(Settings, config), open_dataset(config.data, ('sequence', 'label'))
    facts = read_labels(folder)
    target: Target = targets.single(facts.classes, facts.counts, settings.label_smoothing, settings.top)
    module, inputs = make_module(config, settings, target.units)
    encode = make_encode(settings, facts)
    blank = {name: jnp.asarray(value)[None] for name, value in encode({'sequence': 'A'}).items()}

    def init(key):
        return Variables({'model': initialize(module, key, *inputs(blank))[0]}, {})

    def scores(variables, batch, context):
        key = context.fold('dropout')
        return run(module, variables.params['model'], {}, *inputs(batch), train=context.train, key=key)[0]

    def loss(variables, batch, context):
        found, mask = scores(variables, batch, context), batch['mask']
        aux = Aux(jnp.sum(mask), logs=target.logs(found, batch['label'], mask), outputs={'logits': found})
        return jnp.sum(target.values(found, batch['label']) * mask), aux

    def predict(variables, batch, context):
        return target.answer(scores(variables, batch, context._replace(train=False)))

    def metric_sums(variables, batch, context):
        found = scores(variables, batch, context._replace(train=False))
        return target.sums(found, batch['label'], batch['mask'])

    def metrics(sums):
        return with_errors({name: Metric(*each) for name, each in target.metrics(sums).items()}, facts)

    def notes():
        return cut_notes(source('train'), lambda raw: len(genes.clean(raw['sequence'])), settings.length, 'letters')

    about = f'{facts.about}; {settings.length} letters, cut: {settings.cut}'
    source, encode = encoded_once(data.source, encode)
    return Task(
        inputs={'sequence': Input('text', limit=100_000, about=about)},
        source=source,
        encode=encode,
        init=init,
        losses={'model': loss},
        predict=predict,
        metric_sums=metric_sums,
        metrics=metrics,
        decode=target.decode,
        notes=notes,
    )
