r"""Denoising: a fast network removes Gaussian noise of a known strength from photographs.

    python -m launch.train --config=configs/super_resolution.py --workdir=runs/denoise
    python -m launch.predict --workdir=runs/super_resolution --input=photo.png --output=clean/

Expected:
"""

from research.core.config import base, few_steps


def get_config():
    config = base('image_restoration', model='subpixel', data='train400')
    config.data.test = 'set5'
    config.task.update(degradation='bicubic', scale=3, patch=60, tile=64)
    config.model.update(width=32, blocks=6)
    config.optimizer.model.update(learning_rate=1e-3, schedule='cosine', warmup_steps=100)
    config.train.update(
        steps=11000, batch_size=16, eval_batch_size=4, log_every=200, eval_every=2200, checkpoint_every=2200,
        ema_decay=0.999, sample_every=5500,
    )  # fmt: skip
    return config


def tiny(config):
    """A few steps on generated pictures."""
    config.data = {'name': 'shapes', 'side': 40}
    config.task.update(patch=24, tile=8)
    config.model.update(width=8, blocks=1)
    config.optimizer.model.warmup_steps = 2
    few_steps(config, batch_size=8, eval_batch_size=4)
