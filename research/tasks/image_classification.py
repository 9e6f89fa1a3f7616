"""Image classification: one class per image.

A row is {'image', 'label'}. A request is {'image'}: an array, or the bytes of an image file.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from etils import epath

from research.core.task import Batch, Context, Host, Input, Task
from research.data.dataset import DataSet, numbered, open_dataset
from research.data.image import images
from research.data.image.augmentations import MAX_MAGNITUDE, Augmentations, augment, center_crop
from research.errors import Count, Fraction, NonNegative, Range, Rate, UserError, task_settings, without_name
from research.ops import heads
from research.ops.heads import OutputHead
from research.ops.mixing import mix_labelled

MODELS = 'image'  # builder module in research/models/


class Settings(NamedTuple):
    """Settings of `config.task`: augmentation, preprocessing and metrics."""

    # Augmentation on the host, in this order; see `research.data.image.augmentations.Augmentations`.
    resized_crop: Fraction = 0.0  # random resized crop: minimum fraction of the area (ImageNet: 0.08); 0: off
    shift: Count = 0  # random shift of up to this many pixels
    flip: bool = False  # random horizontal flip
    operations: Count = 0  # RandAugment operations per image
    magnitude: Annotated[float, Range(0, MAX_MAGNITUDE)] = 9.0  # RandAugment magnitude, 0 to 10
    erase: Fraction = 0.0  # probability of random erasing
    # Augmentation on the device, between rows of a batch; see `research.ops.mixing.mix`.
    mixup: NonNegative = 0.0  # alpha of the Beta distribution; 0: off
    cutmix: NonNegative = 0.0
    label_smoothing: Rate = 0.0
    center_crop: Fraction = 0.0  # evaluation: center square of this fraction of the shorter side; 0: whole image
    standardize: bool = True  # standardize channels by the training split's moments; False: keep [0, 1]
    statistics: Count = 0  # number of evenly spaced training rows used for the moments; 0: all
    top: Count = 0  # report top-k accuracy for this k; 0: min(5, classes - 1)

    @property
    def augmentations(self) -> Augmentations:
        """Augmentations on the host."""
        return Augmentations(*(getattr(self, name) for name in Augmentations._fields))

    @property
    def mixes(self) -> str:
        """Names of the active settings that mix rows of a batch, or ''."""
        return ' and '.join(f'config.task.{name}' for name in ('mixup', 'cutmix') if getattr(self, name))


class ImageStats(NamedTuple):
    """Statistics of the training split, stored by `prepare` in 'classes.json'."""

    classes: tuple  # names, in the order of the labels
    shape: tuple  # height, width, channels
    mean: tuple  # per channel
    std: tuple
    counts: tuple  # training rows per class
    about: str


def open_images(config: Any, classes: Sequence[str] = ()) -> DataSet:
    """Opens the data set with class indices as labels; `classes` fixes their order, as stored by `prepare`."""
    return numbered(open_dataset(config.data, ('image', 'label')), classes)


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores class names and counts, the image shape, and the moments of each channel in 'classes.json'."""
    data, settings = open_images(config), task_settings(Settings, config)
    if len(data.classes) < 2:
        raise UserError(
            f'the training images have a single class ({", ".join(data.classes)}); give the folder that contains '
            'one folder per class'
        )
    if config.model.get('name') == 'vit':
        from research.models.image import store_image_weights

        store_image_weights(config.model, folder, data.shape)
    rows, total, labels = data.source('train'), np.zeros((2, data.shape[2])), []
    count = min(settings.statistics or len(rows), len(rows))
    for number in range(count):
        row = rows[number * len(rows) // count]
        labels.append(row['label'])
        pixels = images.fit_image(row['image'], data.shape).astype(np.float64).reshape(-1, data.shape[2])
        total += [pixels.mean(0), (pixels**2).mean(0)]
    mean, square = total / count
    counts = np.bincount(labels, minlength=len(data.classes))
    std = np.sqrt(np.maximum(square - mean**2, 1e-8))
    stats = ImageStats(data.classes, data.shape, tuple(mean), tuple(std), tuple(counts.tolist()), data.about)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'classes.json').write_text(json.dumps(stats._asdict()))


