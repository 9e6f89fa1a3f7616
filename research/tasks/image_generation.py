"""New pictures like those of a data set: a generative adversarial network (Goodfellow et al. 2014).

A training row is {'image', 'label'}; a request is {}, or {'label'} where the network is told what to draw. Two
groups play against each other: 'discriminator', then 'generator'.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from research.core.task import Aux, Figure, Input, Task, Variables, fold
from research.data import images
from research.data.image_sets import image_set
from research.errors import UserError, choose, unpack
from research.nn import gan
from research.nn.apply import initialize, run
from research.ops.frechet import Moments, frechet_distance, moment_sums, moments
from research.ops.losses import adversarial_loss

PAIRS = {'mlp': (gan.MLPGenerator, gan.MLPDiscriminator), 'conv': (gan.ConvGenerator, gan.ConvDiscriminator)}
DRAW = -1  # the label of a request that has none: the network draws one


class Settings(NamedTuple):
    """Settings of `config.task`."""

    loss: str = 'non_saturating'
    conditional: bool = False  # generator and discriminator are told the label
    fakes: int = 4  # pictures drawn for each real one when the figures are computed


class Model(NamedTuple):
    """Settings of `config.model`; 'generator' and 'discriminator' are those of their modules."""

    name: str
    generator: dict
    discriminator: dict
    latent: int = 64


class Facts(NamedTuple):
    """What `prepare` stores of the training split: `Moments` of the flattened pixels, and rows per class."""

    mean: np.ndarray
    covariance: np.ndarray
    counts: np.ndarray


class Pair(NamedTuple):
    """The two networks, and how one calls them: on `Variables`, with keys and labels in a batch."""

    generate: Callable  # (variables, noise, labels, context) -> (images in -1..1, new collections)
    judge: Callable  # (variables, images, labels, context, collections) -> (logits, new collections)
    init: Callable


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores the moments of the training pictures and the class counts in 'statistics.npz'."""
    data = image_set(config.data)
    rows = data.source('train')
    pixels = np.stack([images.fit_image(row['image'], data.shape).reshape(-1) for row in rows]).astype(np.float64)
    counts = np.bincount([row['label'] for row in rows], minlength=len(data.classes))
    facts = Facts(pixels.mean(0), np.cov(pixels, rowvar=False), counts)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'statistics.npz').open('wb') as file:
        np.savez(file, **facts._asdict())


def make_pair(model: Model, shape: tuple[int, int, int], classes: int) -> Pair:
    """Returns the networks named by `config.model`; `classes` 0 where they are not told the label."""
    makers = choose(model.name, PAIRS, 'config.model.name')
    generator = unpack(makers[0], model.generator, 'model.generator', shape=shape, classes=classes)
    discriminator = unpack(makers[1], model.discriminator, 'model.discriminator', classes=classes)

    def generate(variables, noise, labels, context):
        params, collections = variables.params['generator'], variables.extra.get('generator', {})
        return run(generator, params, collections, noise, labels, train=context.train, key=context.fold('dropout'))

    def judge(variables, pictures, labels, context, collections):
        # Real and fake pictures are judged apart: batch norm over both would tell the discriminator which is which.
        params = variables.params['discriminator']
        return run(
            discriminator, params, collections, pictures, labels, train=context.train, key=context.fold('dropout')
        )

    def init(key):
        label = jnp.zeros(1, jnp.int32)
        inputs = {
            'discriminator': (discriminator, jnp.zeros((1, *shape))),
            'generator': (generator, jnp.zeros((1, model.latent))),
        }
        made = {
            group: initialize(module, fold(key, group), first, label) for group, (module, first) in inputs.items()
        }
        extra = {group: collections for group, (_, collections) in made.items() if collections}
        return Variables({group: params for group, (params, _) in made.items()}, extra)

    return Pair(generate, judge, init)


