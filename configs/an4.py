r"""Speech recognition: spelled words, numbers and commands (AN4), a small Conformer with a CTC loss.

    python -m launch.train --config=configs/an4.py --workdir=runs/an4

Trains 832,860 parameters for 40 epochs on 846 utterances of 66 speakers (18 MB, fetched on first use; 8 other training
speakers are the validation split), from 13 MFCCs per frame with SpecAugment and three speeds. The features are stored,
so a speed is linear interpolation in time.

Expected: word error rate of the official test split, 10 new speakers, 9% to 15% and character error rate 4.5% to 7.5%
(seed 0: 13.1% and 6.2%; saying nothing: 100%). Without the language model 18.5% and 7.9%; on the 104 of 130 utterances
whose transcript is not in the training split 15.2%. Published, from the sounds: 7.4% and 3.6% (ESPnet, a Transformer
with an attention decoder and a language model). Weight and bonus of the language model were chosen on the validation
split, where the word error rate is 11.9%.
Time: 27 min on 2 CPU cores that other programs used as well (25 CPU-minutes).
Variants: `:own` (your recordings: a table with the columns file and transcript), `:tiny` (for tests; words spelled by
tones).

    python -m launch.train --config=configs/an4.py:own --workdir=runs/words --config.data.train=words.csv
"""

from research.core.config import base, few_steps


def get_config():
    config = base('speech_recognition', model='conformer', data='an4')
    config.task.update(
        features=13, seconds=6.5, buckets=3, deltas=2, speeds=(0.9, 1.0, 1.1), time_masks=4, band_masks=1, band_mask=3,
        case='upper', lm_weight=0.5, word_bonus=4.0,
    )  # fmt: skip
    config.model.update(
        width=112, layers=4, heads=4, hidden_width=224, kernel=15, activation='silu', dropout=0.1, scan=True
    )
    config.optimizer.model.update(
        learning_rate=1.5e-3, schedule='cosine', warmup_steps=300, weight_decay=0.05, clip=1.0, b2=0.98
    )
    config.train.update(
        epochs=40.0, batch_size=16, eval_batch_size=32, evaluations=8, checkpoint_every=400, best='wer',
        ema_decay=0.995,
    )  # fmt: skip
    config.expected = {'test': {'wer': (9.0, 15.0), 'cer': (4.5, 7.5)}}
    return config


def own(config):
    """Your own recordings: a table with the columns file and transcript."""
    config.task.update(features=0, mels=80, deltas=0, seconds=20.0, case='lower', word_bonus=1.0)
    config.task.update(band_masks=2, band_mask=10)
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
