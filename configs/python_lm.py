"""A decoder-only Transformer learns to write Python from the standard library of your own interpreter."""

from research.core.config import base


def get_config(variant=''):
    """Returns the config; variants: 'tiny' (a few seconds, for tests)."""
    config = base()
    config.task = {
        'name': 'language_model',
        'vocabulary': 2048,
        'length': 128,
        'max_new_tokens': 64,
        'temperature': 0.8,
        'top_k': 0,
        'top_p': 0.95,
        'prompts': ('import os\n', 'def read(', 'class Parser:\n', 'for name in ', 'if __name__ == '),
        'check': 'python',
        'check_count': 32,
    }
    config.model = {
        'width': 160,
        'layers': 4,
        'heads': 4,
        'norm': 'rms',
        'activation': 'silu',
        'gated': True,
        'positions': 'rotary',
        'dropout': 0.0,
        'dtype': 'float32',
        'remat': False,
        'scan': False,
    }
    config.data = {'name': 'python_source', 'megabytes': 4.0}
    config.optimizer.model.update(
        name='adamw',
        learning_rate=4e-3,
        schedule='cosine',
        warmup_steps=40,
        end_fraction=0.05,
        b1=0.9,
        b2=0.95,
        weight_decay=0.1,
        clip=1.0,
    )
    config.train.update(steps=400, batch_size=16, log_every=20, eval_every=100, checkpoint_every=200, best='loss')
    if variant == 'tiny':
        config.task.update(vocabulary=320, length=32, max_new_tokens=16, check_count=4)
        config.model.update(width=32, layers=2, heads=2)
        config.data.megabytes = 0.1
        config.train.update(steps=4, batch_size=8, log_every=1, eval_every=2, checkpoint_every=2)
    return config
