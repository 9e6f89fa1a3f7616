r"""JPEG artefacts: a residual network repairs strongly compressed photographs.

    python -m launch.train --config=configs/jpeg_artifacts.py --workdir=runs/jpeg
    python -m launch.predict --workdir=runs/jpeg --input=photo.jpg --output=repaired/

Trains 89,924 parameters on patches of 380 grey photographs (Train400, for research only, fetched on first use), which
Pillow compresses with quality 10. Of a colour picture the luma is repaired; the colours are kept.

Expected: test PSNR on classic5 of 28.7 to 29.2 dB (seed 0: 28.94, SSIM 0.7902; the compressed pictures: 27.82, 0.7595).
Published: AR-CNN 29.03, DnCNN-3 29.40 dB.
Time: 470 CPU-seconds, 11 min on 2 CPU cores that other programs used as well.
Variants:
- `:q20`, `:q40`: quality 20 and 40.
- `:blind`: quality 5 to 60 in training; a request may state its own, {"image": "photo.jpg", "quality": 30}.
- `:own`: your own pictures, --config.data.train=photos (a folder of clean pictures; they need no classes).
- `:tiny`: for tests; generated pictures.
"""

from research.core.config import base, few_steps


def get_config():
    config = base('image_restoration', model='ffdnet', data='train400')
    config.data.test = 'classic5'
    config.task.update(degradation='jpeg', quality=10, patch=48)
    config.model.update(width=40, depth=8)
    config.optimizer.model.update(learning_rate=1e-3, schedule='cosine', warmup_steps=100)
    config.train.update(
        steps=5000, batch_size=16, eval_batch_size=4, log_every=200, eval_every=2500, checkpoint_every=2500,
        sample_every=2500, ema_decay=0.999,
    )  # fmt: skip
    config.expected = {'test': {'psnr': (28.7, 29.2)}}
    return config


def q20(config):
    """Quality 20."""
    config.task.quality = 20
    config.expected = {}


def q40(config):
    """Quality 40."""
    config.task.quality = 40
    config.expected = {}


def blind(config):
    """Any quality in training; measured at quality 10."""
    config.task.blind = (5.0, 60.0)
    config.expected = {}


def own(config):
    """Your own pictures; a tenth of them, by a hash of each file, are for validation and for the test each."""
    config.data = {'reader': 'image_folder', 'validation_fraction': 0.1, 'test_fraction': 0.1}
    config.expected = {}


def tiny(config):
    """A few steps of the residual denoiser on generated pictures."""
    config.data = {'name': 'shapes', 'side': 40}
    config.task.update(patch=16, tile=16)
    config.model = {'name': 'dncnn', 'width': 8, 'depth': 3}
    config.optimizer.model.warmup_steps = 2
    few_steps(config, batch_size=8, eval_batch_size=4)
