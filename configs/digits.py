"""Images: a small residual network on scikit-learn's handwritten digits of 8x8 pixels.

    python -m launch.train --config=configs/digits.py --workdir=runs/digits

Trains 173,842 parameters for 20 epochs on 1,259 scans, which are part of scikit-learn, shifted by up to a pixel.

Expected: test accuracy 97% to 99.9% (mean of seeds 0 to 2: 99.0%; always the commonest class: 10%). The test split has
269 scans, so one error is 0.4%.
Time: 30 s on 2 CPU cores.
Variants: `:mlp` (a perceptron; 97.8% in half the time), `:tiny` (for tests).
"""

from research.core.config import base, few_steps


def get_config():
    config = base('image_classification', model='resnet', data='digits')
    config.task.update(shift=1, label_smoothing=0.05, top=3)
    config.model.update(widths=(24, 48, 96), dropout=0.3)
    config.optimizer.model.update(learning_rate=5e-3, schedule='cosine', warmup_steps=20, weight_decay=0.01)
    config.train.update(
        epochs=20.0, batch_size=64, eval_batch_size=128, log_every=20, eval_every=100, checkpoint_every=200,
        sample_every=200, ema_decay=0.99,
    )  # fmt: skip
    config.expected = {'test': {'accuracy': (0.97, 0.999), 'calibration_error': (0.0, 0.10)}}
    return config


def mlp(config):
    """A perceptron, without shifts, which would need much longer training."""
    config.model = {'name': 'mlp', 'widths': (512, 512), 'dropout': 0.5}
    config.task.shift = 0
    config.optimizer.model.learning_rate = 2e-3
    config.train.epochs = 40.0
    config.expected = {'test': {'accuracy': (0.965, 0.985)}}


def tiny(config):
    """A few steps of the small network with stacked blocks."""
    config.model.update(widths=(8,), depths=(2,), dropout=0.0)
    config.optimizer.model.warmup_steps = 2
    few_steps(config, sample_every=2)
