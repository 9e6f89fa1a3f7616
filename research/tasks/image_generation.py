"""New pictures like those of a data set: a generative adversarial network (Goodfellow et al. 2014).

A training row is {'image', 'label'}; a request may be empty, or hold a 'seed' and, where the network is told
what to draw, a 'label'; with another seed 'to' and a share 'at' it asks for what lies between two seeds. Two
groups play against each other: 'discriminator', then 'generator'.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float

from research.core.task import Aux, Input, Metric, Task, Variables, fold
from research.data.dataset import DataSet, numbered, open_dataset, shuffled
from research.data.fields import share, whole_number
from research.data.image import gallery, images
from research.errors import UserError, choose, unpack
from research.interop.features import Space, features_of_rows, make_space
from research.nn import dcgan, gan, sngan
from research.nn.apply import initialize, run
from research.ops.adversarial import adversarial_loss, gradient_penalty, lazy_regularization, r1_penalty, right
from research.ops.diff_augment import make_augment
from research.ops.generative_metrics import Train, cloud_metrics, cloud_sums, read_train, store_train, train_cloud
from research.ops.kernel_distance import KEPT
from research.ops.noise import ALONE, DRAW, keys_of, labels_of, noise_of, per_example

PAIRS = {
    'mlp': (gan.MLPGenerator, gan.MLPDiscriminator),
    'conv': (gan.ConvGenerator, gan.ConvDiscriminator),
    'dcgan': (dcgan.DCGANGenerator, dcgan.DCGANDiscriminator),
    'sngan': (dcgan.DCGANGenerator, sngan.ConvSNDiscriminator),
    'resnet': (sngan.ResNetGenerator, sngan.ResNetDiscriminator),
}
SEEDS = 2**31 - 1


class Settings(NamedTuple):
    """Settings of `config.task`."""

    loss: str = 'non_saturating'  # or 'minimax', 'hinge', 'wasserstein', 'least_squares'
    halved: bool = False  # the discriminator's loss is the mean of its real and fake parts, not their sum
    r1: float = 0.0  # gamma of the penalty on slopes at real pictures
    gradient_penalty: float = 0.0  # lambda of the penalty on slopes between real and fake ones
    penalty_every: int = 1  # updates of the discriminator from one penalty to the next, which is so many times larger
    augment: tuple = ()  # of 'color', 'translation', 'cutout': what the discriminator sees of real and fake
    conditional: bool = False  # generator and discriminator are told the label
    truncation: float = 0.0  # answers draw noise anew where it is larger; 0: never. Metrics are without it
    fakes: int = 4  # pictures drawn for each real one when the metrics are computed
    features: Literal['pixels', 'classifier', 'inception'] = 'pixels'  # in which the metrics compare
    pixels: int = 16  # features 'pixels' are of pictures shrunk to at most so many pixels along a side
    network: str = ''  # the folder of the run whose features 'classifier' are, or the file of Inception's weights
    kernel: bool = False  # also the kernel distance; above 128 features of the first 2,000 pictures
    neighbours: int = 5  # nearest training pictures shown for each of ten drawn ones; 0: none


class Model(NamedTuple):
    """Settings of `config.model`; 'generator' and 'discriminator' are those of their modules."""

    name: str
    generator: dict
    discriminator: dict
    latent: int = 64  # numbers of noise that a picture is made from


class Facts(NamedTuple):
    """What `prepare` stores of the training split; `store_train` stores the rest."""

    classes: tuple  # names, in the order of the labels
    shape: tuple  # height, width, channels
    counts: tuple  # rows per class
    space: str  # signature of the features


class Pair(NamedTuple):
    """The two networks, as functions of `Variables`."""

    generate: Callable  # (variables, noise, labels, context) -> (pictures in -1 to 1, new collections)
    judge: Callable  # (variables, pictures, labels, context, collections) -> (logits, new collections)
    init: Callable  # (key) -> Variables


def read_settings(config: Any) -> Settings:
    """Returns the settings of `config.task`; a `UserError` for impossible ones."""
    settings = unpack(Settings, {k: v for k, v in config.task.items() if k != 'name'}, 'task')
    if settings.fakes < 1 or settings.pixels < 1 or settings.penalty_every < 1:
        raise UserError('config.task: fakes, pixels and penalty_every must be above zero')
    for name in ('r1', 'gradient_penalty', 'truncation', 'neighbours'):
        if not getattr(settings, name) >= 0:
            raise UserError(f'config.task.{name} must be zero or more, got {getattr(settings, name)!r}')
    make_augment(settings.augment)
    return settings


def space_of(settings: Settings, shape: tuple[int, int, int], load: Callable | None) -> Space:
    """Returns the space of features that the settings name."""
    return make_space(settings.features, shape, settings.pixels, settings.network, load)


def checked_space(settings: Settings, facts: Facts, load: Callable | None) -> Space:
    """Returns the space, which must be the one that `prepare` has seen; a `UserError` otherwise."""
    found = space_of(settings, facts.shape, load)
    if facts.space not in ('', found.signature):
        raise UserError(
            f'config.task.network={settings.network!r} is not what this run began with: {found.signature} now, '
            f'{facts.space} then; give the same network, or start in another --workdir'
        )
    return found


def open_images(config: Any, classes: Sequence[str] = ()) -> DataSet:
    """Returns the data set: a user's files in a mixed order, as the metrics look at the first rows of a split."""
    return shuffled(config.data, numbered(open_dataset(config.data, ('image', 'label')), classes))