def noise_of(batch: Any, key: jax.Array, latent: int) -> jax.Array:
    """Returns standard normal noise [batch, latent]; a row's depends on its index (and seed) alone, not on the batch."""

    def one(index, seed):
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, index), seed), (latent,))

    return jax.vmap(one)(batch['index'], batch.get('seed', jnp.zeros_like(batch['index'])))


def labels_of(batch: Any, key: jax.Array, probability: np.ndarray) -> jax.Array:
    """Returns the labels of a batch; where one is missing it is drawn, as often as in the training split."""
    seed = batch.get('seed', jnp.zeros_like(batch['index']))

    def one(index, seed, label):
        drawn = jax.random.choice(
            jax.random.fold_in(jax.random.fold_in(key, index), seed), len(probability), p=jnp.asarray(probability)
        )
        return jnp.where(label == DRAW, drawn, label)

    return jax.vmap(one)(batch['index'], seed, batch.get('label', jnp.full_like(batch['index'], DRAW)))


def make_losses(pair: Pair, settings: Settings, latent: int) -> dict[str, Callable]:
    """Returns the two groups' losses. Each is differentiated by its own group alone, so neither moves the other."""
    game = adversarial_loss(settings.loss)

    def fakes_of(variables, batch, context):
        noise = noise_of(batch, context.fold('noise'), latent)
        return pair.generate(variables, noise, batch['label'], context)

    def discriminator(variables, batch, context):
        mask, labels = batch['mask'], batch['label']
        fakes, _ = fakes_of(variables, batch, context)
        real = batch['image'] * 2 - 1
        state = variables.extra.get('discriminator', {})
        real_logits, state = pair.judge(variables, real, labels, context, state)
        other = context._replace(key=context.fold('fakes'))
        fake_logits, state = pair.judge(variables, fakes, labels, other, state)
        values = game.discriminator(real_logits, fake_logits)
        logs = {
            'real_right': jnp.sum((real_logits > 0) * mask),
            'fake_right': jnp.sum((fake_logits < 0) * mask),
        }
        extra = {'discriminator': state} if state else {}
        outputs = {'real_logits': real_logits, 'fake_logits': fake_logits}
        return jnp.sum(values * mask), Aux(jnp.sum(mask), extra, logs, outputs)

    def generator(variables, batch, context):
        mask = batch['mask']
        fakes, state = fakes_of(variables, batch, context)
        judged = variables.extra.get('discriminator', {})
        fake_logits, _ = pair.judge(variables, fakes, batch['label'], context, judged)
        extra = {'generator': state} if state else {}
        outputs = {'image': fakes, 'fake_logits': fake_logits}
        return jnp.sum(game.generator(fake_logits) * mask), Aux(jnp.sum(mask), extra, {}, outputs)

    return {'discriminator': discriminator, 'generator': generator}


def make_figures(facts: Facts, fakes: int) -> Callable[[Any], dict[str, Figure]]:
    """Returns `figures`: the Fréchet distance in pixel space, beside that of real pictures and of noise."""
    train = Moments(facts.mean, facts.covariance)
    pixels = len(facts.mean)

    def figures(sums):
        def read(name):
            return moments(*(sums[f'{name}_{part}'] for part in ('count', 'sum', 'square')))

        real, fake = read('real'), read('fake')
        # Sums are of deviations from the training mean, so the training mean is zero there.
        centred = train._replace(mean=np.zeros(pixels))
        independent = centred._replace(covariance=np.diag(np.diag(train.covariance)))
        baseline = frechet_distance(independent, real)
        noise = 'each pixel drawn by itself, normal with its training mean and deviation'
        space = f'in pixel space ({pixels} values in 0 to 1), which says little of what a person sees'
        spread = float(np.trace(fake.covariance) / np.trace(real.covariance))
        return {
            'frechet_pixels': Figure(
                frechet_distance(fake, real), baseline, 'lower',
                f'Fréchet distance of {fakes} generated pictures for each real one to this split, {space}', noise,
            ),
            'frechet_pixels_floor': Figure(
                frechet_distance(centred, real), baseline, 'lower',
                f'the same of the training pictures to this split: what a perfect generator could reach, {space}', noise,
            ),
            'spread': Figure(
                spread, None, '', 'total variance of the generated pictures over that of the real ones; 1 is right', ''
            ),
        }  # fmt: skip

    return figures


