r"""Sounds: spoken digits, a small convolutional network over log-mel spectrograms (Free Spoken Digit Dataset).

    python -m launch.train --config=configs/spoken_digits.py --workdir=runs/spoken_digits

Trains 98,682 parameters for 15 epochs on 2,400 recordings of six speakers (16 MB, fetched on first use; takes 10 to 49,
with takes 5 to 9 for validation), with shifts, gain, noise and SpecAugment. Needs `pip install -e '.[audio]'`.

Expected: accuracy on the official test split, takes 0 to 4, 97% to 99.7% (seeds 0 to 2: 98.3% each; always one digit:
10%). Training and test share their speakers; for an unseen speaker (`:speaker`, theo) accuracy is 82.8% (seed 0).
Time: 90 s on 2 CPU cores.
Variants: `:speaker` (the test split is one unseen speaker; --config.data.speaker=george, jackson, lucas, nicolas, theo
or yweweler), `:resnet`, `:transformer` (patches of 8 bands and 8 frames), `:own` (your sounds, one folder per class),
`:tiny` (for tests; noisy tones).

    python -m launch.train --config=configs/spoken_digits.py:own --workdir=runs/sounds --config.data.train=sounds
"""

from research.core.config import base, few_steps


def get_config():
    config = base('audio_classification', model='convnet', data='free_spoken_digits')
    config.task.update(
        sample_rate=8000, hop=16.0, mels=32, fmin=50.0, power_floor=1e-8, shift=0.1, gain=6.0, noise=0.1, time_masks=2,
        time_mask=8, band_masks=2, band_mask=5, label_smoothing=0.05, top=3,
    )  # fmt: skip
    config.model.update(dropout=0.2)
    config.optimizer.model.update(learning_rate=4e-3, schedule='cosine', warmup_steps=50, weight_decay=0.01)
    config.train.update(
        epochs=15.0, batch_size=64, eval_batch_size=150, eval_every=188, checkpoint_every=282, sample_every=282,
        ema_decay=0.99,
    )  # fmt: skip
    config.expected = {'test': {'accuracy': (0.97, 0.997)}}
    return config


def speaker(config):
    """The test split is one unseen speaker."""
    config.data.speaker = 'theo'
    config.expected = {}  # depends on the speaker


def resnet(config):
    """A residual network."""
    config.expected = {}
    config.model = {'name': 'resnet', 'dropout': 0.2}


def transformer(config):
    """A Transformer over patches of 8 bands and 8 frames."""
    config.expected = {}
    config.model = {'name': 'transformer', 'width': 64, 'layers': 3, 'positions': 'learned', 'dropout': 0.1}
    config.optimizer.model.learning_rate = 1e-3


def own(config):
    """Your own sounds, in one folder per class; the length of the input follows from them."""
    config.task.update(sample_rate=16000, seconds=0.0, mels=40, top=0)
    config.data = {'reader': 'audio_folder', 'validation_fraction': 0.15, 'test_fraction': 0.15}
    config.train.update(epochs=30.0, eval_every=100, checkpoint_every=100, sample_every=100)
    config.expected = {}


def tiny(config):
    """A few steps on noisy tones; group norm, so that every method applies."""
    config.task.update(seconds=0.25, hop=25.0, mels=16, shift=0.02, time_mask=2, band_mask=2)
    config.data = {'name': 'tones'}
    config.model.update(filters=(4, 8), norm='group', dropout=0.0)
    config.optimizer.model.warmup_steps = 2
    few_steps(config, eval_batch_size=16, sample_every=2, ema_decay=0.0)
