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
    config.optimizer.model.update(learning_rate=1e-3, schedule='cosine', warmup_steps=100)
    config.train.update(
        steps=9000, batch_size=16, eval_batch_size=4, log_every=200, eval_every=2000, checkpoint_every=2000,
        ema_decay=0.999, sample_every=4500,
    )  # fmt: skip
    return config


def tiny(config):
    """A few steps on generated pictures."""
    config.data = {'name': 'shapes', 'side': 40}
    config.task.update(patch=16, tile=16)
    config.model.update(width=8, depth=3)
    config.optimizer.model.warmup_steps = 2
    few_steps(config, batch_size=8, eval_batch_size=4)
