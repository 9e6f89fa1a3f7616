"""Which of several kinds of sounds a recording holds.

A row is {'audio', 'rate', 'label'}; a request is {'audio'}: the bytes of a WAV or FLAC file, or samples beside their
'rate'. Spectrograms and augmentation are made on the device, inside the model and its loss.
"""

import functools
import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from etils import epath

from research.core.task import Host, Input, Task
from research.data.audio import sounds
from research.data.dataset import DataSet, open_dataset
from research.data.image import images
from research.data.labels import LabelFacts, collect, make_encode_label, read_labels, write_labels
from research.errors import UserError, task_settings
from research.ops import heads
from research.ops.audio import Mel
from research.ops.heads import OutputHead
from research.ops.sound_augmentation import Augmentation
from research.ops.spectrograms import Spectrograms, band_moments, spectrograms, with_spectrograms

MODELS = 'audio'  # the module of research/models/ that builds them
LARGEST = 2**32  # of the numbers that augmentation is drawn from


class Settings(NamedTuple):
    """Settings of `config.task`; times are seconds where nothing else is said."""

    sample_rate: int = 16000  # samples a second; a sound of another rate is resampled
    seconds: float = 1.0  # that the model reads
    place: Literal['middle', 'start'] = 'middle'  # the part of a longer sound that is read; a shorter one is there
    random_crop: bool = False  # training reads a random part of a longer sound
    window: float = 25.0  # milliseconds of a frame
    hop: float = 10.0  # milliseconds from frame to frame
    mels: int = 40  # bands
    low: float = 0.0  # Hz, where the first band begins
    high: float = 0.0  # Hz, where the last ends; 0: half of sample_rate
    scale: Literal['slaney', 'htk'] = 'slaney'
    floor: float = 1e-10  # the least power in a band, of samples in [-1, 1]
    deltas: bool = False  # also the slope of each band over time, as a second channel
    shift: float = 0.0  # training moves a sound by up to this much
    gain: float = 0.0  # training makes it louder or softer by up to this many decibels
    noise: float = 0.0  # training adds white noise of up to this share of its root mean square
    time_masks: int = 0  # SpecAugment: this many stretches of time are hidden,
    time_mask: int = 0  # each of up to this many frames,
    band_masks: int = 0  # and this many of bands,
    band_mask: int = 0  # each of up to this many
    mixup: float = 0.0  # training mixes up to this share of another sound, and of its label, into each
    label_smoothing: float = 0.0
    top: int = 0  # also count labels among this many most probable classes; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """The settings; raises a `UserError` for impossible values."""
        if not sounds.RATES[0] <= self.sample_rate <= sounds.RATES[1] or not 0 < self.seconds <= sounds.LONGEST:
            raise UserError(
                f'config.task: sample_rate must be {sounds.RATES[0]:,} to {sounds.RATES[1]:,} and seconds above 0, at '
                f'most {sounds.LONGEST}; got {self.sample_rate:,} and {self.seconds:g}'
            )
        self.mel.check()
        if self.samples < self.mel.window_samples:
            raise UserError(f'config.task.seconds={self.seconds:g} is less than one window of {self.window:g} ms')
        self.augmentation.check(self.mel.frames(self.samples), self.mels)
        if not 0 <= self.mixup <= 0.5:
            raise UserError(f'config.task.mixup must be in 0 to 0.5, got {self.mixup}')
        heads.check_single(self.label_smoothing, self.top)
        return self

    @property
    def samples(self) -> int:
        """Samples that the model reads."""
        return round(self.seconds * self.sample_rate)

    @property
    def mel(self) -> Mel:
        """How samples become mel bands."""
        sizes = self.sample_rate, self.window, self.hop, self.mels
        return Mel(*sizes, self.low, self.high, self.scale, floor=self.floor)

    @property
    def augmentation(self) -> Augmentation:
        """What training does to a sound."""
        shift = round(self.shift * self.sample_rate)
        return Augmentation(shift, *(getattr(self, name) for name in Augmentation._fields[1:]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, frames and channels of a spectrogram."""
        return self.mels, self.mel.frames(self.samples), 1 + self.deltas

    def spectrograms(self, mean: np.ndarray, deviation: np.ndarray) -> Spectrograms:
        """How samples become spectrograms, with the moments of the training split."""
        return Spectrograms(self.mel, mean, deviation, self.deltas, self.augmentation, self.mixup)


def open_sounds(config: Any) -> DataSet:
    """The data set."""
    return open_dataset(config.data, ('audio', 'label'))


def source_of(data: DataSet, settings: Settings) -> Callable[[str], sounds.SoundRows]:
    """The rows of a split, their sounds resampled once."""
    return sounds.sound_rows(data.source, settings.sample_rate, settings.mel.window_samples)


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores the classes of the training split, and mean and deviation of each band of its spectrograms."""
    settings, data = task_settings(Settings, config), open_sounds(config)
    rows = source_of(data, settings)('train')
    labels = collect(rows, 'single', '', data.about)
    training = (excerpt(rows[number].prepared(), settings) for number in range(len(rows)))
    mean, deviation = band_moments(training, settings.mel)
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(labels, folder)
    (folder / 'bands.json').write_text(json.dumps({'mean': mean.tolist(), 'deviation': deviation.tolist()}))


def excerpt(sound: np.ndarray, settings: Settings, rng: Any = None) -> np.ndarray:
    """The part of a sound that the model reads."""
    drawn = rng is not None and settings.random_crop and len(sound) > settings.samples
    return sounds.fit(sound, settings.samples, rng.random() if drawn else {'middle': 0.5, 'start': 0.0}[settings.place])


def make_encode(settings: Settings, facts: LabelFacts) -> Callable[..., dict[str, np.ndarray]]:
    """`encode`: 'audio' float32 [samples], the number that augmentation is drawn from, and the label."""
    encode_label = make_encode_label(facts, '')

    def encode(raw, rng=None):
        sound = sounds.prepared(raw, settings.sample_rate, settings.mel.window_samples)
        example = {'audio': excerpt(sound, settings, rng)}
        example['draw'] = np.uint32(0 if rng is None else rng.integers(LARGEST))
        if (label := raw.get('label')) is not None:
            example['label'] = encode_label(label)
        return example

    return encode


def make_head(settings: Settings, labels: LabelFacts) -> OutputHead:
    """The output head: one class."""
    return heads.single(labels.classes, labels.counts, settings.label_smoothing, settings.top)


def host(config: Any, folder: epath.Path) -> Host:
    """What answers requests on the host."""
    settings, labels = task_settings(Settings, config), read_labels(folder)
    size = f'{settings.seconds:g} s at {settings.sample_rate:,} Hz are read'
    about = f"{labels.about}; {size}; the bytes of a file, or samples beside their 'rate'"
    inputs = {
        'audio': Input('audio', (settings.samples,), sounds.LONGEST * settings.sample_rate, about),
        'rate': Input('number', about='samples a second, where audio is samples; a file says it itself'),
    }
    return Host(inputs, make_encode(settings, labels), make_head(settings, labels).decode)


def make(config: Any, folder: epath.Path) -> Task:
    """The task; its model is `config.model.name`, its data set `config.data.name`.

    Raises:
      UserError: for an unknown setting or an impossible value.
    """
    from research.families.supervised import supervised
    from research.models.audio import sound_model

    settings, labels = task_settings(Settings, config), read_labels(folder)
    moments = {name: np.float32(values) for name, values in json.loads((folder / 'bands.json').read_text()).items()}
    head, spectra = make_head(settings, labels), settings.spectrograms(**moments)
    bands_of = jax.jit(lambda samples: spectrograms(spectra, {'audio': samples}, False)[..., 0])
    model = sound_model(config.model, head.units, settings.shape)
    return supervised(
        host(config, folder), source_of(open_sounds(config), settings), model, head,
        transform=lambda batch, context: with_spectrograms(spectra, head.units, batch, context.train),
        couples_rows='config.task.mixup' if settings.mixup else '',
        render=functools.partial(images.render_classes, labels.classes, picture_of=sounds.pictures_of(bands_of)),
    )  # fmt: skip
