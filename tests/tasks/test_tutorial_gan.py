"""The tutorials' GAN detaches its fakes in the generator's step: what that does, and that ours does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from research import api
from research.core.task import Context
from research.data.batches import encode_rows, evaluation_rows
from research.families.adversarial import GANObjective, make_losses
from research.models.gan import gan_pair
from research.ops.adversarial import adversarial_loss
from research.ops.noise import noise_of


def test_a_detached_generator_gets_no_gradient_and_ours_does(tmp_path):
    config = api.read('configs/tutorials/gan.py:tiny')
    api.prepare(config, epath.Path(tmp_path))
    task = api.build(config, epath.Path(tmp_path))
    variables, context = jax.jit(task.init)(jax.random.key(0)), Context(jax.random.key(1), jnp.int32(0), True)
    batch = encode_rows(task.source('train'), task.encode, evaluation_rows(16, 16, 0), 0)
    pair = gan_pair(config.model, (8, 8, 1), 0)

    def with_generator(params):
        return variables._replace(params={**variables.params, 'generator': params})

    def ours(params):
        return task.losses['generator'](with_generator(params), batch, context)[0]

    def theirs(params):  # fake_images.detach() before the discriminator, in the generator's step too
        held, noise = with_generator(params), noise_of(batch, context.fold('noise'), pair.latent)
        fakes, _ = pair.generate(held, noise, batch['label'], context)
        logits, _ = pair.judge(held, jax.lax.stop_gradient(fakes), batch['label'], context, {})
        return jnp.sum(adversarial_loss('non_saturating').generator(logits))

    (value, moved), (other, still) = (
        jax.jit(jax.value_and_grad(each))(variables.params['generator']) for each in (ours, theirs)
    )
    np.testing.assert_allclose(value, other, rtol=1e-6)  # the same loss, so nothing shows in the log
    assert all(np.any(leaf) for leaf in jax.tree.leaves(moved))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(still))

    settings = GANObjective(*(config.task[name] for name in GANObjective._fields))
    assert settings.halved

    def discriminator(variables, settings):
        return make_losses(pair, settings)['discriminator'](variables, batch, context)[0]

    halved, whole = (
        jax.jit(functools.partial(discriminator, settings=each))(variables)
        for each in (settings, settings._replace(halved=False))
    )
    np.testing.assert_allclose(float(halved) * 2, float(whole), rtol=1e-6)
