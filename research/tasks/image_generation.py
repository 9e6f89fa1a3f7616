"""Image generation with generative adversarial networks (Goodfellow et al. 2014).

A training row is {'image', 'label'}. A request may be empty or hold a 'seed' and, for conditional models, a 'label'.
A second seed 'to' and a fraction 'at' request an interpolation between two seeds. The parameter groups are
'discriminator' and 'generator', updated in this order.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from etils import epath

from research.core.task import Host, Input, Task
from research.data.dataset import DataSet, numbered, open_dataset, shuffled
from research.data.fields import share, whole_number
from research.data.image import gallery, images
from research.data.outputs import Picture
from research.errors import Count, NonNegative, PositiveInt, UserError, task_settings
from research.ops.generative_metrics import read_train, store_train, train_cloud
from research.ops.noise import NO_INTERPOLATION, SAMPLE_LABEL

MODELS = 'gan'  # builder module in research/models/
MAX_SEED = 2**31 - 1


class Settings(NamedTuple):
    """Settings of `config.task`."""

    loss: Literal['non_saturating', 'minimax', 'hinge', 'wasserstein', 'least_squares'] = 'non_saturating'
    halved: bool = False  # average the real and fake parts of the discriminator's loss instead of adding them
    r1: NonNegative = 0.0  # gamma of the R1 gradient penalty on real images; 0: off
    gradient_penalty: NonNegative = 0.0  # lambda of the WGAN-GP gradient penalty; 0: off
    penalty_every: PositiveInt = 1  # lazy: discriminator updates between penalties, which are scaled up by it
    augment: tuple[Literal['color', 'translation', 'cutout'], ...] = ()  # DiffAugment policies
    conditional: bool = False  # condition both networks on the label
    truncation: NonNegative = 0.0  # predictions resample noise beyond this magnitude; 0: off. Metrics never truncate
    fakes: PositiveInt = 4  # generated images per real image when metrics are computed
    features: Literal['pixels', 'classifier', 'inception'] = 'pixels'  # feature space of the metrics
    pixels: PositiveInt = 16  # for features='pixels': images are downsampled to at most this many pixels per side
    network: str = ''  # for 'classifier': the folder of its run; for 'inception': the file of its weights
    kernel: bool = False  # also report the kernel distance; above 128 features, on the first 2,000 images
    neighbours: Count = 5  # nearest training images shown for each of ten generated images; 0: none


class ImageStats(NamedTuple):
    """Statistics of the training split, stored by `prepare`; `store_train` stores its features."""

    classes: tuple  # names, in the order of the labels
    shape: tuple  # height, width, channels
    counts: tuple  # rows per class
    space: str  # signature of the feature space


def open_images(config: Any, classes: Sequence[str] = ()) -> DataSet:
    """Opens the data set. User files are shuffled, because the metrics read the first rows of a split."""
    return shuffled(config.data, numbered(open_dataset(config.data, ('image', 'label')), classes))


def prepare(config: Any, folder: epath.Path, load: Callable | None = None) -> None:
    """Stores class names and counts in 'statistics.json', and the feature statistics of the training images.

    `load` loads a trained run from its folder.
    """
    from research.interop.features import features_of_rows

    data, settings = open_images(config), task_settings(Settings, config)
    rows, space = data.source('train'), space_of(settings, data.shape, load)
    counts = np.bincount([row['label'] for row in rows], minlength=len(data.classes))
    train = train_cloud(features_of_rows(space, rows, data.shape), settings.kernel)
    folder.mkdir(parents=True, exist_ok=True)
    store_train(train, folder)
    stats = ImageStats(data.classes, data.shape, tuple(counts.tolist()), space.signature)
    (folder / 'statistics.json').write_text(json.dumps(stats._asdict()))


def read_stats(folder: epath.Path) -> ImageStats:
    """Reads the statistics that `prepare` stored."""
    stored = json.loads((folder / 'statistics.json').read_text())
    return ImageStats(*(tuple(stored[name]) for name in ('classes', 'shape', 'counts')), stored.get('space', ''))  # pyright: ignore[reportCallIssue]


def space_of(settings: Settings, shape: tuple[int, int, int], load: Callable | None, expected: str = '') -> Any:
    """Builds the feature space of the metrics, an `interop.features.Space`.

    Raises:
      UserError: if its signature differs from `expected`, the signature that `prepare` stored.
    """
    from research.interop.features import make_space

    space = make_space(settings.features, shape, settings.pixels, settings.network, load)
    if expected not in ('', space.signature):
        raise UserError(
            f'config.task.network={settings.network!r} is not what this run began with: it was {expected}, now it is '
            f'{space.signature}; give the same network, or use another --workdir'
        )
    return space


def make_encode(stats: ImageStats) -> Callable[..., dict[str, np.ndarray]]:
    """Builds `encode`: a row's image and label, or a request's label (-1: random), 'seed', 'to' and 'at'."""

    def encode(raw, rng=None):
        label = raw.get('label', SAMPLE_LABEL)
        if label in stats.classes:
            label = stats.classes.index(label)
        example = {'label': whole_number(label, 'label', SAMPLE_LABEL, len(stats.classes) - 1)}
        if 'image' in raw:
            return {**example, 'image': images.fit_image(raw['image'], stats.shape)}
        seed = whole_number(raw.get('seed', 0), 'seed', 0, MAX_SEED)
        to = whole_number(raw.get('to', NO_INTERPOLATION), 'to', NO_INTERPOLATION, MAX_SEED)
        return {**example, 'seed': seed, 'to': to, 'at': share(raw.get('at', 0.5), 'at')}

    return encode


def make_decode(stats: ImageStats) -> Callable[..., Any]:
    """Builds `decode`: the image, and its class for conditional models."""

    def decode(outputs):
        label = {'label': stats.classes[int(outputs['label'])]} if 'label' in outputs else {}
        return {'image': Picture(np.asarray(outputs['image'])), **label}

    return decode


def render(shape: tuple[int, int, int], batch: Any, outputs: Any) -> dict[str, np.ndarray]:
    """Arranges the generated images in a grid."""
    mask = np.asarray(batch.get('mask', np.ones(len(outputs['image'])))) > 0
    return {'samples': images.grid(np.asarray(outputs['image'])[mask], 10, max(1, 48 // shape[0]))}


def inputs_of(settings: Settings, classes: Sequence[str]) -> dict[str, Input]:
    """Returns the optional fields of a request."""
    inputs = {
        'seed': Input('number', about='integer; different seeds give different images'),
        'to': Input('number', about='second seed: interpolates between the noise of the two seeds'),
        'at': Input('number', about='position between the two seeds, 0 to 1; default 0.5'),
    }
    if settings.conditional:
        about = f'0 to {len(classes) - 1} or a class name; default: random'
        inputs['label'] = Input('category', (), len(classes), about, choices=tuple(classes))
    return inputs


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    settings, stats = task_settings(Settings, config), read_stats(folder)
    return Host(inputs_of(settings, stats.classes), make_encode(stats), make_decode(stats))


def make(config: Any, folder: epath.Path, load: Callable | None = None) -> Task:
    """Builds the task; `config.model.name` selects the pair of networks, `config.data.name` the data set.

    `load` loads a trained run from its folder: the classifier whose features the metrics use.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families.adversarial import GANObjective, SampleMetrics, Sampler, adversarial, check_penalty
    from research.models.gan import gan_pair

    settings, stats = task_settings(Settings, config), read_stats(folder)
    data, classes = open_images(config, stats.classes), len(stats.classes)
    label_count = classes if settings.conditional else 0
    pair = gan_pair(config.model, stats.shape, label_count)
    objective = GANObjective(*(getattr(settings, name) for name in GANObjective._fields))
    check_penalty(config, objective, pair)
    sampler = Sampler(pair, np.float32(stats.counts) / sum(stats.counts), settings.truncation)  # pyright: ignore[reportArgumentType]
    space = functools.cache(lambda: space_of(settings, stats.shape, load, stats.space))
    sample_metrics = SampleMetrics(read_train(folder, settings.kernel), space, settings.fakes, settings.kernel)
    examples = [{'label': number % classes} if settings.conditional else {} for number in range(100)]
    final_pictures = functools.partial(
        gallery.pictures, label_count, examples, data.source, stats.shape, settings.neighbours
    )
    return adversarial(
        host(config, folder), data.source, sampler, objective, sample_metrics, settings.conditional,
        render=functools.partial(render, stats.shape),
        final_pictures=final_pictures,
        examples=examples,
    )  # fmt: skip