def prepare(config: Any, folder: epath.Path, load: Callable | None = None) -> None:
    """Stores classes and their counts in 'statistics.json', and beside it the training pictures' features, summed.

    `load` reads a trained run by its folder.
    """
    data, settings = open_images(config), read_settings(config)
    rows, space = data.source('train'), space_of(settings, data.shape, load)
    counts = np.bincount([row['label'] for row in rows], minlength=len(data.classes))
    train = train_cloud(features_of_rows(space, rows, data.shape), settings.kernel)
    folder.mkdir(parents=True, exist_ok=True)
    store_train(train, folder)
    facts = Facts(data.classes, data.shape, tuple(counts.tolist()), space.signature)
    (folder / 'statistics.json').write_text(json.dumps(facts._asdict()))


def read_facts(folder: epath.Path) -> Facts:
    """Returns what `prepare` stored."""
    stored = json.loads((folder / 'statistics.json').read_text())
    return Facts(*(tuple(stored[name]) for name in ('classes', 'shape', 'counts')), stored.get('space', ''))


def make_pair(model: Model, shape: tuple[int, int, int], classes: int) -> Pair:
    """Returns the networks named by `config.model`; `classes` 0 where they are not told the label."""
    makers = choose(model.name, PAIRS, 'config.model.name')
    generator = unpack(makers[0], model.generator, 'model.generator', shape=shape, classes=classes)
    discriminator = unpack(makers[1], model.discriminator, 'model.discriminator', classes=classes)

    def generate(variables, noise, labels, context):
        params, collections = variables.params['generator'], variables.extra.get('generator', {})
        key = context.fold('dropout')
        return run(generator, params, collections, noise, labels, train=context.train, key=key)

    def judge(variables, pictures, labels, context, collections):
        # Real and fake pictures are judged apart: batch norm over both would give away which is which.
        params = variables.params['discriminator']
        key = context.fold('dropout')
        return run(discriminator, params, collections, pictures, labels, train=context.train, key=key)

    def init(key):
        label = jnp.zeros(1, jnp.int32)
        inputs = {
            'discriminator': (discriminator, jnp.zeros((1, *shape))),
            'generator': (generator, jnp.zeros((1, model.latent))),
        }
        made = {
            group: initialize(module, fold(key, group), first, label)
            for group, (module, first) in inputs.items()
        }
        extra = {group: collections for group, (_, collections) in made.items() if collections}
        return Variables({group: params for group, (params, _) in made.items()}, extra)

    return Pair(generate, judge, init)


