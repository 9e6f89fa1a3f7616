"""New pictures like those of a data set: a generative adversarial network (Goodfellow et al. 2014).

A training row is {'image', 'label'}; a request may be empty, or hold a 'seed' and, where the network is told
what to draw, a 'label'. Two groups play against each other: 'discriminator', then 'generator'.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Int

from research.core.task import Aux, Figure, Input, Task, Variables, fold
from research.data import images
from research.data.image_sets import image_set
from research.errors import UserError, choose, unpack
from research.nn import gan
from research.nn.apply import initialize, run
from research.ops.frechet import Moments, frechet_distance, moment_sums, moments
from research.ops.losses import adversarial_loss

PAIRS = {'mlp': (gan.MLPGenerator, gan.MLPDiscriminator), 'conv': (gan.ConvGenerator, gan.ConvDiscriminator)}
DRAW = -1  # the label of a request that has none: one is drawn
PARTS = ('count', 'sum', 'square')  # of `moment_sums`


class Settings(NamedTuple):
    """Settings of `config.task`."""

    loss: str = 'non_saturating'  # or 'hinge'
    conditional: bool = False  # generator and discriminator are told the label
    fakes: int = 4  # pictures drawn for each real one when the figures are computed
    pixels: int = 16  # the figures see pictures shrunk to at most so many pixels along a side


class Model(NamedTuple):
    """Settings of `config.model`; 'generator' and 'discriminator' are those of their modules."""

    name: str
    generator: dict
    discriminator: dict
    latent: int = 64  # numbers of noise that a picture is made from


class Facts(NamedTuple):
    """What `prepare` stores of the training split: classes, and moments as the figures see pixels."""

    classes: tuple  # names, in the order of the labels
    shape: tuple  # height, width, channels
    counts: tuple  # rows per class
    moments: Moments


class Pair(NamedTuple):
    """The two networks, as functions of `Variables`."""

    generate: Callable  # (variables, noise, labels, context) -> (pictures in -1 to 1, new collections)
    judge: Callable  # (variables, pictures, labels, context, collections) -> (logits, new collections)
    init: Callable  # (key) -> Variables


def read_settings(config: Any) -> Settings:
    """Returns the settings of `config.task`; a `UserError` for impossible ones."""
    settings = unpack(Settings, {k: v for k, v in config.task.items() if k != 'name'}, 'task')
    if settings.fakes < 1 or settings.pixels < 1:
        raise UserError('config.task: fakes and pixels must be above zero')
    return settings


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores class names and counts, and the moments of the training pictures, in 'statistics.json'."""
    data, settings = image_set(config.data), read_settings(config)
    rows = data.source('train')
    counts = np.bincount([row['label'] for row in rows], minlength=len(data.classes))
    count, total, square = len(rows), 0.0, 0.0
    for start in range(0, count, 1024):
        part = [
            images.fit_image(rows[row]['image'], data.shape) for row in range(start, min(count, start + 1024))
        ]
        pixels = np.asarray(seen(np.stack(part), settings.pixels), np.float64)
        total, square = total + pixels.sum(0), square + pixels.T @ pixels
    mean, covariance = moments(count, total, square)
    facts = Facts(data.classes, data.shape, tuple(counts.tolist()), (mean.tolist(), covariance.tolist()))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'statistics.json').write_text(json.dumps(facts._asdict()))


def read_facts(folder: epath.Path) -> Facts:
    """Returns what `prepare` stored."""
    stored = json.loads((folder / 'statistics.json').read_text())
    measured = Moments(*map(np.array, stored['moments']))
    return Facts(tuple(stored['classes']), tuple(stored['shape']), tuple(stored['counts']), measured)


