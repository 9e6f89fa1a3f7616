"""The tutorials' GAN detaches its fakes in the generator's step: what that does, and that ours does not."""

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from research import api
from research.core.task import Context
from research.data.batches import encode_rows, evaluation_rows
from research.ops.adversarial import adversarial_loss
from research.tasks import image_generation


def test_a_detached_generator_gets_no_gradient_and_ours_does(tmp_path):
    config = api.read('configs/tutorials/gan.py:tiny')
    api.prepare(config, epath.Path(tmp_path))
    task = api.build(config, epath.Path(tmp_path))
    variables, context = task.init(jax.random.key(0)), Context(jax.random.key(1), jnp.int32(0), True)
    batch = encode_rows(task.source('train'), task.encode, evaluation_rows(16, 16, 0), 0)
    model = image_generation.Model(**config.model)
    pair = image_generation.make_pair(model, (8, 8, 1), 0)

    def ours(params):
        return task.losses['generator'](variables._replace(params={**variables.params, 'generator': params}), batch, context)[0]

    def theirs(params):  # fake_images.detach() before the discriminator, in the generator's step too
        held = variables._replace(params={**variables.params, 'generator': params})
        noise = image_generation.noise_of(batch, context.fold('noise'), model.latent)
        fakes, _ = pair.generate(held, noise, batch['label'], context)
        logits, _ = pair.judge(held, jax.lax.stop_gradient(fakes), batch['label'], context, {})
        return jnp.sum(adversarial_loss('non_saturating').generator(logits))

    (value, moved), (other, still) = (jax.value_and_grad(each)(variables.params['generator']) for each in (ours, theirs))
    np.testing.assert_allclose(value, other, rtol=1e-6)  # the same loss, so nothing shows in the log
    assert all(np.any(leaf) for leaf in jax.tree.leaves(moved))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(still))


def test_the_discriminators_loss_is_halved(tmp_path):
    values = []
    for halved in ('true', 'false'):
        config = api.read('configs/tutorials/gan.py:tiny', {'task.halved': halved})
        api.prepare(config, epath.Path(tmp_path))
        task = api.build(config, epath.Path(tmp_path))
        context = Context(jax.random.key(1), jnp.int32(0), True)
        batch = encode_rows(task.source('train'), task.encode, evaluation_rows(4, 4, 0), 0)
        values.append(float(task.losses['discriminator'](task.init(jax.random.key(0)), batch, context)[0]))
    np.testing.assert_allclose(values[0] * 2, values[1], rtol=1e-6)