def make_losses(pair: Pair, settings: Settings, latent: int) -> dict[str, Callable]:
    """Returns the two groups' losses; each is differentiated by its group alone: neither moves the other."""
    game, augment = adversarial_loss(settings.loss), make_augment(settings.augment)
    penalty = make_penalty(pair, settings)

    def fakes_of(variables, batch, context):
        noise = noise_of(batch, context.fold('noise'), latent)
        return pair.generate(variables, noise, batch['label'], context)

    def changed(pictures, batch, context, purpose):
        if not settings.augment:
            return pictures
        return jax.vmap(augment)(keys_of(batch, context.fold(purpose)), pictures)

    def discriminator(variables, batch, context):
        mask, labels = batch['mask'], batch['label']
        fakes, _ = fakes_of(variables, batch, context)
        fakes = changed(fakes, batch, context, 'augment fake')
        real = changed(batch['image'] * 2 - 1, batch, context, 'augment real')
        state = variables.extra.get('discriminator', {})
        real_logits, state = pair.judge(variables, real, labels, context, state)
        other = context._replace(key=context.fold('fakes'))
        fake_logits, state = pair.judge(variables, fakes, labels, other, state)
        values = game.discriminator(real_logits, fake_logits) * (0.5 if settings.halved else 1.0)
        logs = right(real_logits, fake_logits, mask, game.boundary)
        if settings.r1 or settings.gradient_penalty:
            held = penalty(variables, real, fakes, batch, context)
            values, logs['penalty'] = values + held, jnp.sum(held * mask)
        extra = {'discriminator': state} if state else {}
        outputs = {'real_logits': real_logits, 'fake_logits': fake_logits}
        return jnp.sum(values * mask), Aux(jnp.sum(mask), extra, logs, outputs)

    def generator(variables, batch, context):
        mask = batch['mask']
        fakes, state = fakes_of(variables, batch, context)
        judged = variables.extra.get('discriminator', {})
        seen = changed(fakes, batch, context, 'augment fake')
        fake_logits, _ = pair.judge(variables, seen, batch['label'], context, judged)
        extra = {'generator': state} if state else {}
        outputs = {'image': fakes, 'fake_logits': fake_logits}
        return jnp.sum(game.generator(fake_logits) * mask), Aux(jnp.sum(mask), extra, {}, outputs)

    return {'discriminator': discriminator, 'generator': generator}


def make_penalty(pair: Pair, settings: Settings) -> Callable[..., Float[Array, 'batch']]:
    """Returns the discriminator's penalty of each example, by pictures as it sees them, after augmentation."""

    def penalty(variables, real, fakes, batch, context):
        context = context._replace(key=context.fold('penalty'))
        state = variables.extra.get('discriminator', {})

        def judge(pictures):
            return pair.judge(variables, pictures, batch['label'], context, state)[0]

        def due():
            total = settings.r1 * r1_penalty(judge, real) if settings.r1 else 0.0
            if settings.gradient_penalty:
                shares = per_example(batch, context.fold('share'), jax.random.uniform)
                total += settings.gradient_penalty * gradient_penalty(judge, real, fakes, shares)
            return total

        return lazy_regularization(due, context.step, settings.penalty_every)

    return penalty


def check_penalty(config: Any, settings: Settings, pair: Pair) -> None:
    """Raises a `UserError` where a penalty would not be what it says."""
    if not (settings.r1 or settings.gradient_penalty):
        return
    extra = jax.eval_shape(pair.init, jax.random.key(0)).extra  # traced, never compiled
    if 'batch_stats' in extra.get('discriminator', {}):
        raise UserError(
            'config.task: r1 and gradient_penalty are of one picture alone, and batch norm in the discriminator mixes '
            "them: set config.model.discriminator.norm to 'group' or 'none'"
        )
    if settings.penalty_every > 1 and config.optimizer['discriminator'].update_every > 1:
        raise UserError('config.task.penalty_every above 1 needs config.optimizer.discriminator.update_every=1')


def make_encode(facts: Facts) -> Callable[..., dict[str, np.ndarray]]:
    """Returns `encode`: of a row its picture and label; of a request its label (-1: any), seed, 'to' and 'at'."""

    def encode(raw, rng=None):
        label = raw.get('label', DRAW)
        if label in facts.classes:
            label = facts.classes.index(label)
        example = {'label': whole_number(label, 'label', DRAW, len(facts.classes) - 1)}
        if 'image' in raw:
            return {**example, 'image': images.fit_image(raw['image'], facts.shape)}
        seed = whole_number(raw.get('seed', 0), 'seed', 0, SEEDS)
        to = whole_number(raw.get('to', ALONE), 'to', ALONE, SEEDS)
        return {**example, 'seed': seed, 'to': to, 'at': share(raw.get('at', 0.5), 'at')}

    return encode


