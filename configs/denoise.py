r"""Denoising: a fast network removes Gaussian noise of a known strength from photographs.

    python -m launch.train --config=configs/denoise.py --workdir=runs/denoise
    python -m launch.predict --workdir=runs/denoise --input=photo.png --output=clean/

Trains 170,212 parameters on patches of 380 grey photographs (Train400, for research only, fetched on first use) with
noise of sigma 25, of pixels from 0 to 255. Red, green and blue of a colour picture are restored separately.

Expected: test PSNR on Set12 of 28.8 to 29.3 dB (seed 0: 29.01, SSIM 0.8265; the noisy pictures, neither clipped nor
rounded: 20.17). Published: BM3D 29.97, DnCNN-S 30.44 with 0.56 million parameters (Zhang et al. 2017, table III, not
read again for this); ours stays behind both.
Time: 1,750 CPU-seconds, 33 min on 2 CPU cores that other programs used as well.
Variants:
- `:blind`: sigma of 0 to 55 in training; a request may state its own, {"image": "photo.png", "sigma": 15}.
- `:dncnn`: the residual denoiser as published, for a GPU (not measured).
- `:own`: your own pictures, --config.data.train=photos (a folder of clean pictures; they need no classes).
- `:tiny`: for tests; generated pictures.
"""

from research.core.config import base, few_steps


def get_config():
    config = base('image_restoration', model='ffdnet', data='train400')
    config.task.update(degradation='noise', sigma=25.0, patch=48)
    config.model.update(width=48, depth=10)
    config.optimizer.model.update(learning_rate=1e-3, schedule='cosine', warmup_steps=100)
    config.train.update(
        steps=9000, batch_size=16, eval_batch_size=4, log_every=200, eval_every=3000, checkpoint_every=3000,
        sample_every=4500, ema_decay=0.999,
    )  # fmt: skip
    config.expected = {'test': {'psnr': (28.8, 29.3)}}
    return config


def blind(config):
    """Noise of any strength in training; measured at sigma 25."""
    config.task.blind = (0.0, 55.0)
    config.expected = {}


def dncnn(config):
    """The published residual denoiser, 128 patches of 40 pixels a step."""
    config.task.update(patch=40, loss='l2')
    config.model = {'name': 'dncnn'}
    config.train.update(steps=80000, batch_size=128, eval_batch_size=16, eval_every=8000, checkpoint_every=8000)
    config.expected = {}


def own(config):
    """Your own pictures; a tenth of them, by a hash of each file, are for validation and for the test each."""
    config.data = {'reader': 'image_folder', 'validation_fraction': 0.1, 'test_fraction': 0.1}
    config.expected = {}


def tiny(config):
    """A few steps on generated pictures."""
    config.data = {'name': 'shapes', 'side': 40}
    config.task.update(patch=16, tile=16)
    config.model.update(width=8, depth=3)
    config.optimizer.model.warmup_steps = 2
    few_steps(config, batch_size=8, eval_batch_size=4)
