"""New pictures like those of a data set: a generative adversarial network (Goodfellow et al. 2014).

A training row is {'image', 'label'}; a request may be empty, or hold a 'seed' and, where the network is told
what to draw, a 'label'; with another seed 'to' and a share 'at' it asks for what lies between two seeds. Two
groups play against each other: 'discriminator', then 'generator'.
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
from research.errors import UserError, task_settings
from research.ops.diff_augment import make_augment
from research.ops.generative_metrics import read_train, store_train, train_cloud
from research.ops.noise import ALONE, DRAW

MODELS = 'gan'  # the module of research/models/ that builds them
SEEDS = 2**31 - 1


class Settings(NamedTuple):
    """Settings of `config.task`."""

    loss: str = 'non_saturating'  # or 'minimax', 'hinge', 'wasserstein', 'least_squares'
    halved: bool = False  # the discriminator's loss is the mean of its real and fake parts, not their sum
    r1: float = 0.0  # gamma of the penalty on slopes at real pictures
    gradient_penalty: float = 0.0  # lambda of the penalty on slopes between real and fake ones
    penalty_every: int = 1  # updates of the discriminator from one penalty to the next, which is that many times larger
    augment: tuple[str, ...] = ()  # of 'color', 'translation', 'cutout': what the discriminator sees of real and fake
    conditional: bool = False  # generator and discriminator are told the label
    truncation: float = 0.0  # answers draw noise anew where it is larger; 0: never. Metrics are without it
    fakes: int = 4  # pictures drawn for each real one when the metrics are computed
    features: Literal['pixels', 'classifier', 'inception'] = 'pixels'  # in which the metrics compare
    pixels: int = 16  # features 'pixels' are of pictures shrunk to at most this many pixels along a side
    network: str = ''  # the folder of the run whose features 'classifier' are, or the file of Inception's weights
    kernel: bool = False  # also the kernel distance; above 128 features of the first 2,000 pictures
    neighbours: int = 5  # nearest training pictures shown for each of ten drawn ones; 0: none

    def check(self) -> 'Settings':
        """The settings; raises a `UserError` for impossible values."""
        if self.fakes < 1 or self.pixels < 1 or self.penalty_every < 1:
            raise UserError('config.task: fakes, pixels and penalty_every must be above zero')
        for name in ('r1', 'gradient_penalty', 'truncation', 'neighbours'):
            if not getattr(self, name) >= 0:
                raise UserError(f'config.task.{name} must be zero or more, got {getattr(self, name)!r}')
        make_augment(self.augment)
        return self


class ImageStats(NamedTuple):
    """What `prepare` stores of the training split; `store_train` stores the rest."""

    classes: tuple  # names, in the order of the labels
    shape: tuple  # height, width, channels
    counts: tuple  # rows per class
    space: str  # signature of the features


def open_images(config: Any, classes: Sequence[str] = ()) -> DataSet:
    """The data set; a user's files in a mixed order, since the metrics look at the first rows of a split."""
    return shuffled(config.data, numbered(open_dataset(config.data, ('image', 'label')), classes))


