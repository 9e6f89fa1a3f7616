"""Images: ResNet-20 on CIFAR-10, with the settings of its authors.

    python -m launch.prepare_data --name=cifar10          # once; needs TensorFlow and a network
    python -m launch.train --config=configs/cifar10.py --workdir=runs/cifar10

Expected: not measured; the data were not available here. Published test accuracy (He et al. 2016, arXiv:1512.03385,
table 6): ResNet-20 with 0.27 million parameters 91.25%, ResNet-32 92.49%, ResNet-56 93.03%.
Published settings: 64,000 steps of 128, SGD with momentum 0.9 and learning rate 0.1, weight decay 1e-4, shifts by up to
4 pixels and flips, 45,000 training and 5,000 validation images. Differences: the learning rate follows a cosine instead
of two steps, shortcuts that change shape are 1x1 convolutions (272,474 parameters), and validation images are chosen by
a hash.
Time: not measured.
Variants: `:resnet56`; `:modern` (ResNet-18 with this stem, RandAugment, CutMix, mixup and erasing; no published figure
for these settings); `:tiny` (for tests; scikit-learn's digits).
"""

from research.core.config import base, few_steps


def get_config():
    config = base('image_classification', model='resnet')
    config.task.update(shift=4, flip=True, top=5)
    config.data = {'name': 'cifar10', 'reader': 'tfds', 'shape': (32, 32, 3)}
    config.model.update(depths=(3, 3, 3), unroll=8)
    config.optimizer.model.update(
        name='sgd', learning_rate=0.1, schedule='cosine', warmup_steps=400, weight_decay=1e-4, decay=('*kernel',),
    )  # fmt: skip
    config.train.update(
        steps=64000, batch_size=128, eval_batch_size=1000, log_every=100, eval_every=2000, checkpoint_every=2000,
        workers=2,
    )  # fmt: skip
    return config


def resnet56(config):
    """Three times as deep."""
    config.model.depths = (9, 9, 9)


def modern(config):
    """A wider network, and every augmentation."""
    config.task.update(operations=2, magnitude=5.0, erase=0.25, mixup=0.2, cutmix=1.0, label_smoothing=0.1)
    config.model.update(widths=(64, 128, 256, 512), depths=(2, 2, 2, 2), zero_init=True, dtype='bfloat16')
    config.optimizer.model.update(nesterov=True, weight_decay=5e-4)
    config.train.ema_decay = 0.999


def tiny(config):
    """A few steps on scikit-learn's digits."""
    config.data = {'name': 'digits'}
    config.task.update(shift=1, operations=1, erase=0.5, cutmix=1.0)
    config.model.update(widths=(4,), depths=(1,))
    config.optimizer.model.warmup_steps = 2
    few_steps(config, workers=0)
