"""The tutorials' GAN of two perceptrons, setting for setting.

    python -m launch.train --config=configs/tutorials/gan.py --workdir=runs/tutorial_gan
    python -m launch.predict --workdir=runs/tutorial_gan --count=100 --output=runs/tutorial_gan/drawn

Expected: Fréchet distance in pixel space (downsampled to 14x14; not an Inception FID), 10,000 generated images against
the test split, 0.7 to 1.05 (seed 0: 0.848; the training images themselves 0.008, independent pixels 13.8), after 8,594
steps. Generated images are recognizable as clothes, with black and white speckles.
Time: about 470 CPU-seconds.
Variants: `:tiny` (for tests; scikit-learn's digits).

Settings kept:
- Generator: noise to 128, 256, 512, 1024 units with LeakyReLU 0.2, then pixels with tanh; no batch norm.
- Discriminator: pixels to 1024, 512, 256 units with LeakyReLU 0.2 and dropout 0.3 after each, then one sigmoid unit
  (here its logit: the sigmoid is part of the loss, where it cannot overflow).
- Binary cross-entropy: the discriminator's loss is the mean of the losses on real images (target 1) and generated ones
  (target 0); the generator's is that of generated images with target 1.
- Adam for each, learning rate 2e-4, betas 0.5 and 0.999; no schedule; the last weights are the result.
- Pixels scaled to [-1, 1]; not conditioned on the class.

Corrections:
- The tutorial detaches generated images in the generator's step too, so that no gradient reaches its generator, which
  never changes. Here each loss is differentiated with respect to its own group, and nothing is detached
  (tests/tasks/test_tutorial_gan.py shows both).
- Each of the two steps draws its own noise, and every row has its own key.
- Generated images are measured, next to training images and noise, and shown with their nearest training images.

Not specified by the tutorial, chosen here: Fashion-MNIST (same shape as MNIST), 100-dimensional noise, batches of 64,
10 epochs of 55,000 images.
"""

from research.core.config import base, few_steps


def get_config():
    config = base('image_generation', model='mlp', data='fashion_mnist', groups=('discriminator', 'generator'))
    config.task.update(halved=True, fakes=1, pixels=14)
    config.model.update(
        latent=100, generator={'widths': (128, 256, 512, 1024)}, discriminator={'widths': (1024, 512, 256)},
    )  # fmt: skip
    for group in config.optimizer:
        config.optimizer[group].update(name='adam', learning_rate=2e-4, b1=0.5, b2=0.999, schedule='constant')
    config.train.update(
        epochs=10.0, batch_size=64, eval_batch_size=500, log_every=100, eval_every=4300, checkpoint_every=4300,
        sample_every=860,
    )  # fmt: skip
    config.expected = {'test': {'frechet_pixels': (0.7, 1.05)}}
    return config


def tiny(config):
    """A few steps of fewer and narrow layers on the digits."""
    config.data = {'name': 'digits'}
    config.task.pixels = 4
    config.model.update(latent=8)
    config.model.generator.widths = (8, 16)
    config.model.discriminator.widths = (16, 8)
    few_steps(config, sample_every=2)
