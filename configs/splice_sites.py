"""placeholder

    --config=configs/splice_sites.py

Expected
"""

from research.core.config import base
from research.errors import choose


def get_config(variant: str = ''):
    """Returns the config of a variant: '', 'kmers', 'own' or 'tiny'."""
    config = base()
    config.task = {'name': 'sequence_classification', 'length': 60, 'kmer': 0, 'cut': 'refuse', 'label_smoothing': 0.0}
    config.model = {
        'name': 'convolution',
        'filters': (64, 64),
        'window': 7,
        'hidden': 64,
        'pool': 'flat',
        'dropout': 0.3,
        'input_dropout': 0.0,
    }
    config.data = {
        'name': 'splice',
        'folder': '',
        'split_seed': 0,
        'reader': '',
        'train': '',
        'validation': '',
        'test': '',
        'fields': '',
        'columns': '',
        'label_pattern': '',
        'validation_fraction': 0.1,
        'test_fraction': 0.2,
        'on_error': 'stop',
        'error_limit': 100,
    }
    config.optimizer.model.update(
        {'learning_rate': 1e-3, 'schedule': 'cosine', 'warmup_steps': 50, 'weight_decay': 0.01}
    )
    config.train.update(
        {
            'epochs': 30.0,
            'batch_size': 64,
            'eval_batch_size': 256,
            'eval_every': 35,
            'checkpoint_every': 210,
            'best': 'loss',
        }
    )
    choose(variant, {'': same, 'tiny': tiny}, '--config=configs/splice_sites.py:...')(config)
    return config


def same(config):
    """Changes nothing: the main variant."""


def tiny(config):
    """A few steps on random sequences with planted motifs."""
    config.task.update(length=24)
    config.model.update(filters=(8,), hidden=8)
    config.data = {**config.data.to_dict(), 'name': 'motifs', 'examples': 240}
    config.train.update(epochs=0.0, steps=6, batch_size=16, eval_batch_size=32, eval_every=3, checkpoint_every=6)
    config.expected = {}
