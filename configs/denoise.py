r"""Denoising: a fast network removes Gaussian noise of a known strength from photographs.

    python -m launch.train --config=configs/denoise.py --workdir=runs/denoise
    python -m launch.predict --workdir=runs/denoise --input=photo.png --output=clean/

Expected:
"""

from research.core.config import base, few_steps


def get_config():
    config = base('image_restoration', model='ffdnet', data='train400')
    config.task.update(degradation='noise', sigma=25.0, patch=48)
    config.model.update(width=48, depth=10)
    config.optimizer.model.update(learning_rate=2e-3, schedule='cosine', warmup_steps=100)
    config.train.update(
        steps=6000, batch_size=32, eval_batch_size=4, log_every=100, eval_every=1000, checkpoint_every=1000,
        ema_decay=0.999,
    )  # fmt: skip
    return config


def tiny(config):
    """A few steps on generated pictures."""
    config.data = {'name': 'shapes', 'side': 40}
    config.task.update(patch=16, tile=16)
    config.model.update(width=8, depth=3)
    config.optimizer.model.warmup_steps = 2
    few_steps(config, batch_size=8, eval_batch_size=4)
