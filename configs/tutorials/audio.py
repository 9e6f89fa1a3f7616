r"""The tutorials' sound classifier: which digit is spoken? Their network, setting for setting.

    python -m launch.train --config=configs/tutorials/audio.py --workdir=runs/audio

HEADER
"""

from research.core.config import base
from research.errors import choose


def get_config(variant: str = ''):
    """Returns the config of a variant: '', 'own' or 'tiny'."""
    config = base()
    config.task = {
        'name': 'audio_classification',
        'sample_rate': 8000,
        'seconds': 1.0,
        'place': 'middle',
        'window': 64.0,  # 512 samples
        'hop': 43.4,  # 347 samples: 24 frames
        'mels': 24,
        'low': 0.0,
        'high': 0.0,
        'scale': 'slaney',
        'floor': 1e-10,
        'label_smoothing': 0.0,
    }
    config.data = {
        'name': 'free_spoken_digits',
        'speaker': '',
        'folder': '',
        'reader': '',
        'train': '',
        'validation': '',
        'test': '',
        'fields': '',
        'label_pattern': '',
        'validation_fraction': 0.15,
        'test_fraction': 0.15,
        'on_error': 'stop',
        'error_limit': 100,
    }
    config.model = {
        'name': 'convnet',
        'filters': (32, 64),
        'kernel': 3,
        'convolutions': 1,
        'norm': 'none',
        'pool': 'flat',
        'hidden': (1024, 512),
        'dropout': 0.0,
        'dtype': 'float32',
    }
    config.optimizer.model.update(name='adam', learning_rate=1e-3)
    config.train.update(epochs=10.0, batch_size=32, eval_batch_size=150, eval_every=75, checkpoint_every=375)
    choose(variant, {'': same, 'own': own, 'tiny': tiny}, '--config=configs/tutorials/audio.py:...')(config)
    return config


def same(config):
    """Changes nothing: the main variant."""


def own(config):
    """Sounds of your own, in a folder for each class."""
    config.data = {key: value for key, value in config.data.to_dict().items() if key != 'speaker'}
    config.data.update(name='', reader='audio_folder')
    config.expected = {}


def tiny(config):
    """A few steps on tones with noise."""
    config.data = {'name': 'tones', 'examples': 96, 'seed': 0}
    config.model.update(filters=(4, 8), hidden=(16, 8))
    config.train.update(epochs=0.0, steps=6, batch_size=16, eval_batch_size=32, eval_every=3, checkpoint_every=6)
    config.expected = {}
