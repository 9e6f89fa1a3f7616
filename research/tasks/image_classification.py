"""Which of several classes an image shows.

A row is {'image', 'label'}; a request is {'image'}: an array, or the path or bytes of an image file.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from research.core.task import Batch, Context, Host, Input, Task
from research.data.dataset import DataSet, numbered, open_dataset
from research.data.image import images
from research.data.image.augmentations import Augmentations, augment, center_crop
from research.errors import UserError, task_settings
from research.ops import heads
from research.ops.heads import OutputHead
from research.ops.mixing import mix_labelled

MODELS = 'image'  # the module of research/models/ that builds them


class Settings(NamedTuple):
    """Settings of `config.task`: how training images are varied, and what is measured."""

    # On the host, in this order; as of `research.data.image.augmentations.Augmentations`.
    resized_crop: float = 0.0  # a crop of at least this share of the area, resized; ImageNet: 0.08
    shift: int = 0  # training images are moved by up to this many pixels
    flip: bool = False  # half of the training images are mirrored left to right
    operations: int = 0  # of RandAugment, for each training image
    magnitude: float = 9.0  # of these, 0 to 10
    erase: float = 0.0  # probability that a box of noise covers a part of a training image
    # On the device, between the rows of a batch; as of `research.ops.mixing.mix`.
    mixup: float = 0.0  # alpha of the Beta distribution, 0: off
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    center_crop: float = 0.0  # other images: the middle square with this share of the shorter side; 0: all
    standardize: bool = True  # images in units of the training split's deviation from its mean; False: 0 to 1
    statistics: int = 0  # training rows, evenly spaced, whose mean, deviation and classes are stored; 0: all
    top: int = 0  # also count labels among this many most probable classes; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """The settings; raises a `UserError` for impossible values."""
        values = self.statistics, self.mixup, self.cutmix
        if min(values) < 0:
            raise UserError(f'config.task: statistics, mixup and cutmix must be zero or more, got {values}')
        if not 0 <= self.center_crop <= 1:
            raise UserError(f'config.task: center_crop must be in 0 to 1, got {self.center_crop}')
        heads.check_single(self.label_smoothing, self.top)
        self.augmentations.check()
        return self

    @property
    def augmentations(self) -> Augmentations:
        """Those that vary training images on the host."""
        return Augmentations(*(getattr(self, name) for name in Augmentations._fields))

    @property
    def mixes(self) -> str:
        """The settings that mix the rows of a batch, or ''."""
        return ' and '.join(f'config.task.{name}' for name in ('mixup', 'cutmix') if getattr(self, name))


class Facts(NamedTuple):
    """What `prepare` stores of the training split in 'classes.json'."""

    classes: tuple  # names, in the order of the labels
    shape: tuple  # height, width, channels
    mean: tuple  # per channel
    std: tuple
    counts: tuple  # training rows per class
    about: str


def open_images(config: Any, classes: Sequence[str] = ()) -> DataSet:
    """The data set, with numbers of classes as labels; `classes` are the names that an earlier run stored."""
    return numbered(open_dataset(config.data, ('image', 'label')), classes)


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores class names and counts, the shape, and mean and deviation of each channel in 'classes.json'."""
    data, settings = open_images(config), task_settings(Settings, config)
    if len(data.classes) < 2:
        raise UserError(
            f'the training images are all of one class ({", ".join(data.classes)}); name the folder that '
            'holds one folder for each class'
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
    facts = Facts(data.classes, data.shape, tuple(mean), tuple(std), tuple(counts.tolist()), data.about)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'classes.json').write_text(json.dumps(facts._asdict()))


def read_facts(folder: epath.Path) -> Facts:
    """What `prepare` stored."""
    facts = Facts(**json.loads((folder / 'classes.json').read_text()))
    return facts._replace(shape=tuple(facts.shape))


def make_encode(facts: Facts, settings: Settings) -> Callable[..., dict[str, np.ndarray]]:
    """`encode`: a float32 image in [0, 1], varied when an rng is given; its label."""
    varied, share = settings.augmentations, settings.center_crop

    def encode(raw, rng=None):
        if 'image' not in raw:
            raise UserError("the request has no 'image'")
        image = raw['image']
        if isinstance(image, str):
            raise UserError(f"the request's 'image' is text, {image!r:.60}: give the bytes of a file, or pixels")
        image = images.read_image(image) if isinstance(image, bytes) else image
        if rng is not None:
            image = augment(image, facts.shape, varied, rng)
        else:
            image = images.fit_image(center_crop(images.check_image(image), share) if share else image, facts.shape)
        example = {'image': np.ascontiguousarray(image)}
        if 'label' in raw:
            if not 0 <= raw['label'] < len(facts.classes):
                raise UserError(f'label {raw["label"]!r} is none of the {len(facts.classes)} classes')
            example['label'] = np.int32(raw['label'])
        return example

    return encode


def make_head(settings: Settings, facts: Facts) -> OutputHead:
    """The output head: one class."""
    return heads.single(facts.classes, facts.counts, settings.label_smoothing, settings.top)


def mixed(settings: Settings, classes: int, batch: Batch, context: Context) -> Batch:
    """The batch, in training with rows that are mixed where the settings say so."""
    if not (settings.mixes and context.train):
        return batch
    return mix_labelled(batch, context.fold('mix'), classes, settings.mixup, settings.cutmix)


def host(config: Any, folder: epath.Path) -> Host:
    """What answers requests on the host."""
    settings, facts = task_settings(Settings, config), read_facts(folder)
    about = f'{facts.about}; fitted to {facts.shape[0]}x{facts.shape[1]}'
    inputs = {'image': Input('image', facts.shape, images.LIMIT, about)}
    return Host(inputs, make_encode(facts, settings), make_head(settings, facts).decode)


def make(config: Any, folder: epath.Path) -> Task:
    """The task; its model is `config.model.name`, its data set `config.data.name`.

    Raises:
      UserError: for an unknown setting or an impossible value.
    """
    from research.families.supervised import supervised
    from research.models.image import Images, image_model

    settings, facts = task_settings(Settings, config), read_facts(folder)
    data = open_images(config, facts.classes)
    moments = (facts.mean, facts.std) if settings.standardize else None
    model = image_model(config.model, Images(facts.classes, facts.shape, moments), folder)
    return supervised(
        host(config, folder), data.source, model, make_head(settings, facts),
        transform=functools.partial(mixed, settings, len(facts.classes)),
        couples_rows=settings.mixes,
        render=functools.partial(images.render_classes, facts.classes),
    )  # fmt: skip
