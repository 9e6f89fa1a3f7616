"""Which digit a scan of 8x8 pixels shows: a small residual network on scikit-learn's handwritten digits.

    python -m launch.train --config=configs/digits.py --workdir=runs/digits

Trains 173,842 parameters for 20 epochs on 1,259 scans that are part of scikit-learn, moved by up to a pixel; 30
seconds on 2 CPU cores. Expected test accuracy: 97% to 99.9%, 99.0% as the mean of seeds 0, 1 and 2 (always the
commonest class: 10%). The test split has 269 scans, so that one mistake more is 0.4%.

Variants: `:resnet` (this one), `:mlp` (a perceptron, 97.8% in half the time), `:tiny` (for tests).
"""

from research.core.config import base
from research.errors import choose


def get_config(variant: str = ''):
    """Returns the config of a variant: '' or 'resnet', 'mlp', 'tiny'."""
    config = base()
    config.task = {
        'name': 'image_classification',
        'resized_crop': 0.0,
        'shift': 1,
        'flip': False,
        'operations': 0,
        'magnitude': 9.0,
        'erase': 0.0,
        'mixup': 0.0,
        'cutmix': 0.0,
        'label_smoothing': 0.05,
        'center_crop': 0.0,
        'standardize': True,
        'statistics': 0,
        'top': 3,
    }
    config.data = {'name': 'digits'}
    config.model = {
        'name': 'resnet',
        'widths': (24, 48, 96),
        'depths': (1, 1, 1),
        'stem': 'small',
        'bottleneck': False,
        'norm': 'batch',
        'groups': 8,
        'zero_init': False,
        'dropout': 0.3,
        'unroll': 1,
        'dtype': 'float32',
    }
    config.optimizer.model.update(
        name='adamw', learning_rate=5e-3, schedule='cosine', warmup_steps=20, weight_decay=0.01
    )
    config.train.update(
        epochs=20.0,
        batch_size=64,
        eval_batch_size=128,
        log_every=20,
        eval_every=100,
        checkpoint_every=200,
        sample_every=200,
        ema=0.99,
    )
    config.expected = {'test': {'accuracy': (0.97, 0.999), 'calibration_error': (0.0, 0.10)}}
    choose(variant, {'': same, 'resnet': same, 'mlp': mlp, 'tiny': tiny}, '--config=configs/digits.py:...')(config)
    return config


def same(config):
    """Changes nothing: the main variant."""


def mlp(config):
    """A perceptron; whole pictures, since one that moves needs far longer."""
    config.model = {
        'name': 'mlp',
        'widths': (512, 512),
        'dropout': 0.5,
        'activation': 'relu',
        'dtype': 'float32',
    }
    config.task.shift = 0
    config.optimizer.model.learning_rate = 2e-3
    config.train.epochs = 40.0
    config.expected = {'test': {'accuracy': (0.965, 0.985)}}


def tiny(config):
    """A few steps of the small network with stacked blocks."""
    config.model.update(widths=(8,), depths=(2,), dropout=0.0)
    config.optimizer.model.warmup_steps = 2
    config.train.update(
        epochs=0.0, steps=4, batch_size=16, eval_batch_size=64, log_every=1, eval_every=2,
        checkpoint_every=2, sample_every=2,
    )  # fmt: skip
    config.expected = {}