def seen(pictures: Float[Array, 'batch height width channels'], most: int) -> Float[Array, 'batch values']:
    """Returns pictures as the figures see them: at most `most` pixels along a side, and flattened."""
    count, height, width, channels = pictures.shape
    if max(height, width) > most:
        size = (max(1, height * most // max(height, width)), max(1, width * most // max(height, width)))
        pictures = jax.image.resize(pictures, (count, *size, channels), 'linear', antialias=True)
    return pictures.reshape(count, -1)


def make_pair(model: Model, shape: tuple[int, int, int], classes: int) -> Pair:
    """Returns the networks named by `config.model`; `classes` 0 where they are not told the label."""
    makers = choose(model.name, PAIRS, 'config.model.name')
    generator = unpack(makers[0], model.generator, 'model.generator', shape=shape, classes=classes)
    discriminator = unpack(makers[1], model.discriminator, 'model.discriminator', classes=classes)

    def generate(variables, noise, labels, context):
        params, collections = variables.params['generator'], variables.extra.get('generator', {})
        return run(
            generator, params, collections, noise, labels, train=context.train, key=context.fold('dropout')
        )

    def judge(variables, pictures, labels, context, collections):
        # Real and fake pictures are judged apart: batch norm over both would give away which is which.
        params = variables.params['discriminator']
        return run(
            discriminator,
            params,
            collections,
            pictures,
            labels,
            train=context.train,
            key=context.fold('dropout'),
        )

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


def noise_of(batch: Any, key: jax.Array, latent: int) -> Float[Array, 'batch latent']:
    """Returns standard normal noise; a row's depends on its index and seed, not on the batch it is in."""
    return per_example(batch, key, lambda each: jax.random.normal(each, (latent,)))


def labels_of(batch: Any, key: jax.Array, probability: np.ndarray) -> Int[Array, 'batch']:
    """Returns the labels of a batch; one that is missing is drawn, as often as in the training split."""
    drawn = per_example(batch, key, lambda each: jax.random.categorical(each, jnp.log(probability)))
    return jnp.where(batch['label'] == DRAW, drawn, batch['label'])


def per_example(batch: Any, key: jax.Array, draw: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Returns `draw(key)` for each row, with a key of its own from its index and, in a request, its seed."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch['index'])
    if 'seed' in batch:
        keys = jax.vmap(jax.random.fold_in)(keys, batch['seed'])
    return jax.vmap(draw)(keys)


def make_losses(pair: Pair, settings: Settings, latent: int) -> dict[str, Callable]:
    """Returns the two groups' losses; each is differentiated by its group alone: neither moves the other."""
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


def make_figures(facts: Facts, settings: Settings) -> Callable[[Any], dict[str, Figure]]:
    """Returns `figures`: the Fréchet distance in pixel space, beside that of real pictures and of noise."""
    size = len(facts.moments.mean)
    # The sums are of deviations from the training mean, so that mean is zero there.
    train = facts.moments._replace(mean=np.zeros(size))
    independent = train._replace(covariance=np.diag(np.diag(train.covariance)))
    space = f'of {size} pixel values in 0 to 1'
    noise = 'pixels drawn one by one, normal, with their training mean and deviation'

    def read(sums, name):
        return moments(*(sums[f'{name}_{part}'] for part in PARTS))

    def figures(sums):
        real, fake = read(sums, 'real'), read(sums, 'fake')
        baseline = frechet_distance(independent, real)
        return {
            'frechet_pixels': Figure(
                frechet_distance(fake, real),
                baseline,
                'lower',
                f'Fréchet distance {space} (not of Inception features), {settings.fakes} generated pictures '
                'for each of this split',
                noise,
            ),
            'frechet_pixels_floor': Figure(
                frechet_distance(train, real),
                baseline,
                'lower',
                f'the same {space} from the training pictures to this split: as near as real ones are',
                noise,
            ),
            'spread': Figure(
                float(np.trace(fake.covariance) / np.trace(real.covariance)),
                better='',
                about='variance of the generated pictures over that of the real ones: 1 is right',
            ),
        }

    return figures


def whole_number(value: Any, name: str, low: int, high: int) -> np.int32:
    """Returns a request's number as int32; a `UserError` where it is not a whole one in range."""
    try:
        number = int(value)
        fits = number == float(value) and low <= number <= high
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise UserError(f'{name} must be a whole number from {low} to {high}, got {value!r}')
    return np.int32(number)


def make_encode(facts: Facts) -> Callable[..., dict[str, np.ndarray]]:
    """Returns `encode`: of a row its picture and label; of a request its label (-1: any) and seed."""

    def encode(raw, rng=None):
        label = raw.get('label', DRAW)
        if label in facts.classes:
            label = facts.classes.index(label)
        example = {'label': whole_number(label, 'label', DRAW, len(facts.classes) - 1)}
        if 'image' in raw:
            return {**example, 'image': images.fit_image(raw['image'], facts.shape)}
        return {**example, 'seed': whole_number(raw.get('seed', 0), 'seed', 0, 2**31 - 1)}

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


def make(config: Any, folder: epath.Path) -> Task:
    """Returns the task; its networks are the pair `config.model.name`, its data set is `config.data.name`.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    facts, settings = read_facts(folder), read_settings(config)
    data = image_set(config.data, facts.classes, facts.shape)
    classes = len(facts.classes)
    model = unpack(Model, config.model, 'model')
    if model.latent < 1:
        raise UserError(f'config.model.latent must be above zero, got {model.latent}')
    pair = make_pair(model, facts.shape, classes if settings.conditional else 0)
    probability = np.float32(facts.counts) / sum(facts.counts)
    mean = np.float32(facts.moments.mean)

    def drawn(variables, batch, key, context):
        labels = labels_of(batch, fold(key, 'label'), probability)
        pictures, _ = pair.generate(variables, noise_of(batch, key, model.latent), labels, context)
        return (pictures + 1) / 2, labels

    def predict(variables, batch, context):
        pictures, labels = drawn(variables, batch, context.fold('noise'), context._replace(train=False))
        return {'image': pictures, 'label': labels} if settings.conditional else {'image': pictures}

    def metrics(variables, batch, context):
        context = context._replace(train=False)

        def sums(name, pictures):
            parts = moment_sums(seen(pictures, settings.pixels) - mean, batch['mask'])
            return {f'{name}_{part}': value for part, value in zip(PARTS, parts, strict=True)}

        total = None
        for number in range(settings.fakes):
            key = jax.random.fold_in(context.fold('noise'), number)
            fake = sums('fake', drawn(variables, batch, key, context)[0])
            total = fake if total is None else jax.tree.map(jnp.add, total, fake)
        return {**sums('real', batch['image']), **total}

    inputs = {'seed': Input('number', about='a whole number; another one gives another picture')}
    if settings.conditional:
        inputs['label'] = Input('category', (), classes, f'0 to {classes - 1} or a name; any if left out')
    examples = [{'label': number % classes} if settings.conditional else {} for number in range(100)]
    decode, render = make_show(facts)
    return Task(
        inputs=inputs,
        source=data.source,
        encode=make_encode(facts),
        init=pair.init,
        losses=make_losses(pair, settings, model.latent),
        predict=predict,
        metrics=metrics,
        figures=make_figures(facts, settings),
        decode=decode,
        render=render,
        examples=examples,
    )
