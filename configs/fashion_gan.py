"""Image generation: GANs on Fashion-MNIST, from perceptrons to SNGAN.

    python -m launch.train --config=configs/fashion_features.py --workdir=runs/fashion_features
    python -m launch.train --config=configs/fashion_gan.py --workdir=runs/fashion_gan
    python -m launch.train --config=configs/fashion_gan.py:dcgan --workdir=runs/fashion_dcgan

The first command trains the classifier whose 64 features, the inputs of its last layer, are the space of the metrics.
The signature of the Fréchet and kernel distances includes the hash of its weights. They are not Inception FID or KID,
and only values with the same hash are comparable (below: sha256:172f2b5a0f4c7412), so no range is expected of others.

Expected: Fréchet distance below 0.1 for the config without a variant. Measured after training, with 10,000 generated
images against the test split (seed 0; training images against it, the floor: 0.006 and -0.0005):

| variant | generator updates | Fréchet | kernel | time, on busy machines |
|---|---|---|---|---|
| none (SNGAN) | 16,000 | **0.073**, seed 1 **0.070** | 0.0019, 0.0017 | one core, 59 min, 3,503 CPU-s |
| none (SNGAN) | 12,000 | 0.126 | 0.0054 | one core, 53 min, about 2,990 CPU-s |
| `:dcgan` | 16,000 | 0.162 | 0.0038 | one core, beside SNGAN |
| `:dcgan`, constant learning rate | 5,000 | 0.493 | 0.0234 | 19 min, 1,630 CPU-s |
| `:dcgan`, constant learning rate | 15,000 | 0.154 | 0.0046 | H200, 4.5 min |
| `:mlp` | 15,000 | 1.755 | 0.157 | 24 min, 1,100 CPU-s (H200: 1.766) |
| `:resnet` | 8,000 | 0.353 | 0.019 | about 68 min, 6,200 CPU-s (by its last 813 updates) |
| `:wgan_gp` | 1,000 (critic 3,000) | 5.017 | 0.224 | one core, 42 min, 2,303 CPU-s |
| `:gpu` | 8,000 (discriminator 24,000) | 0.438 | 0.020 | H200, 9 min |

Time: on both idle cores an update takes 142 ms (40 minutes in all), one of `:dcgan` 98 ms.

Learning curves, against 5,000 validation images, after 3,000, 6,000, 9,000, 12,000 and 16,000 updates: SNGAN 0.685,
0.298, 0.195, 0.156, 0.081 (seed 1: 0.634, 0.281, 0.167, 0.124, 0.072); `:dcgan` 0.956, 0.398, 0.256, 0.182, 0.150;
`:resnet` 0.72, 0.36, and 0.35 after 8,000. SNGAN is best by both distances, with less than half of DCGAN's Fréchet
distance. DCGAN's curve has flattened at the end (0.154, 0.150 in the last two evaluations), SNGAN's has not (0.094,
0.081). The falling learning rate takes it from 0.156 to 0.081 between 12,000 and 16,000 updates.

Also tried for SNGAN, validation after 1,000 and more updates, in fewer configurations than the table: the label in the
generator's batch norm instead of next to the noise 8.5 against 4.4 (both with a sum over pixels before the logit; with
a dense layer, as here, 2.4); in both places 2.4; Adam with b1 0.5 and b2 0.999 3.3; logits times 4 2.6, and 0.90
against 0.66 after 3,000. The residual pair conditions by batch norm only and sums over pixels, which may be why it
stops improving.

All variants are conditioned on the class, use 128-dimensional noise, and average the generator over about the last
thousand steps. Batches of 64 of the 55,000 training images; settings are those of the papers except as stated.
- Without a variant: DCGAN's generator against convolutions with spectral norm and projection, hinge loss; one
  discriminator update per generator update, at twice its learning rate (the paper: five), narrower than the paper and
  without the 3x3 convolutions before each downsampling; the label is an input next to the noise, not in batch norm.
- `:mlp`: the tutorials' perceptrons, non-saturating loss.
- `:dcgan`: transposed convolutions, batch norm, non-saturating loss.
- `:resnet`: SNGAN's residual pair, class-conditional batch norm, one update each, narrower.
- `:wgan_gp`: the residual pair without spectral norm, Wasserstein loss, gradient penalty 10, three critic updates per
  generator update (the paper: five); stopped after 3,000 of its 8,000 steps.
- `:gpu`: the residual pair with its published widths, three discriminator updates per generator update, learning rates
  that fall to zero.
- `:tiny`: for tests; scikit-learn's digits, measured in pixel space.
"""

