"""Audio classification: one class per recording, from its log-mel spectrogram.

A row is {'audio', 'rate', 'label'}. A request is {'audio'}: the bytes of a WAV or FLAC file, or samples and 'rate'.
"""

import functools
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
from etils import epath

from research.core.task import Host, Input, Task
from research.data.audio import sounds
from research.data.dataset import DataSet, open_dataset
from research.data.image import images
from research.data.labels import LabelFacts, collect, make_encode_label, read_labels, write_labels
from research.data.notes import cut_notes
from research.errors import Count, NonNegative, Positive, PositiveInt, Range, Rate, SettingError, task_settings
from research.ops import heads
from research.ops.audio import Mel
from research.ops.heads import OutputHead
from research.ops.sound_augmentation import Augmentation
from research.ops.spectrograms import Spectrograms, band_moments, spectrograms, with_spectrograms

MODELS = 'audio'  # builder module in research/models/
LENGTH_FILE = 'length.json'  # in prepared/: the seconds of the model's input, with config.task.seconds=0
LENGTH_LIMITS = (0.5, 30.0)  # of that length in seconds; the networks need some frames, and memory is finite
DRAWS = 2**32  # exclusive upper bound of the random number that seeds a row's augmentation


class Settings(NamedTuple):
    """Settings of `config.task`. Times are in seconds unless stated otherwise."""

    sample_rate: Annotated[int, Range(*sounds.RATE_LIMITS)] = 16000  # Hz; sounds of another rate are resampled
    seconds: Annotated[float, Range(0, sounds.MAX_SECONDS)] = 1.0  # length of the model's input; 0: from the data
    crop: Literal['middle', 'start'] = 'middle'  # where longer sounds are cropped and shorter ones placed
    random_crop: bool = False  # in training, crop longer sounds at random
    window: Positive = 25.0  # length of a frame, milliseconds
    hop: Positive = 10.0  # step between frames, milliseconds
    mels: PositiveInt = 40  # mel bands
    fmin: NonNegative = 0.0  # Hz, lower edge of the first band
    fmax: NonNegative = 0.0  # Hz, upper edge of the last band; 0: half of sample_rate
    scale: Literal['slaney', 'htk'] = 'slaney'
    power_floor: Positive = 1e-10  # minimum power in a band, for samples in [-1, 1]
    deltas: bool = False  # add the slope of each band over time as a second channel
    shift: NonNegative = 0.0  # training: shift in time by up to this much
    gain: NonNegative = 0.0  # training: change the gain by up to this many decibels, either way
    noise: NonNegative = 0.0  # training: add white noise of up to this fraction of the signal's RMS
    time_masks: Count = 0  # SpecAugment: number of time masks,
    time_mask: Count = 0  # maximum frames of each,
    band_masks: Count = 0  # number of band masks,
    band_mask: Count = 0  # maximum bands of each
    mixup: Annotated[float, Range(0, 0.5)] = 0.0  # training: mix in up to this fraction of another sound and its label
    label_smoothing: Rate = 0.0
    top: Count = 0  # report top-k accuracy for this k; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """Raises `SettingError` for settings that do not fit together."""
        self.mel.check()
        if not self.seconds:  # checked by `read_settings`
            return self
        if self.samples < self.mel.window_samples:
            raise SettingError(f'seconds={self.seconds:g}', f'is less than one window of {self.window:g} ms')
        self.augmentation.check(self.mel.frames(self.samples), self.mels)
        return self

    @property
    def samples(self) -> int:
        """Length of the model's input in samples."""
        return round(self.seconds * self.sample_rate)

    @property
    def mel(self) -> Mel:
        """Settings of the mel filter bank."""
        sizes = self.sample_rate, self.window, self.hop, self.mels
        return Mel(*sizes, self.fmin, self.fmax, self.scale, power_floor=self.power_floor)

    @property
    def augmentation(self) -> Augmentation:
        """Augmentation of training sounds."""
        shift = round(self.shift * self.sample_rate)
        return Augmentation(shift, *(getattr(self, name) for name in Augmentation._fields[1:]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, frames and channels of a spectrogram."""
        return self.mels, self.mel.frames(self.samples), 1 + self.deltas

    def spectrograms(self, mean: np.ndarray, deviation: np.ndarray) -> Spectrograms:
        """Settings of the spectrograms, standardized by the moments of the training split."""
        return Spectrograms(self.mel, mean, deviation, self.deltas, self.augmentation, self.mixup)


def open_sounds(config: Any) -> DataSet:
    """Opens the data set."""
    return open_dataset(config.data, ('audio', 'label'))


def source_of(data: DataSet, settings: Settings) -> Callable[[str], sounds.SoundRows]:
    """Returns (split) -> rows whose sounds are resampled once."""
    return sounds.sound_rows(data.source, settings.sample_rate, settings.mel.window_samples)


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores the classes of the training split, and mean and standard deviation of each spectrogram band.

    With config.task.seconds=0, also the length of the model's input.
    """
    settings, data = task_settings(Settings, config), open_sounds(config)
    rows = source_of(data, settings)('train')
    labels = collect(rows, 'single', '', data.about)
    folder.mkdir(parents=True, exist_ok=True)
    if not settings.seconds:
        (folder / LENGTH_FILE).write_text(json.dumps({'seconds': typical_seconds(rows, settings.sample_rate)}))
        settings = read_settings(config, folder)
    training = (excerpt(rows[number].prepared(), settings) for number in range(len(rows)))
    mean, deviation = band_moments(training, settings.mel)
    write_labels(labels, folder)
    (folder / 'bands.json').write_text(json.dumps({'mean': mean.tolist(), 'deviation': deviation.tolist()}))


def typical_seconds(rows: sounds.SoundRows, rate: int) -> float:
    """The length that holds 95% of the sounds of a split whole, in tenths of a second, within `LENGTH_LIMITS`."""
    lengths = [len(rows.prepared(number)) / rate for number in range(len(rows))]
    return float(np.clip(np.ceil(np.percentile(lengths, 95) * 10 - 1e-6) / 10, *LENGTH_LIMITS))


def read_settings(config: Any, folder: epath.Path) -> Settings:
    """The settings of `config.task`, with the length that `prepare` stored if the data determine it."""
    settings = task_settings(Settings, config)
    if settings.seconds:
        return settings
    return settings._replace(seconds=json.loads((folder / LENGTH_FILE).read_text())['seconds']).check()


def excerpt(sound: np.ndarray, settings: Settings, rng: Any = None) -> np.ndarray:
    """Crops or pads a sound to the model's input length."""
    random = rng is not None and settings.random_crop and len(sound) > settings.samples
    return sounds.fit(sound, settings.samples, rng.random() if random else {'middle': 0.5, 'start': 0.0}[settings.crop])  # pyright: ignore[reportOptionalMemberAccess]


def make_encode(settings: Settings, facts: LabelFacts) -> Callable[..., dict[str, np.ndarray]]:
    """Builds `encode`: 'audio' float32 [samples], 'draw' (the seed of its augmentation) and the label."""
    encode_label = make_encode_label(facts, '')

    def encode(raw, rng=None):
        sound = sounds.prepared(raw, settings.sample_rate, settings.mel.window_samples)
        example: dict[str, Any] = {'audio': excerpt(sound, settings, rng)}
        example['draw'] = np.uint32(0 if rng is None else rng.integers(DRAWS))
        if (label := raw.get('label')) is not None:
            example['label'] = encode_label(label)
        return example

    return encode


def make_head(settings: Settings, labels: LabelFacts) -> OutputHead:
    """Builds the output head: one class per example."""
    return heads.single(labels.classes, labels.counts, settings.label_smoothing, settings.top)


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    settings, labels = read_settings(config, folder), read_labels(folder)
    size = f'reads {settings.seconds:g} s at {settings.sample_rate:,} Hz'
    about = f"{labels.about}; {size}; the bytes of a file, or samples with their 'rate'"
    inputs = {
        'audio': Input('audio', (settings.samples,), sounds.MAX_SECONDS * settings.sample_rate, about),
        'rate': Input('number', about='samples per second; only for audio given as samples'),
    }
    return Host(inputs, make_encode(settings, labels), make_head(settings, labels).decode)


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model.name` selects the model, `config.data.name` the data set.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families.supervised import supervised
    from research.models.audio import sound_model

    settings, labels = read_settings(config, folder), read_labels(folder)
    stored = json.loads((folder / 'bands.json').read_text())
    moments = {name: np.asarray(values, np.float32) for name, values in stored.items()}
    head, spectra = make_head(settings, labels), settings.spectrograms(**moments)
    bands_of = jax.jit(lambda samples: spectrograms(spectra, {'audio': samples}, False)[..., 0])
    model = sound_model(config.model, head.units, settings.shape)
    source = source_of(open_sounds(config), settings)

    def notes() -> list[str]:  # random crops use all of a sound
        if settings.random_crop:
            return []
        rows, rate = source('train'), settings.sample_rate
        return cut_notes(rows, lambda row: len(row.prepared()) / rate, settings.seconds, 'seconds', 'seconds')

    return supervised(
        host(config, folder), source, model, head, notes=notes,
        transform=lambda batch, context: with_spectrograms(spectra, head.units, batch, context.train),
        couples_rows='config.task.mixup' if settings.mixup else '',
        render=functools.partial(images.render_classes, labels.classes, picture_of=sounds.pictures_of(bands_of)),
    )  # fmt: skip
