"""Which of several kinds of sounds a recording holds.

A row is {'audio', 'rate', 'label'}; a request is {'audio'}: the bytes of a WAV or FLAC file, or samples beside their
'rate'. Spectrograms and augmentation are made on the device, inside the model and its loss.
"""

import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from research.core.task import Aux, Input, Metric, Task, Variables
from research.data.audio import sounds
from research.data.dataset import open_dataset
from research.data.image import images
from research.data.labels import LabelFacts, collect, make_encode_label, read_labels, write_labels
from research.errors import UserError, choose, task_settings, unpack
from research.nn.apply import initialize, run
from research.nn.audio import SoundConvolution, SoundTransformer, patches_of
from research.nn.resnet import ResNet
from research.nn.transformer_settings import TransformerSettings
from research.ops import audio, mixing, sound_augmentation, targets
from research.ops.audio import Mel
from research.ops.sound_augmentation import Augmentation

ROWS = 32  # sounds whose spectrograms are made at a time while statistics are taken
LARGEST = 2**32  # of the numbers that augmentation is drawn from


class Settings(NamedTuple):
    """Settings of `config.task`; times are seconds where nothing else is said."""

    sample_rate: int = 16000  # samples a second; a sound of another rate is resampled
    seconds: float = 1.0  # that the model hears
    place: Literal['middle', 'start'] = 'middle'  # what is heard of a longer sound, and where a shorter one lies
    random_crop: bool = False  # training hears any part of a longer sound
    window: float = 25.0  # milliseconds of a frame
    hop: float = 10.0  # milliseconds from frame to frame
    mels: int = 40  # bands
    low: float = 0.0  # Hz, where the first band begins
    high: float = 0.0  # Hz, where the last ends; 0: half of sample_rate
    scale: Literal['slaney', 'htk'] = 'slaney'
    floor: float = 1e-10  # the least power in a band, of samples in [-1, 1]
    deltas: bool = False  # also the slope of each band over time, as a second channel
    shift: float = 0.0  # training moves a sound by up to so much
    gain: float = 0.0  # training makes it louder or softer by up to so many decibels
    noise: float = 0.0  # training adds white noise of up to this share of its root mean square
    time_masks: int = 0  # SpecAugment: so many stretches of time are hidden,
    time_mask: int = 0  # each of up to so many frames,
    band_masks: int = 0  # and so many of bands,
    band_mask: int = 0  # each of up to so many
    mixup: float = 0.0  # training mixes up to this share of another sound, and of its label, into each
    label_smoothing: float = 0.0
    top: int = 0  # also count labels among so many most probable classes; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """Returns the settings; raises a `UserError` for impossible values."""
        if not sounds.RATES[0] <= self.sample_rate <= sounds.RATES[1] or not 0 < self.seconds <= sounds.LONGEST:
            raise UserError(
                f'config.task: sample_rate must be {sounds.RATES[0]:,} to {sounds.RATES[1]:,} and seconds above 0, at '
                f'most {sounds.LONGEST}; got {self.sample_rate:,} and {self.seconds:g}'
            )
        self.mel.check()
        if self.samples < self.mel.window_samples:
            raise UserError(f'config.task.seconds={self.seconds:g} is less than one window of {self.window:g} ms')
        self.augmentation.check(self.mel.frames(self.samples), self.mels)
        if not 0 <= self.label_smoothing < 1 or self.top < 0 or not 0 <= self.mixup <= 0.5:
            raise UserError(
                'config.task: label_smoothing must be in 0 to 1, mixup in 0 to 0.5 and top zero or more, got '
                f'{self.label_smoothing}, {self.mixup} and {self.top}'
            )
        return self

    @property
    def samples(self) -> int:
        """Samples that the model hears."""
        return round(self.seconds * self.sample_rate)

    @property
    def mel(self) -> Mel:
        """How samples become mel bands."""
        return Mel(
            self.sample_rate, self.window, self.hop, self.mels, self.low, self.high, self.scale, floor=self.floor
        )

    @property
    def augmentation(self) -> Augmentation:
        """What training does to a sound."""
        shift = round(self.shift * self.sample_rate)
        return Augmentation(shift, *(getattr(self, name) for name in Augmentation._fields[1:]))


