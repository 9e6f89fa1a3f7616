"""Which of ten things a picture of 32x32 pixels shows: ResNet-20 on CIFAR-10, as its authors trained it.

    python -m launch.prepare_data --name=cifar10          # once; needs TensorFlow and a network
    python -m launch.train --config=configs/cifar10.py --workdir=runs/cifar10

Expected: not measured; no machine of this project has had these data. Published: 91.25% on the test split for
ResNet-20 with 0.27 million parameters, 92.49% for ResNet-32, 93.03% for ResNet-56 (He et al. 2016, arXiv:1512.03385,
table 6). Their settings: 64,000 steps of 128, SGD with momentum 0.9 from 0.1, weight decay 1e-4, pictures moved by up
to 4 pixels and mirrored, 45,000 for training and 5,000 for validation. Other here: the rate falls as a cosine and not
in two steps, the shortcuts that change shape are 1x1 convolutions (272,474 parameters), and validation pictures are
chosen by the hash of each.

Variants: `:resnet56`, `:modern` (ResNet-18 of the same stem with RandAugment, CutMix, mixup and erasing; no published
figure for just these settings), `:tiny` for tests (scikit-learn's digits).
"""

from research.core.config import base
from research.errors import choose


def get_config(variant: str = ''):
    """Returns the config of a variant: '', 'resnet56', 'modern' or 'tiny'."""
    config = base()
    config.task = {
        'name': 'image_classification',
        'shift': 4,
        'flip': True,
        'operations': 0,
        'magnitude': 9.0,
        'erase': 0.0,
        'mixup': 0.0,
        'cutmix': 0.0,
        'label_smoothing': 0.0,
        'top': 5,
    }
    config.data = {
        'name': 'cifar10',
        'reader': 'tfds',
        'train': '',
        'validation': '',
        'test': '',
        'shape': (32, 32, 3),
        'fields': '',
        'folder': '',  # where data sets lie; '' for TFDS's own
        'validation_fraction': 0.1,
    }
    config.model = {
        'name': 'resnet',
        'widths': (16, 32, 64),
        'depths': (3, 3, 3),
        'stem': 'small',
        'norm': 'batch',
        'zero_init': False,
        'dropout': 0.0,
        'unroll': 8,
        'dtype': 'float32',
    }
    config.optimizer.model.update(
        name='sgd', learning_rate=0.1, schedule='cosine', warmup_steps=400, momentum=0.9, weight_decay=1e-4,
        decay=('*kernel',),
    )  # fmt: skip
    config.train.update(
        steps=64000, batch_size=128, eval_batch_size=1000, log_every=100, eval_every=2000, checkpoint_every=2000,
        workers=2,
    )  # fmt: skip
    variants = {'': same, 'resnet56': resnet56, 'modern': modern, 'tiny': tiny}
    choose(variant, variants, '--config=configs/cifar10.py:...')(config)
    return config


def same(config) -> None:
    """Changes nothing."""


def resnet56(config) -> None:
    """Three times as deep."""
    config.model.depths = (9, 9, 9)


def modern(config) -> None:
    """A wider network, and every augmentation."""
    config.task.update(operations=2, magnitude=5.0, erase=0.25, mixup=0.2, cutmix=1.0, label_smoothing=0.1)
    config.model.update(widths=(64, 128, 256, 512), depths=(2, 2, 2, 2), zero_init=True, dtype='bfloat16')
    config.optimizer.model.update(nesterov=True, weight_decay=5e-4)
    config.train.ema = 0.999


def tiny(config) -> None:
    """A few steps on scikit-learn's digits."""
    config.data = {'name': 'digits'}
    config.task.update(shift=1, operations=1, erase=0.5, cutmix=1.0)
    config.model.update(widths=(4,), depths=(1,))
    config.optimizer.model.warmup_steps = 2
    config.train.update(
        steps=4, batch_size=16, eval_batch_size=64, log_every=1, eval_every=2, checkpoint_every=2, workers=0,
    )  # fmt: skip
