"""Generative adversarial networks: tasks with two adversarial parameter groups (Goodfellow et al. 2014).

`adversarial` builds the `Task`: losses, penalties, predictions, and metrics of generated against real examples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.core.task import Aux, Batch, Context, Host, Metric, Task, Variables, fold
from research.errors import UserError
from research.models.gan import Pair
from research.ops.adversarial import (
    adversarial_loss,
    discriminator_accuracy,
    gradient_penalty,
    lazy_regularization,
    r1_penalty,
)
from research.ops.diff_augment import make_augment
from research.ops.generative_metrics import ReferenceStats, cloud_metrics, cloud_sums
from research.ops.kernel_distance import MAX_STORED_POINTS
from research.ops.noise import keys_of, labels_of, noise_of, per_example


class GANObjective(NamedTuple):
    """Losses and penalties of the two groups."""

    loss: str  # name, see `ops.adversarial.adversarial_loss`
    halved: bool  # average the real and fake parts of the discriminator's loss instead of adding them
    r1: float  # gamma of the R1 gradient penalty on real images; 0: off
    gradient_penalty: float  # lambda of the WGAN-GP gradient penalty; 0: off
    penalty_every: int  # discriminator updates between penalties
    augment: tuple  # DiffAugment policies: 'color', 'translation', 'cutout'


class Sampler(NamedTuple):
    """Draws images from a generator."""

    pair: Pair
    probability: Float[np.ndarray, 'classes']  # distribution of labels for requests without one
    truncation: float  # truncates the noise of predictions; 0: off

    def draw(self, variables: Variables, batch: Batch, key: Array, context: Context, truncation: float = 0.0) -> tuple:
        """Returns images in [0, 1] and their labels."""
        labels = labels_of(batch, fold(key, 'label'), self.probability)
        noise = noise_of(batch, key, self.pair.latent, truncation)
        images, _ = self.pair.generate(variables, noise, labels, context)
        return (images + 1) / 2, labels


class SampleMetrics(NamedTuple):
    """How generated images are compared with real ones in a feature space."""

    train: ReferenceStats  # statistics of the training images
    space: Callable[[], Any]  # -> `interop.features.Space`; a function, because predictions do not need it
    fakes: int  # generated images per real image
    kernel: bool  # also compute the kernel distance


def adversarial(
    host: Host, source: Callable, sampler: Sampler, objective: GANObjective, sample_metrics: SampleMetrics,
    labelled: bool, **more: Any,
) -> Task:  # fmt: skip
    """Builds a task that generates images.

    Args:
      host: inputs, encode and decode. Rows have 'image' in [0, 1] and 'label'; for requests see `ops.noise`.
      source: (split) -> rows.
      sampler: the networks and the distribution of their inputs.
      objective: losses and penalties.
      sample_metrics: settings of the metrics.
      labelled: whether the networks are conditional; predictions then include the label.
      **more: further fields of `Task`.
    """

    def predict(variables, batch, context):
        key, context = context.fold('noise'), context._replace(train=False)
        images, labels = sampler.draw(variables, batch, key, context, sampler.truncation)
        return {'image': images, 'label': labels} if labelled else {'image': images}

    def metric_sums(variables, batch, context):
        context = context._replace(train=False)

        def sums(name, images, number=0):  # `number` keeps the stored points of several fakes per row apart
            index, mean = batch['index'] + number * MAX_STORED_POINTS, sample_metrics.train.moments.mean
            features = sample_metrics.space().of(images)
            return cloud_sums(name, features, mean, index, batch['mask'], sample_metrics.kernel)

        total = None
        for number in range(sample_metrics.fakes):
            key = jax.random.fold_in(context.fold('noise'), number)
            fake = sums('fake', sampler.draw(variables, batch, key, context)[0], number)
            total = fake if total is None else jax.tree.map(jnp.add, total, fake)
        return {**sums('real', batch['image']), **total}  # pyright: ignore[reportGeneralTypeIssues]

    def metrics(sums):
        space = sample_metrics.space()
        rows = cloud_metrics(
            sums, sample_metrics.train, space.name, space.signature, sample_metrics.fakes, space.inception
        )
        return {name: Metric(*row) for name, row in rows.items()}

    return Task(
        source=source, init=sampler.pair.init, losses=make_losses(sampler.pair, objective), predict=predict,
        metric_sums=metric_sums, metrics=metrics, **{**host._asdict(), **more},
    )  # fmt: skip


def make_losses(pair: Pair, settings: GANObjective) -> dict[str, Callable]:
    """Builds the losses of both groups; each is differentiated with respect to its own group only."""
    loss, augment = adversarial_loss(settings.loss), make_augment(settings.augment)
    penalty = make_penalty(pair, settings)

    def fakes_of(variables, batch, context):
        noise = noise_of(batch, context.fold('noise'), pair.latent)
        return pair.generate(variables, noise, batch['label'], context)

    def augmented(images, batch, context, purpose):
        if not settings.augment:
            return images
        return jax.vmap(augment)(keys_of(batch, context.fold(purpose)), images)

    def discriminator(variables, batch, context):
        mask, labels = batch['mask'], batch['label']
        fakes, _ = fakes_of(variables, batch, context)
        fakes = augmented(fakes, batch, context, 'augment fake')
        real = augmented(batch['image'] * 2 - 1, batch, context, 'augment real')
        state = variables.extra.get('discriminator', {})
        real_logits, state = pair.judge(variables, real, labels, context, state)
        other = context._replace(key=context.fold('fakes'))
        fake_logits, state = pair.judge(variables, fakes, labels, other, state)
        values = loss.discriminator(real_logits, fake_logits) * (0.5 if settings.halved else 1.0)
        logs = discriminator_accuracy(real_logits, fake_logits, mask, loss.boundary)
        if settings.r1 or settings.gradient_penalty:
            penalties = penalty(variables, real, fakes, batch, context)
            values, logs['penalty'] = values + penalties, jnp.sum(penalties * mask)
        extra = {'discriminator': state} if state else {}
        outputs = {'real_logits': real_logits, 'fake_logits': fake_logits}
        return jnp.sum(values * mask), Aux(jnp.sum(mask), extra, logs, outputs)

    def generator(variables, batch, context):
        mask = batch['mask']
        fakes, state = fakes_of(variables, batch, context)
        judged = variables.extra.get('discriminator', {})
        seen = augmented(fakes, batch, context, 'augment fake')
        fake_logits, _ = pair.judge(variables, seen, batch['label'], context, judged)
        extra = {'generator': state} if state else {}
        outputs = {'image': fakes, 'fake_logits': fake_logits}
        return jnp.sum(loss.generator(fake_logits) * mask), Aux(jnp.sum(mask), extra, {}, outputs)

    return {'discriminator': discriminator, 'generator': generator}


def make_penalty(pair: Pair, settings: GANObjective) -> Callable[..., Float[Array, 'batch']]:
    """Builds the discriminator's gradient penalty per example, on augmented images."""

    def penalty(variables, real, fakes, batch, context):
        context = context._replace(key=context.fold('penalty'))
        state = variables.extra.get('discriminator', {})

        def judge(images):
            return pair.judge(variables, images, batch['label'], context, state)[0]

        def due():
            total = settings.r1 * r1_penalty(judge, real) if settings.r1 else 0.0
            if settings.gradient_penalty:
                shares = per_example(batch, context.fold('share'), jax.random.uniform)
                total += settings.gradient_penalty * gradient_penalty(judge, real, fakes, shares)
            return total

        return lazy_regularization(due, context.step, settings.penalty_every)  # pyright: ignore[reportArgumentType]

    return penalty


def check_penalty(config: Any, settings: GANObjective, pair: Pair) -> None:
    """Raises `UserError` if the discriminator's network or optimizer does not allow a gradient penalty."""
    if not (settings.r1 or settings.gradient_penalty):
        return
    extra = jax.eval_shape(pair.init, jax.random.key(0)).extra  # traced, never compiled
    if 'batch_stats' in extra.get('discriminator', {}):
        raise UserError(
            'config.task: r1 and gradient_penalty are computed per image, but batch norm in the discriminator mixes '
            "images: set config.model.discriminator.norm to 'group' or 'none'"
        )
    if settings.penalty_every > 1 and config.optimizer['discriminator'].update_every > 1:
        raise UserError('config.task.penalty_every > 1 requires config.optimizer.discriminator.update_every=1')
