r"""Super-resolution: a small network enlarges photographs three times along each side.

    python -m launch.train --config=configs/super_resolution.py --workdir=runs/super_resolution
    python -m launch.predict --workdir=runs/super_resolution --input=photo.png --output=large/

Trains 123,145 parameters on patches of 380 grey photographs (Train400, for research only, fetched on first use), which
are made smaller by MATLAB's bicubic filter. Of a colour picture the luma is restored, the colours are enlarged by the
same filter.

Expected: test PSNR on Set5 of 32.5 to 34 dB (seed 0: 33.25, SSIM 0.9165; bicubic enlargement: 30.39, 0.8681).
Published: SRCNN 32.75, FSRCNN 33.06, VDSR 33.67 with 0.67 million parameters.
Time: about 800 CPU-seconds; 17 minutes on 2 CPU cores beside other work.
Variants:
- `:x2`, `:x4`: two and four times.
- `:set14`: tests on Set14.
- `:own`: your own pictures, --config.data.train=photos (a folder of pictures; they need no classes).
- `:tiny`: for tests; generated pictures.
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
        sample_every=5500, ema_decay=0.999,
    )  # fmt: skip
    config.expected = {'test': {'psnr': (32.5, 34.0)}}
    return config


def x2(config):
    """Twice as many pixels along each side."""
    config.task.update(scale=2, patch=48)
    config.expected = {}


def x4(config):
    """Four times as many pixels along each side."""
    config.task.update(scale=4, patch=80)
    config.expected = {}


def set14(config):
    """Tests on Set14 instead of Set5."""
    config.data.test = 'set14'
    config.expected = {}


def own(config):
    """Your own pictures; a tenth of them, by a hash of each file, are for validation and for the test each."""
    config.data = {'reader': 'image_folder', 'validation_fraction': 0.1, 'test_fraction': 0.1}
    config.expected = {}


def tiny(config):
    """A few steps on generated pictures."""
    config.data = {'name': 'shapes', 'side': 40}
    config.task.update(patch=24, tile=8)
    config.model.update(width=8, blocks=1)
    config.optimizer.model.warmup_steps = 2
    few_steps(config, batch_size=8, eval_batch_size=4)