def prepare(config: Any, folder: epath.Path, load: Callable | None = None) -> None:
    """Stores classes and their counts in 'statistics.json', and beside it the training pictures' features, summed.

    `load` reads a trained run by its folder.
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
    """What `prepare` stored."""
    stored = json.loads((folder / 'statistics.json').read_text())
    return ImageStats(*(tuple(stored[name]) for name in ('classes', 'shape', 'counts')), stored.get('space', ''))


def space_of(settings: Settings, shape: tuple[int, int, int], load: Callable | None, expected: str = '') -> Any:
    """The space of features that the settings name (`interop.features.Space`).

    Raises:
      UserError: where its signature is not the `expected` one, of the space that `prepare` used.
    """
    from research.interop.features import make_space

    space = make_space(settings.features, shape, settings.pixels, settings.network, load)
    if expected not in ('', space.signature):
        raise UserError(
            f'config.task.network={settings.network!r} is not what this run began with: {space.signature} now, '
            f'{expected} then; give the same network, or start in another --workdir'
        )
    return space


def make_encode(stats: ImageStats) -> Callable[..., dict[str, np.ndarray]]:
    """`encode`: of a row its picture and label; of a request its label (-1: any), seed, 'to' and 'at'."""

    def encode(raw, rng=None):
        label = raw.get('label', DRAW)
        if label in stats.classes:
            label = stats.classes.index(label)
        example = {'label': whole_number(label, 'label', DRAW, len(stats.classes) - 1)}
        if 'image' in raw:
            return {**example, 'image': images.fit_image(raw['image'], stats.shape)}
        seed = whole_number(raw.get('seed', 0), 'seed', 0, SEEDS)
        to = whole_number(raw.get('to', ALONE), 'to', ALONE, SEEDS)
        return {**example, 'seed': seed, 'to': to, 'at': share(raw.get('at', 0.5), 'at')}

    return encode


def make_decode(stats: ImageStats) -> Callable[..., Any]:
    """Returns `decode`: the picture, and the class that was drawn."""

    def decode(outputs):
        label = {'label': stats.classes[int(outputs['label'])]} if 'label' in outputs else {}
        return {'image': Picture(np.asarray(outputs['image'])), **label}

    return decode


def render(shape: tuple[int, int, int], batch: Any, outputs: Any) -> dict[str, np.ndarray]:
    """All pictures in a grid."""
    mask = np.asarray(batch.get('mask', np.ones(len(outputs['image'])))) > 0
    return {'samples': images.grid(np.asarray(outputs['image'])[mask], 10, max(1, 48 // shape[0]))}


def inputs_of(settings: Settings, classes: int) -> dict[str, Input]:
    """What a request may hold."""
    inputs = {
        'seed': Input('number', about='a whole number; another one gives another picture'),
        'to': Input('number', about='another seed: the picture lies between those of the two seeds alone'),
        'at': Input('number', about='where between them, 0 to 1; 0.5 if left out'),
    }
    if settings.conditional:
        inputs['label'] = Input('category', (), classes, f'0 to {classes - 1} or a name; any if left out')
    return inputs


def host(config: Any, folder: epath.Path) -> Host:
    """What answers requests on the host."""
    settings, stats = task_settings(Settings, config), read_stats(folder)
    return Host(inputs_of(settings, len(stats.classes)), make_encode(stats), make_decode(stats))


def make(config: Any, folder: epath.Path, load: Callable | None = None) -> Task:
    """The task; its networks are the pair `config.model.name`, its data set is `config.data.name`.

    `load` reads a trained run by its folder: the classifier whose features the metrics are of.

    Raises:
      UserError: for an unknown setting or an impossible value.
    """
    from research.families.adversarial import Game, Measures, Sampler, adversarial, check_penalty
    from research.models.gan import gan_pair

    settings, stats = task_settings(Settings, config), read_stats(folder)
    data, classes = open_images(config, stats.classes), len(stats.classes)
    told = classes if settings.conditional else 0
    pair = gan_pair(config.model, stats.shape, told)
    game = Game(*(getattr(settings, name) for name in Game._fields))
    check_penalty(config, game, pair)
    sampler = Sampler(pair, np.float32(stats.counts) / sum(stats.counts), settings.truncation)
    space = functools.cache(lambda: space_of(settings, stats.shape, load, stats.space))
    measures = Measures(read_train(folder, settings.kernel), space, settings.fakes, settings.kernel)
    examples = [{'label': number % classes} if settings.conditional else {} for number in range(100)]
    final_pictures = functools.partial(
        gallery.pictures, told, examples, data.source, stats.shape, settings.neighbours
    )
    return adversarial(
        host(config, folder), data.source, sampler, game, measures, settings.conditional,
        render=functools.partial(render, stats.shape),
        final_pictures=final_pictures,
        examples=examples,
    )  # fmt: skip
