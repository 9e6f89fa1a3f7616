r"""Which digit is spoken: a small convolutional network over log-mel spectrograms of the Free Spoken Digits.

    python -m launch.train --config=configs/spoken_digits.py --workdir=runs/spoken_digits

Trains 98,682 parameters for 15 epochs on 2,400 recordings of six speakers (takes 10 to 49; validation takes 5 to 9),
moved, louder or softer, with noise and with stretches of time and of bands hidden (SpecAugment); 90 s
on 2 CPU cores. Expected accuracy on the official test, takes 0 to 4: 97% to 99.7% (seeds 0, 1, 2: 98.3% each; always
one digit: 10%). The same speakers are on both sides of that split: of one who is not heard in training (`:speaker`,
theo) 82.8% are understood (seed 0).

Variants: `:speaker` (the test is all of one speaker, of whom nothing is learnt; --config.data.speaker=george, jackson,
lucas, nicolas, theo or yweweler), `:resnet`, `:transformer` (patches of 8 bands and 8 frames), `:own` for a folder of
sounds for each class, `:tiny` for tests (tones with noise).

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
    """The test is one speaker, of whom nothing is learnt."""
    config.data.speaker = 'theo'
    config.expected = {}  # it depends on the speaker


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
    """Sounds of your own, in a folder for each class."""
    config.task.update(sample_rate=16000, mels=40, top=0)
    config.data = {'reader': 'audio_folder', 'validation_fraction': 0.15, 'test_fraction': 0.15}
    config.train.update(epochs=30.0, eval_every=100, checkpoint_every=100, sample_every=100)
    config.expected = {}


def tiny(config):
    """A few steps on tones with noise; group norm, so that every method can be tried."""
    config.task.update(seconds=0.25, hop=25.0, mels=16, shift=0.02, time_mask=2, band_mask=2)
    config.data = {'name': 'tones'}
    config.model.update(filters=(4, 8), norm='group', dropout=0.0)
    config.optimizer.model.warmup_steps = 2
    few_steps(config, eval_batch_size=16, sample_every=2, ema_decay=0.0)