class Transformed(NamedTuple):
    """Settings of `config.model` for a Transformer beside those of its shape."""

    patch: int = 8


def source_of(config: Any, settings: Settings) -> Callable[[str], sounds.SoundRows]:
    """Returns the rows of a split, their sounds resampled once."""
    data = open_dataset(config.data, ('audio', 'label'))
    return sounds.sound_rows(data.source, settings.sample_rate, settings.mel.window_samples)


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores the classes of the training split, and mean and deviation of each band of its spectrograms."""
    settings, about = task_settings(Settings, config), open_dataset(config.data, ('audio', 'label')).about
    rows = source_of(config, settings)('train')
    facts = collect(rows, 'single', '', about)
    sums = np.zeros((2, settings.mels))
    spectrogram = jax.jit(audio.log_mel, static_argnums=1)
    for start in range(0, len(rows), ROWS):
        some = [heard(rows[number].prepared(), settings) for number in range(start, min(start + ROWS, len(rows)))]
        blank = [np.zeros(settings.samples, np.float32)] * (ROWS - len(some))  # one shape, one compilation
        values = np.asarray(spectrogram(np.stack(some + blank), settings.mel), np.float64)[: len(some)]
        sums += values.sum((0, 1)), (values**2).sum((0, 1))
    mean, square = sums / (len(rows) * settings.mel.frames(settings.samples))
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(facts, folder)
    deviation = np.sqrt(np.maximum(square - mean**2, 1e-8))
    (folder / 'bands.json').write_text(json.dumps({'mean': mean.tolist(), 'deviation': deviation.tolist()}))


def heard(sound: np.ndarray, settings: Settings, rng: Any = None) -> np.ndarray:
    """Returns the part of a sound that the model hears."""
    place = {'middle': 0.5, 'start': 0.0}[settings.place]
    if rng is not None and settings.random_crop and len(sound) > settings.samples:
        place = rng.random()
    return sounds.fit(sound, settings.samples, place)


def make_encode(settings: Settings, facts: LabelFacts) -> Callable[..., dict[str, np.ndarray]]:
    """Returns `encode`: 'audio' float32 [samples], the number that augmentation is drawn from, and the label."""
    encode_label = make_encode_label(facts, '')

    def encode(raw, rng=None):
        sound = sounds.prepared(raw, settings.sample_rate, settings.mel.window_samples)
        label = raw.get('label')
        example = {'audio': heard(sound, settings, rng)}
        example['draw'] = np.uint32(0 if rng is None else rng.integers(LARGEST))
        if label is not None:
            example['label'] = encode_label(label)
        return example

    return encode


def make_module(config: Any, settings: Settings, classes: int) -> Any:
    """Returns the model that `config.model` names."""
    section = {key: value for key, value in config.model.items() if key != 'name'}
    pictures = {'convnet': SoundConvolution, 'resnet': ResNet}
    name = config.model.get('name', '')
    choose(name, {**pictures, 'transformer': SoundTransformer}, 'config.model.name')
    if name in pictures:
        return unpack(pictures[name], section, 'model', classes=classes)
    own = unpack(Transformed, {key: section.pop(key) for key in Transformed._fields if key in section}, 'model')
    length = patches_of(settings.mels, settings.mel.frames(settings.samples), own.patch) + 1
    shape = unpack(TransformerSettings, section, 'model', vocabulary=1, length=length, causal=False)
    return SoundTransformer(shape, own.patch, classes)


def make_features(settings: Settings, mean: np.ndarray, deviation: np.ndarray) -> Callable[..., Any]:
    """Returns (batch, train) -> normalised spectrograms [batch, bands, frames, channels], augmented in training."""
    changes, mel = settings.augmentation, settings.mel

    def features(batch, train):
        samples = batch['audio']
        if train:
            samples = sound_augmentation.augment_samples(samples, batch['draw'], changes)
        bands = (audio.log_mel(samples, mel) - mean) / deviation
        channels = [bands, audio.deltas(bands)] if settings.deltas else [bands]
        spectrogram = jnp.stack(channels, axis=-1)
        if train:
            spectrogram = sound_augmentation.augment_spectrogram(spectrogram, batch['draw'], changes)
        return jnp.swapaxes(spectrogram, 1, 2)

    return features


def make_render(spectrogram: Callable, facts: LabelFacts) -> Callable[..., dict[str, np.ndarray]]:
    """Returns `render`: spectrograms with what they were called, wrong ones first in a red frame."""

    def render(batch, outputs):
        mask = np.asarray(batch.get('mask', np.ones(len(batch['audio']))))
        said = np.asarray(outputs['logits']).argmax(-1)
        true = np.asarray(batch.get('label', said))
        bands = np.asarray(spectrogram(np.asarray(batch['audio'])))[..., 0]

        def picture(row):
            return sounds.picture(bands[row].T)

        return {'right_and_wrong': images.right_and_wrong(picture, said, true, mask, facts.classes)}

    return render


def make_loss(scores: Callable, features: Callable, target: Any, settings: Settings) -> Callable[..., Any]:
    """Returns the loss of the group 'model': (variables, batch, context) -> (sum over the batch, `Aux`)."""

    def loss(variables, batch, context):
        spectrogram, mask, label = features(batch, context.train), batch['mask'], batch['label']
        if settings.mixup and context.train:
            share = sound_augmentation.shares(batch['draw'], settings.mixup)
            partner = mixing.partners(mask)
            mixed = sound_augmentation.mix(spectrogram, partner, share)
            found, collections = scores(variables, mixed, context)
            values = share * target.values(found, label) + (1 - share) * target.values(found, label[partner])
        else:
            found, collections = scores(variables, spectrogram, context)
            values = target.values(found, label)
        extra = {'model': collections} if collections else {}
        aux = Aux(jnp.sum(mask), extra, target.logs(found, label, mask), {'logits': found})
        return jnp.sum(values * mask), aux

    return loss


def make(config: Any, folder: epath.Path) -> Task:
    """Returns the task; its model is `config.model.name`, its data set `config.data.name`.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    settings, facts = task_settings(Settings, config), read_labels(folder)
    bands = json.loads((folder / 'bands.json').read_text())
    features = make_features(settings, np.float32(bands['mean']), np.float32(bands['deviation']))
    target = targets.single(facts.classes, facts.counts, settings.label_smoothing, settings.top)
    module, encode = make_module(config, settings, target.units), make_encode(settings, facts)
    shape = (1, settings.mels, settings.mel.frames(settings.samples), 1 + settings.deltas)

    def init(key):
        params, collections = initialize(module, key, jnp.zeros(shape))
        return Variables({'model': params}, {'model': collections} if collections else {})

    def scores(variables, spectrogram, context):
        params, collections = variables.params['model'], variables.extra.get('model', {})
        return run(module, params, collections, spectrogram, train=context.train, key=context.fold('dropout'))

    def evaluated(variables, batch, context):
        return scores(variables, features(batch, False), context._replace(train=False))[0]

    def predict(variables, batch, context):
        return target.answer(evaluated(variables, batch, context))

    def metric_sums(variables, batch, context):
        return target.sums(evaluated(variables, batch, context), batch['label'], batch['mask'])

    def metrics(sums):
        return {name: Metric(*each) for name, each in target.metrics(sums).items()}

    def spectrogram(samples):
        return features({'audio': samples}, False)

    heard_about = f'{settings.seconds:g} s at {settings.sample_rate:,} Hz are heard'
    about = f"{facts.about}; {heard_about}; the bytes of a file, or samples beside their 'rate'"
    return Task(
        inputs={
            'audio': Input('audio', (settings.samples,), sounds.LONGEST * settings.sample_rate, about),
            'rate': Input('number', about='samples a second, where audio is samples; a file says it itself'),
        },
        source=source_of(config, settings),
        encode=encode,
        init=init,
        losses={'model': make_loss(scores, features, target, settings)},
        couples_rows='config.task.mixup' if settings.mixup else '',
        predict=predict,
        metric_sums=metric_sums,
        metrics=metrics,
        decode=target.decode,
        render=make_render(jax.jit(spectrogram), facts),
    )
