"""Image generation: a GAN on scikit-learn's handwritten digits of 8x8 pixels.

    python -m launch.train --config=configs/digits_gan.py --workdir=runs/digits_gan
    python -m launch.predict --workdir=runs/digits_gan --count=100 --output=runs/digits_gan/drawn

Trains the pair of perceptrons of the classic tutorial (tanh generator, LeakyReLU 0.2, discriminator with dropout; Adam
with b1 0.5), conditioned on the digit, on 1,259 scans. Samples come from the generator averaged over about the last
thousand steps.

Expected: Fréchet distance to the test split in pixel space 0.17 to 0.30 (seed 0: 0.225; the training scans themselves:
0.13; independent pixels: 1.81). The classifier of configs/digits.py assigns 97% or more of 1,000 generated digits to
the requested class (seed 0: 99.2%), and 97 to 104 of them to each digit.
Time: 30 s on 2 CPU cores.
Variants: `:conv` (convolutional pair, hinge loss; 0.245 in four times the time), `:unconditional` (0.24), `:critic`
(three discriminator updates per generator update; 0.24), `:tiny` (for tests).
"""

from research.core.config import base, few_steps


def get_config():
    config = base('image_generation', model='mlp', data='digits', groups=('discriminator', 'generator'))
    config.task.update(conditional=True)
    config.model.update(latent=32, generator={'widths': (128, 256)}, discriminator={'widths': (256, 128)})
    for group in config.optimizer:
        config.optimizer[group].update(name='adam', learning_rate=1e-3, b1=0.5, schedule='constant')
    config.train.update(
        steps=3000, batch_size=64, eval_batch_size=100, log_every=100, eval_every=1000, checkpoint_every=1000,
        sample_every=500, ema_decay=0.999,
    )  # fmt: skip
    config.expected = {'test': {'frechet_pixels': (0.17, 0.30), 'spread': (0.8, 1.05)}}
    return config


def conv(config):
    """The convolutional pair, with the hinge loss."""
    config.task.loss = 'hinge'
    config.model.update(
        name='conv', generator={'widths': (64, 32), 'norm': 'batch', 'dtype': 'float32'},
        discriminator={'widths': (32, 64), 'norm': 'none', 'dropout': 0.3, 'dtype': 'float32'},
    )  # fmt: skip
    config.train.update(steps=2000, eval_every=500, checkpoint_every=500)


def unconditional(config):
    """Unconditional generation: all ten digits from noise."""
    config.task.conditional = False
    for group in config.optimizer:
        config.optimizer[group].learning_rate = 5e-4


def critic(config):
    """Three discriminator updates per generator update (n-critic)."""
    config.optimizer.generator.update_every = 3
    config.train.steps = 6000


def tiny(config):
    """A few steps of a narrow pair."""
    config.model.generator.widths = (16,)
    config.model.discriminator.widths = (16,)
    config.model.latent = 8
    config.task.fakes = 1
    few_steps(config, sample_every=2)
