"""New pictures of clothes: generative adversarial networks on Fashion-MNIST, from perceptrons to SNGAN.

    python -m launch.train --config=configs/fashion_features.py --workdir=runs/fashion_features
    python -m launch.train --config=configs/fashion_gan.py --workdir=runs/fashion_gan
    python -m launch.train --config=configs/fashion_gan.py:dcgan --workdir=runs/fashion_dcgan

The first command trains the classifier in whose features the pictures are measured: 64 numbers before its last
layer. Fréchet and kernel distance bear its name and the hash of its weights; they are no Inception FID or KID, and only
metrics of the same hash can be compared (the table's: sha256:172f2b5a0f4c7412): no range is expected of others.

Measured after training on 10,000 drawn pictures against the test split (seed 0; the training pictures themselves, as
near as anything can be expected: 0.006 and -0.0005), on 2 CPU cores or an H200, with other work on them:

| variant | updates of the generator | Fréchet | kernel | time |
|---|---|---|---|---|
| `sngan` | 16,000 | **0.073**, seed 1 **0.070** | 0.0019, 0.0017 | one core, 59 min, 3,503 CPU-s |
| `sngan` | 12,000 | 0.126 | 0.0054 | one core, 53 min, about 2,990 CPU-s |
| `:dcgan` | 16,000 | 0.162 | 0.0038 | one core, beside `sngan` |
| `:dcgan`, its rate constant | 5,000 | 0.493 | 0.0234 | 19 min, 1,630 CPU-s |
| `:dcgan`, its rate constant | 15,000 | 0.154 | 0.0046 | H200, 4.5 min |
| `:mlp` | 15,000 | 1.755 | 0.157 | 24 min, 1,100 CPU-s (H200: 1.766) |
| `:resnet` | 8,000 | 0.353 | 0.019 | about 68 min, 6,200 CPU-s (by its last 813) |
| `:wgan_gp` | 1,000 (critic 3,000) | 5.017 | 0.224 | one core, 42 min, 2,303 CPU-s, other work beside it |
| `:gpu` | 8,000 (discriminator 24,000) | 0.438 | 0.020 | H200, 9 min |

On the way, against 5,000 validation pictures, `sngan` after 3,000, 6,000, 9,000, 12,000 and 16,000 updates: 0.685,
0.298, 0.195, 0.156, 0.081 (seed 1: 0.634, 0.281, 0.167, 0.124, 0.072); `:dcgan` 0.956, 0.398, 0.256, 0.182, 0.150;
`:resnet` 0.72, 0.36, and 0.35 after 8,000. So SNGAN is the nearest by both distances, by
Fréchet distance at less than half of DCGAN's. DCGAN's curve flattens out at the end (0.154, 0.150 after each
thousand), SNGAN's does not yet (0.094, 0.081). Nothing else running, on both cores, an update takes 142 ms (40 minutes
in all), DCGAN's 98 ms.

Tried for `sngan`, validation after 1,000 and more updates, on narrower ground than the table's: the label in the
generator's batch norm in place of beside the noise 8.5 against 4.4 (both with a sum over pixels before the logit; a
dense layer over them, as here, 2.4); in both places 2.4; Adam with b1 0.5 and b2 0.999 3.3; logits times 4 2.6, and
0.90 against 0.66 after 3,000. What the fall of the rates does: from 12,000 to 16,000 it takes 0.156 to 0.081.
The residual pair knows the label by batch norm alone and sums over pixels, which may be why it stands still.

Every variant is told the class, draws from 128 numbers, and has a generator averaged over about the last thousand
steps. Batches of 64 of the 55,000 training pictures; settings are those of the papers except where stated:
- `sngan` is the config without a variant: DCGAN's generator against convolutions with spectral norm, projection, hinge
  loss; one update of the discriminator for each of the generator, at twice its rate (they: five), narrower than theirs
  and without the 3x3 convolutions before each halving. The label goes into the generator beside the
  noise, not into its batch norm.
- `:mlp`: the tutorials' perceptrons, non-saturating loss.
- `:dcgan`: transposed convolutions, batch norm, non-saturating loss.
- `:resnet`: SNGAN's residual pair, class-conditional batch norm, one update for one, narrower.
- `:wgan_gp`: the residual pair without spectral norm, Wasserstein loss, gradient penalty 10, three updates of the
  critic for each of the generator (they: five). After 3,000 of its 8,000 it was still far: see above.
- `:gpu`: the residual pair with its published widths, three updates of the discriminator for each of the generator,
  rates that fall to zero.
- `:tiny` for tests (scikit-learn's digits, measured in pixels).
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
    """The tutorials' perceptrons, told the class."""
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
    # Not hinge: within its margins real and fake pull the bias of the head alike, and it would stay where it is.
    config.task.update(features='pixels', network='', pixels=4, loss='non_saturating')
    config.model.latent = 8
    config.model.generator.widths = (8,)
    config.model.discriminator.widths = (8,)
    for group in config.optimizer:
        config.optimizer[group].eps = 1e-3
    few_steps(config, sample_every=2)