def make_show(facts: Facts) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns `decode`, which describes a picture in words, and `render`, which draws all in a grid."""

    def decode(outputs):
        pixels = np.asarray(outputs['image'], np.float64)
        low, high = round(float(pixels.min()), 4), round(float(pixels.max()), 4)
        answer = {'shape': list(pixels.shape), 'min': low, 'max': high}
        if 'label' in outputs:
            answer['label'] = facts.classes[int(outputs['label'])]
        return answer

    def render(batch, outputs):
        mask = np.asarray(batch.get('mask', np.ones(len(outputs['image'])))) > 0
        return {'samples': images.grid(np.asarray(outputs['image'])[mask], 10, max(1, 48 // facts.shape[0]))}

    return decode, render


class Asked(NamedTuple):
    """How answers and measures are drawn; all that `make` has read."""

    pair: Pair
    settings: Settings
    facts: Facts
    train: Train
    latent: int
    space: Callable[[], Space]  # read when something is measured: answers need no classifier

    def draw(self, variables: Variables, batch: Any, key: jax.Array, context: Any, truncation: float = 0.0) -> tuple:
        """Returns pictures in 0 to 1 and their labels."""
        probability = np.float32(self.facts.counts) / sum(self.facts.counts)
        labels = labels_of(batch, fold(key, 'label'), probability)
        noise = noise_of(batch, key, self.latent, truncation)
        pictures, _ = self.pair.generate(variables, noise, labels, context)
        return (pictures + 1) / 2, labels


def make_predict(asked: Asked) -> Callable[..., dict[str, Array]]:
    """Returns `predict`: pictures, with their labels where the networks are told them."""

    def predict(variables, batch, context):
        key, context = context.fold('noise'), context._replace(train=False)
        pictures, labels = asked.draw(variables, batch, key, context, asked.settings.truncation)
        return {'image': pictures, 'label': labels} if asked.settings.conditional else {'image': pictures}

    return predict


def make_measures(asked: Asked) -> tuple[Callable[..., dict[str, Array]], Callable[[Any], dict[str, Metric]]]:
    """Returns `metric_sums`, sums over real and drawn pictures as points in the space of features, and `metrics`."""
    settings, train, space = asked.settings, asked.train, asked.space

    def metric_sums(variables, batch, context):
        context = context._replace(train=False)

        def sums(name, pictures, number=0):  # of wide points the first picture of each row is kept
            index, mean = batch['index'] + number * KEPT, train.moments.mean
            return cloud_sums(name, space().of(pictures), mean, index, batch['mask'], settings.kernel)

        total = None
        for number in range(settings.fakes):
            key = jax.random.fold_in(context.fold('noise'), number)
            fake = sums('fake', asked.draw(variables, batch, key, context)[0], number)
            total = fake if total is None else jax.tree.map(jnp.add, total, fake)
        return {**sums('real', batch['image']), **total}

    def metrics(sums):
        rows = cloud_metrics(sums, train, space().name, space().signature, settings.fakes, space().inception)
        return {name: Metric(*row) for name, row in rows.items()}

    return metric_sums, metrics


def inputs_of(settings: Settings, classes: int) -> dict[str, Input]:
    """Returns what a request may hold."""
    inputs = {
        'seed': Input('number', about='a whole number; another one gives another picture'),
        'to': Input('number', about='another seed: the picture lies between those of the two seeds alone'),
        'at': Input('number', about='where between them, 0 to 1; 0.5 if left out'),
    }
    if settings.conditional:
        inputs['label'] = Input('category', (), classes, f'0 to {classes - 1} or a name; any if left out')
    return inputs


def make(config: Any, folder: epath.Path, load: Callable | None = None) -> Task:
    """Returns the task; its networks are the pair `config.model.name`, its data set is `config.data.name`.

    `load` reads a trained run by its folder: the classifier whose features the metrics are of.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    settings = read_settings(config)
    facts, train = read_facts(folder), read_train(folder, settings.kernel)
    data, classes = open_images(config, facts.classes), len(facts.classes)
    model = unpack(Model, config.model, 'model')
    if model.latent < 1:
        raise UserError(f'config.model.latent must be above zero, got {model.latent}')
    told = classes if settings.conditional else 0
    pair = make_pair(model, facts.shape, told)
    source = data.source
    check_penalty(config, settings, pair)
    space = functools.cache(lambda: checked_space(settings, facts, load))
    asked = Asked(pair, settings, facts, train, model.latent, space)
    examples = [{'label': number % classes} if settings.conditional else {} for number in range(100)]
    (metric_sums, metrics), (decode, render) = make_measures(asked), make_show(facts)
    return Task(
        inputs=inputs_of(settings, classes),
        source=source,
        encode=make_encode(facts),
        init=pair.init,
        losses=make_losses(pair, settings, model.latent),
        predict=make_predict(asked),
        metric_sums=metric_sums,
        metrics=metrics,
        decode=decode,
        render=render,
        final_pictures=functools.partial(gallery.pictures, told, examples, source, facts.shape, settings.neighbours),
        examples=examples,
    )
