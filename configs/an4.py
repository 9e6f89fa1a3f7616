r"""Speech recognition: spelled words, numbers and commands (AN4), a small Conformer with a CTC loss.

    python -m launch.train --config=configs/an4.py --workdir=runs/an4

Expected: see the results; word error rate of the official test split.
"""

from research.core.config import base, few_steps


def get_config():
    config = base('speech_recognition', model='conformer', data='an4')
    config.task.update(
        features=13, seconds=6.5, buckets=3, deltas=2, speeds=(0.9, 1.0, 1.1), time_masks=4, band_masks=1, band_mask=3,
        case='upper',
    )  # fmt: skip
    config.model.update(
        width=112, layers=4, heads=4, hidden_width=224, kernel=15, activation='silu', dropout=0.1, scan=True
    )
    config.optimizer.model.update(
        learning_rate=1.5e-3, schedule='cosine', warmup_steps=300, weight_decay=0.05, clip=1.0, b2=0.98
    )
    config.train.update(
        epochs=75.0, batch_size=16, eval_batch_size=32, evaluations=8, checkpoint_every=400, best='wer',
        ema_decay=0.995,
    )  # fmt: skip
    return config


def own(config):
    """Your own recordings: a table with the columns file and transcript."""
    config.task.update(features=0, mels=80, deltas=0, seconds=20.0, case='lower', band_masks=2, band_mask=10)
    config.data = {'reader': 'csv', 'fields': 'file:audio,transcript:text', 'validation_fraction': 0.1}
    config.optimizer.model.warmup_steps = 100
    config.expected = {}


def tiny(config):
    """A few steps on words spelled by tones."""
    config.task.update(seconds=3.0, buckets=2, lm_order=2)
    config.data = {'name': 'spelled_tones', 'features': True}
    config.model.update(width=16, layers=2, heads=2, hidden_width=32, kernel=3, dropout=0.0)
    config.optimizer.model.warmup_steps = 2
    few_steps(config, ema_decay=0.0)