from research.core.config import base, few_steps


def get_config():
    config = base('image_generation', model='sngan', data='fashion_mnist', groups=('discriminator', 'generator'))
    config.task.update(
        loss='hinge', conditional=True, fakes=1, features='classifier', network='runs/fashion_features', pixels=8,
        kernel=True,
    )  # fmt: skip
    config.model.update(latent=128, generator={'widths': (96, 48)}, discriminator={'widths': (48, 96)})
    for group, rate in (('discriminator', 6e-4), ('generator', 3e-4)):
        config.optimizer[group].update(name='adam', learning_rate=rate, b1=0.0, b2=0.9, schedule='trapezoid')
    config.train.update(
        steps=16_000, batch_size=64, eval_batch_size=500, log_every=100, eval_every=1000, checkpoint_every=1000,
        sample_every=4000, ema_decay=0.999,
    )  # fmt: skip
    return config


def mlp(config):
    """The tutorials' perceptrons, conditioned on the class."""
    config.task.loss = 'non_saturating'
    config.model = {
        'name': 'mlp', 'latent': 128, 'generator': {'widths': (128, 256, 512, 1024)},
        'discriminator': {'widths': (1024, 512, 256)},
    }  # fmt: skip
    for group in config.optimizer:
        config.optimizer[group].update(learning_rate=2e-4, b1=0.5, b2=0.999, schedule='constant')
    config.train.update(steps=15_000, eval_every=3000, checkpoint_every=3000)


def dcgan(config):
    """Transposed convolutions and batch norm (Radford et al. 2016)."""
    config.task.loss = 'non_saturating'
    config.model = {
        'name': 'dcgan', 'latent': 128, 'generator': {'widths': (96, 48)}, 'discriminator': {'widths': (48, 96)},
    }  # fmt: skip
    for group in config.optimizer:
        config.optimizer[group].update(learning_rate=2e-4, b1=0.5, b2=0.999)


def resnet(config):
    """SNGAN's residual pair."""
    config.model = {
        'name': 'resnet', 'latent': 128, 'generator': {'widths': (96, 32, 16)},
        'discriminator': {'widths': (16, 64, 128)},
    }  # fmt: skip
    for group in config.optimizer:
        config.optimizer[group].schedule = 'constant'
    config.train.update(steps=8000, sample_every=2000)


def wgan_gp(config):
    """The residual pair as a critic and its generator (Gulrajani et al. 2017)."""
    resnet(config)
    config.task.update(loss='wasserstein', gradient_penalty=10.0)
    config.model.discriminator.spectral = False
    for group in config.optimizer:
        config.optimizer[group].update(learning_rate=2e-4, b1=0.0, b2=0.9)
    config.optimizer.generator.update_every = 3


def gpu(config):
    """SNGAN's residual pair with its published widths, in bfloat16, for a GPU."""
    resnet(config)
    config.model.generator.update(widths=(256, 256, 256), dtype='bfloat16')
    config.model.discriminator.update(widths=(128, 128, 128, 128), dtype='bfloat16')
    for group in config.optimizer:
        config.optimizer[group].update(learning_rate=2e-4, schedule='linear')
    config.optimizer.generator.update_every = 3
    config.train.update(steps=24_000, ema_decay=0.9995, eval_every=5000, checkpoint_every=5000, sample_every=5000)


def tiny(config):
    """A few steps of a narrow pair on the digits, measured in pixels."""
    config.data = {'name': 'digits'}
    # Not hinge: inside its margins the gradients of real and fake images cancel in the bias of the head.
    config.task.update(features='pixels', network='', pixels=4, loss='non_saturating')
    config.model.latent = 8
    config.model.generator.widths = (8,)
    config.model.discriminator.widths = (8,)
    for group in config.optimizer:
        config.optimizer[group].eps = 1e-3
    few_steps(config, sample_every=2)