def make_encode(shape: tuple[int, int, int], classes: tuple[str, ...]) -> Callable[..., dict[str, np.ndarray]]:
    """Returns `encode`: of a row its picture and label; of a request its label (-1: any) and seed."""

    def encode(raw, rng=None):
        label = raw.get('label', DRAW)
        if label != DRAW and not 0 <= int(label) < len(classes):
            raise UserError(f'label {label!r} must be 0 to {len(classes) - 1} ({", ".join(classes)})')
        example = {'label': np.int32(label)}
        if 'image' in raw:
            example['image'] = images.fit_image(raw['image'], shape)
        else:
            example['seed'] = np.int32(raw.get('seed', 0))
        return example

    return encode


def make(config: Any, folder: epath.Path) -> Task:
    """Returns the task; its networks are the pair `config.model.name`, its data set is `config.data.name`.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    data = image_set(config.data)
    with (folder / 'statistics.npz').open('rb') as file:
        facts = Facts(**np.load(file))
    settings = unpack(Settings, {k: v for k, v in config.task.items() if k != 'name'}, 'task')
    model = unpack(Model, config.model, 'model')
    if settings.fakes < 1 or model.latent < 1:
        raise UserError('config.task.fakes and config.model.latent must be above zero')
    pair = make_pair(model, data.shape, len(data.classes) if settings.conditional else 0)
    probability = np.float32(facts.counts / facts.counts.sum())
    mean = np.float32(facts.mean)

    def drawn(variables, batch, key, context):
        labels = labels_of(batch, fold(key, 'label'), probability)
        pictures, _ = pair.generate(variables, noise_of(batch, key, model.latent), labels, context)
        return (pictures + 1) / 2, labels

    def predict(variables, batch, context):
        pictures, labels = drawn(variables, batch, context.fold('noise'), context._replace(train=False))
        return {'image': pictures, 'label': labels} if settings.conditional else {'image': pictures}

    def metrics(variables, batch, context):
        context, mask = context._replace(train=False), batch['mask']
        sums = {}

        def add(name, pictures):
            parts = moment_sums(pictures.reshape(len(mask), -1) - mean, mask)
            for part, value in zip(('count', 'sum', 'square'), parts, strict=True):
                sums[f'{name}_{part}'] = sums.get(f'{name}_{part}', 0.0) + value

        add('real', batch['image'])
        for number in range(settings.fakes):
            key = jax.random.fold_in(context.fold('noise'), number)
            add('fake', drawn(variables, batch, key, context)[0])
        return sums

    def decode(outputs):
        pixels = np.asarray(outputs['image'], np.float64)
        about = {'shape': list(pixels.shape), 'min': round(float(pixels.min()), 4), 'max': round(float(pixels.max()), 4)}
        return {**about, 'label': data.classes[int(outputs['label'])]} if settings.conditional else about

    def render(batch, outputs):
        mask = np.asarray(batch.get('mask', np.ones(len(outputs['image']))))
        return {'samples': images.grid(np.asarray(outputs['image'])[mask > 0], 10, max(1, 32 // data.shape[0]))}

    about = {'seed': Input('number', about='another number, another picture')}
    if settings.conditional:
        about['label'] = Input('category', (), len(data.classes), f'one of 0 to {len(data.classes) - 1}; any if left out')
    return Task(
        inputs=about,
        source=data.source,
        encode=make_encode(data.shape, data.classes),
        init=pair.init,
        losses=make_losses(pair, settings, model.latent),
        predict=predict,
        metrics=metrics,
        figures=make_figures(facts, settings.fakes),
        decode=decode,
        render=render,
        examples=[{'label': number % len(data.classes)} if settings.conditional else {} for number in range(100)],
    )
