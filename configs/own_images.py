r"""Pictures of your own, in a folder for each class: photos/cat/1.jpg, photos/dog/7.png, ...

    python -m launch.train --config=configs/own_images.py --workdir=runs/photos \
        --config.data.train=photos --config.data.shape=32,32,3

Trains a residual network. Validation and test pictures are cut off from `train` by a hash of each file,
unless --config.data.validation and --config.data.test name folders of their own. A path may lead into a tar
or zip; other readers (idx, parquet, csv and jsonl with a column of paths, tfds) are chosen by
--config.data.reader. What to expect is for the data to say: first look at

    python -m launch.check_data --config=configs/own_images.py --config.data.train=photos

Variants: `:tiny` (for tests; reads scikit-learn's digits).
"""

from research.core.config import base, own_files
from research.errors import choose


def get_config(variant: str = ''):
    """Returns the config of a variant: '' or 'tiny'."""
    config = base()
    config.task = {
        'name': 'image_classification',
        'resized_crop': 0.0,
        'shift': 2,
        'flip': False,
        'operations': 0,
        'magnitude': 9.0,
        'erase': 0.0,
        'mixup': 0.0,
        'cutmix': 0.0,
        'label_smoothing': 0.1,
        'center_crop': 0.0,
        'standardize': True,
        'statistics': 0,
        'top': 0,
    }
    config.data = own_files(
        reader='image_folder',
        shape=(),  # height, width, channels that the model sees; () for those of the first picture
        label_pattern='',
        folder='',
        validation_fraction=0.15,
        test_fraction=0.15,
    )
    config.model = {
        'name': 'resnet',
        'widths': (16, 32, 64),
        'depths': (1, 1, 1),
        'stem': 'small',
        'norm': 'batch',
        'dropout': 0.2,
        'dtype': 'float32',
    }
    config.optimizer.model.update(learning_rate=5e-3, schedule='cosine', warmup_steps=20, weight_decay=0.01)
    config.train.update(
        epochs=20.0, batch_size=64, eval_batch_size=128, log_every=20, eval_every=100, checkpoint_every=200,
        best='loss', ema=0.99,
    )  # fmt: skip
    choose(variant, {'': same, 'tiny': tiny}, '--config=configs/own_images.py:...')(config)
    return config


def same(config) -> None:
    """The config as it is."""


def tiny(config) -> None:
    """Three steps on scikit-learn's digits."""
    config.data = own_files(name='digits', shape=(), label_pattern='', folder='')
    config.task.shift = 1
    config.model.update(widths=(4, 8), depths=(1, 1))
    config.train.update(
        epochs=0.0, steps=3, batch_size=16, eval_batch_size=32, eval_every=0, checkpoint_every=0, ema=0.0
    )  # fmt: skip
