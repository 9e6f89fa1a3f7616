"""The tutorials' GAN: two perceptrons that learn to draw. Their program, setting for setting.

    python -m launch.train --config=configs/tutorials/gan.py --workdir=runs/tutorial_gan
    python -m launch.predict --workdir=runs/tutorial_gan --count=100 --output=runs/tutorial_gan/drawn

Expected Fréchet distance in pixel space (shrunk to 14x14; not an Inception FID), 10,000 drawn pictures against the test
split: 0.7 to 1.05 (seed 0: 0.848; the training pictures themselves 0.008, independent pixels 13.8), after 8,594 steps
in about 470 CPU-seconds. What it draws can be told apart as clothes, with single black and white dots all over.

Its settings, all kept:
- Generator: noise to 128, 256, 512, 1024 units with LeakyReLU 0.2, then the pixels with tanh; no batch norm.
- Discriminator: the pixels to 1024, 512, 256 units with LeakyReLU 0.2 and dropout 0.3 after each, then one sigmoid
  unit (here its logit: the sigmoid is in the loss, where it cannot overflow).
- Binary cross-entropy: the discriminator's loss is that of real pictures called 1 and drawn ones called 0, added and
  halved; the generator's is that of drawn pictures called 1.
- Adam for each, learning rate 2e-4, beta 0.5 and 0.999; no schedule; the last weights are the result.
- Pixels scaled to -1 to 1; it is not told the class.

Its repairs:
- The program detaches the drawn pictures in the generator's step as well as in the discriminator's, so that no
  gradient reaches its generator, which stays as it began. Here each loss is differentiated by its own group alone,
  and nothing is detached (tests/tasks/test_tutorial_gan.py shows both).
- Each of the two steps draws noise of its own, and every row has its own key.
- Pictures are measured, beside the training pictures themselves and beside noise, and shown with their nearest
  training pictures.

Not said by the program's list, and chosen here: Fashion-MNIST (the same shape as MNIST), 100 numbers of noise,
batches of 64, 10 epochs of 55,000 pictures.
Variants: `:tiny` for tests (scikit-learn's digits).
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