def read_stats(folder: epath.Path) -> ImageStats:
    """Reads the statistics that `prepare` stored."""
    stats = ImageStats(**json.loads((folder / 'classes.json').read_text()))
    return stats._replace(shape=tuple(stats.shape))


def make_encode(stats: ImageStats, settings: Settings) -> Callable[..., dict[str, np.ndarray]]:
    """Builds `encode`: a float32 image in [0, 1], augmented if an rng is given, and its label."""
    augmentations, share = settings.augmentations, settings.center_crop

    def encode(raw, rng=None):
        if 'image' not in raw:
            raise UserError("the request has no 'image'")
        image = raw['image']
        if isinstance(image, str):
            raise UserError(f"the request's 'image' is text, {image!r:.60}; give the bytes of a file or an array")
        image = images.read_image(image) if isinstance(image, bytes) else image
        if rng is not None:
            image = augment(image, stats.shape, augmentations, rng)
        else:
            image = images.fit_image(center_crop(images.check_image(image), share) if share else image, stats.shape)
        example: dict[str, Any] = {'image': np.ascontiguousarray(image)}
        if 'label' in raw:
            if not 0 <= raw['label'] < len(stats.classes):
                raise UserError(f'label {raw["label"]!r} is not one of the {len(stats.classes)} classes')
            example['label'] = np.int32(raw['label'])
        return example

    return encode


def make_head(settings: Settings, stats: ImageStats) -> OutputHead:
    """Builds the output head: one class per example."""
    return heads.single(stats.classes, stats.counts, settings.label_smoothing, settings.top)


def mix_training_rows(settings: Settings, classes: int, batch: Batch, context: Context) -> Batch:
    """Applies mixup and CutMix in training."""
    if not (settings.mixes and context.train):
        return batch
    return mix_labelled(batch, context.fold('mix'), classes, settings.mixup, settings.cutmix)


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    settings, stats = task_settings(Settings, config), read_stats(folder)
    about = f'{stats.about}; resized to {stats.shape[0]}x{stats.shape[1]}'
    inputs = {'image': Input('image', stats.shape, images.MAX_SIDE, about)}
    return Host(inputs, make_encode(stats, settings), make_head(settings, stats).decode)


def publish(config: Any, folder: epath.Path, params: Any) -> Any:
    """Describes the trained model for `interop.publish.write_folder`."""
    from research.interop.publish import Published
    from research.models.image import Images, image_encoder

    settings, stats, name = task_settings(Settings, config), read_stats(folder), config.model.get('name')
    if name != 'vit':
        raise UserError(f'config.model.name={name!r}: of the image classifiers, only vit has a Hugging Face family')
    height, width, channels = stats.shape
    if height != width:
        raise UserError(f'pictures of {height}x{width} pixels: image models of the hub read squares')
    images = Images(stats.classes, stats.shape, (stats.mean, stats.std) if settings.standardize else None)
    module, moments, weights = image_encoder(without_name(config.model), images, folder)
    mean, std = moments or ((0.0,) * channels, (1.0,) * channels)
    image = {
        'size': height, 'patch': module.patch, 'channels': channels, 'classes': module.classes,
        'mean': tuple(mean), 'std': tuple(std),
    }  # fmt: skip
    return Published('image', module.settings, params, weights or {}, classes=stats.classes, image=image)


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model.name` selects the model, `config.data.name` the data set.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families.supervised import supervised
    from research.models.image import Images, image_model

    settings, stats = task_settings(Settings, config), read_stats(folder)
    data = open_images(config, stats.classes)
    moments = (stats.mean, stats.std) if settings.standardize else None
    model = image_model(config.model, Images(stats.classes, stats.shape, moments), folder)
    return supervised(
        host(config, folder), data.source, model, make_head(settings, stats),
        transform=functools.partial(mix_training_rows, settings, len(stats.classes)),
        couples_rows=settings.mixes,
        render=functools.partial(images.render_classes, stats.classes),
    )  # fmt: skip
