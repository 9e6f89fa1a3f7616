r"""Your own images, in one folder per class: photos/cat/1.jpg, photos/dog/7.png, ...

    python -m launch.check_data --config=configs/own_images.py --config.data.train=photos
    python -m launch.train --config=configs/own_images.py --workdir=runs/photos \
        --config.data.train=photos --config.data.shape=32,32,3

Trains a residual network. Validation and test images are split off from `train` by a hash of each file, unless
--config.data.validation and --config.data.test name their own folders. A path may lead into a tar or zip archive;
--config.data.reader selects other formats (idx, tfds, and parquet, csv or jsonl with a column of paths).

Expected: depends on your data.
Time: depends on your data.
Variants: `:tiny` (for tests; scikit-learn's digits).
"""

from research.core.config import base, few_steps


def get_config():
    config = base('image_classification', model='resnet')
    config.task.update(shift=2, label_smoothing=0.1)
    config.data = {'reader': 'image_folder', 'validation_fraction': 0.15, 'test_fraction': 0.15}
    config.model.update(dropout=0.2)
    config.optimizer.model.update(learning_rate=5e-3, schedule='cosine', warmup_steps=20, weight_decay=0.01)
    config.train.update(
        epochs=20.0, batch_size=64, eval_batch_size=128, log_every=20, eval_every=100, checkpoint_every=200,
        best='loss', ema_decay=0.99,
    )  # fmt: skip
    return config


def tiny(config):
    """Three steps on scikit-learn's digits."""
    config.data = {'name': 'digits'}
    config.task.shift = 1
    config.model.update(widths=(4, 8), depths=(1, 1))
    few_steps(config, steps=3, eval_batch_size=32, eval_every=0, checkpoint_every=0, ema_decay=0.0)
