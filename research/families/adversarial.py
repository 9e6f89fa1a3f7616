"""Generative adversarial networks: a task of two groups that play against each other (Goodfellow et al. 2014).

`adversarial` makes the `Task`: losses, penalties, predictions, and metrics of drawn examples beside real ones.
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
from research.ops.adversarial import adversarial_loss, gradient_penalty, lazy_regularization, r1_penalty, right
from research.ops.diff_augment import make_augment
from research.ops.generative_metrics import Train, cloud_metrics, cloud_sums
from research.ops.kernel_distance import KEPT
from research.ops.noise import keys_of, labels_of, noise_of, per_example


class Game(NamedTuple):
    """How the two groups play."""

    loss: str  # of `ops.adversarial.adversarial_loss`
    halved: bool  # the discriminator's loss is the mean of its real and fake parts, not their sum
    r1: float  # gamma of the penalty on slopes at real images
    gradient_penalty: float  # lambda of the penalty on slopes between real and fake ones
    penalty_every: int  # updates of the discriminator from one penalty to the next
    augment: tuple  # of 'color', 'translation', 'cutout': what the discriminator sees of real and fake


class Sampler(NamedTuple):
    """How images are drawn."""

    pair: Pair
    probability: Float[np.ndarray, 'classes']  # of each label, where a request has none
    truncation: float  # of the noise of answers; 0: none

    def draw(self, variables: Variables, batch: Batch, key: Array, context: Context, truncation: float = 0.0) -> tuple:
        """Images in 0 to 1 and their labels."""
        labels = labels_of(batch, fold(key, 'label'), self.probability)
        noise = noise_of(batch, key, self.pair.latent, truncation)
        images, _ = self.pair.generate(variables, noise, labels, context)
        return (images + 1) / 2, labels


class Measures(NamedTuple):
    """How drawn images are held against real ones, as points in a space of features."""

    train: Train  # of the training images
    space: Callable[[], Any]  # -> `interop.features.Space`; read when something is measured, since answers need none
    fakes: int  # images drawn for each real one
    kernel: bool  # also the kernel distance


def adversarial(
    host: Host, source: Callable, sampler: Sampler, game: Game, measures: Measures, labelled: bool, **more: Any
) -> Task:
    """A task that draws images.

    Args:
      host: inputs, encode and decode; a row has 'image' in 0 to 1 and 'label', a request as `ops.noise` reads it.
      source: (split) -> rows.
      sampler: the networks and how they are asked.
      game: the losses.
      measures: the metrics.
      labelled: whether the networks are told labels, so that answers have them.
      **more: further fields of `Task`.
    """

    def predict(variables, batch, context):
        key, context = context.fold('noise'), context._replace(train=False)
        images, labels = sampler.draw(variables, batch, key, context, sampler.truncation)
        return {'image': images, 'label': labels} if labelled else {'image': images}

    def metric_sums(variables, batch, context):
        context = context._replace(train=False)

        def sums(name, images, number=0):  # of wide points the first image of each row is kept
            index, mean = batch['index'] + number * KEPT, measures.train.moments.mean
            return cloud_sums(name, measures.space().of(images), mean, index, batch['mask'], measures.kernel)

        total = None
        for number in range(measures.fakes):
            key = jax.random.fold_in(context.fold('noise'), number)
            fake = sums('fake', sampler.draw(variables, batch, key, context)[0], number)
            total = fake if total is None else jax.tree.map(jnp.add, total, fake)
        return {**sums('real', batch['image']), **total}

    def metrics(sums):
        space = measures.space()
        rows = cloud_metrics(sums, measures.train, space.name, space.signature, measures.fakes, space.inception)
        return {name: Metric(*row) for name, row in rows.items()}

    return Task(
        source=source, init=sampler.pair.init, losses=make_losses(sampler.pair, game), predict=predict,
        metric_sums=metric_sums, metrics=metrics, **{**host._asdict(), **more},
    )  # fmt: skip


def make_losses(pair: Pair, settings: Game) -> dict[str, Callable]:
    """The two groups' losses; each is differentiated by its group alone: neither moves the other."""
    game, augment = adversarial_loss(settings.loss), make_augment(settings.augment)
    penalty = make_penalty(pair, settings)

    def fakes_of(variables, batch, context):
        noise = noise_of(batch, context.fold('noise'), pair.latent)
        return pair.generate(variables, noise, batch['label'], context)

    def changed(images, batch, context, purpose):
        if not settings.augment:
            return images
        return jax.vmap(augment)(keys_of(batch, context.fold(purpose)), images)

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
            slopes = penalty(variables, real, fakes, batch, context)
            values, logs['penalty'] = values + slopes, jnp.sum(slopes * mask)
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


def make_penalty(pair: Pair, settings: Game) -> Callable[..., Float[Array, 'batch']]:
    """The discriminator's penalty of each example, by images as it sees them, after augmentation."""

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

        return lazy_regularization(due, context.step, settings.penalty_every)

    return penalty


def check_penalty(config: Any, settings: Game, pair: Pair) -> None:
    """Raises a `UserError` where the network or the optimizer of the discriminator does not allow a penalty."""
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
