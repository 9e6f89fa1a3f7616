"""Image restoration: removes noise or JPEG artefacts from pictures, or enlarges them.

A row is {'target': a clean grey picture, 'key': (split, number)}, which is degraded here; a request is {'image'}, a
degraded picture: an array, or the bytes of an image file. Training reads patches; evaluation and prediction read whole
pictures in tiles.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from etils import epath

from research.core.task import Host, Input, Metric, Task
from research.data.dataset import open_dataset
from research.data.image import restored
from research.data.image.degradation import STRENGTHS, Degradation
from research.data.image.images import MAX_SIDE
from research.data.image.tiles import Tiling
from research.data.readers.rows import SPLITS
from research.errors import Count, NonNegative, PositiveInt, Range, SettingError, task_settings
from research.ops.picture_head import picture

MODELS = 'restoration'  # builder module in research/models/
SAMPLES = 40  # training pictures whose degradation `prepare` measures
BASELINES = {'noise': 'the noisy picture', 'bicubic': 'bicubic enlargement', 'jpeg': 'the compressed picture'}


class Settings(NamedTuple):
    """Settings of `config.task`."""

    degradation: Literal['noise', 'bicubic', 'jpeg'] = 'noise'
    sigma: Annotated[float, Range(0, 255)] = 25.0  # of noise: deviation of pixels from 0 to 255
    scale: Annotated[int, Range(2, 4)] = 3  # of bicubic: 2, 3 or 4 times as many pixels along each side
    quality: Annotated[int, Range(1, 95)] = 10  # of jpeg: 1 to 95
    blind: tuple[NonNegative, ...] = ()  # (low, high): training draws sigma or quality from this range
    patch: PositiveInt = 48  # side of the clean patches of training, in pixels
    loss: Literal['l1', 'l2'] = 'l1'
    tile: PositiveInt = 128  # side of the tiles of whole pictures, in pixels of the input; more needs more memory
    noise_seed: Count = 0  # the noise of evaluation depends on this, the split and the number of the row alone

    def check(self) -> 'Settings':
        """Validates the settings; raises `SettingError` for impossible values."""
        low, high = STRENGTHS[self.degradation]
        ascending = len(self.blind) == 2 and low <= self.blind[0] <= self.blind[1] <= high
        if self.blind and (self.degradation == 'bicubic' or not ascending):
            raise SettingError('blind', f'must be (), or (low, high) of noise or jpeg, from {low} to {high}')
        if self.patch % (4 * self.made.scale) or self.tile % 4:
            raise SettingError('patch', f'must be a multiple of {4 * self.made.scale}, and tile one of 4')
        return self

    @property
    def made(self) -> Degradation:
        """The degradation, with its strength."""
        strength = {'noise': self.sigma, 'bicubic': self.scale, 'jpeg': self.quality}[self.degradation]
        return Degradation(self.degradation, float(strength), tuple(self.blind))


def open_pictures(config: Any, degradation: Degradation) -> Callable[[str], Any]:
    """Opens the clean pictures of the data set as a source of rows."""
    data = open_dataset(config.data, ('image',))

    def source(split):
        rows = data.source(split)

        def get(number):
            target = restored.clean_target(rows[number]['image'], degradation, rows.where(number))
            return {'target': target, 'key': (SPLITS.index(split), number)}

        return dataclasses.replace(rows, get=get, label=None)

    return functools.cache(source)


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores in 'restoration.json' how far the model reaches, and how much the degradation changes pixels (RMS)."""
    from research.models.restoration import margin_of, restoration_model

    settings = task_settings(Settings, config)
    made, rows = settings.made, open_pictures(config, settings.made)('train')
    errors = []
    for number in range(0, len(rows), -(-len(rows) // SAMPLES)):
        plane = restored.enlarged(restored.degraded(made, settings.noise_seed, rows[number]).planes[0], made)
        errors.append(np.mean((plane - rows[number]['target'][..., 0] / 255) ** 2))
    margin = margin_of(restoration_model(config.model, made.scale))
    stored = {'deviation': max(float(np.sqrt(np.mean(errors))), 1 / 255), 'margin': margin}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'restoration.json').write_text(json.dumps(stored))


def finalize(degradation: Degradation, answers: Iterable[tuple[Any, Any]]) -> dict[str, Metric]:
    """Mean PSNR and SSIM over pictures, beside those of the input."""
    names = ('psnr', 'input_psnr', 'ssim', 'input_ssim')
    values = np.array([[answer[name] for name in names] for _, answer in answers])
    psnr, input_psnr, ssim, input_ssim = map(float, values.mean(0))
    about = f'mean over pictures, luma{", rounded to 8 bits" if degradation.rounds else ""}'
    about += f', {degradation.border} pixels at each side left out' if degradation.border else ''
    baseline = BASELINES[degradation.name]
    return {
        'psnr': Metric(psnr, input_psnr, 'higher', f'dB; {about}', baseline),
        'ssim': Metric(ssim, input_ssim, 'higher', about, baseline),
    }


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    settings = task_settings(Settings, config)
    made, seed = settings.made, settings.noise_seed
    tiling = Tiling(settings.tile, json.loads((folder / 'restoration.json').read_text())['margin'], made.scale)
    inputs = {'image': Input('image', (0, 0, 0), MAX_SIDE, 'grey or colour, any size')}
    if made.field:
        inputs[made.field] = Input('number', about=f'of the picture, if known; default {made.strength:g}')
    return Host(
        inputs, restored.make_encode(made, settings.patch, seed), restored.make_decode(made),
        restored.make_split(made, tiling, seed), restored.make_join(made, tiling, seed),
    )  # fmt: skip


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model.name` selects the model, `config.data.name` the clean pictures.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families.supervised import supervised
    from research.models.restoration import restoration_model

    settings, functions = task_settings(Settings, config), host(config, folder)
    deviation = json.loads((folder / 'restoration.json').read_text())['deviation']
    return supervised(
        functions, open_pictures(config, settings.made), restoration_model(config.model, settings.made.scale),
        picture(deviation, settings.loss, functions.decode, f'{BASELINES[settings.degradation]}, training pictures'),
        label='target', finalize=functools.partial(finalize, settings.made),
    )  # fmt: skip
