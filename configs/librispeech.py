r"""Speech recognition: read English books (LibriSpeech, 960 hours), a Conformer with a CTC loss.

    python -m launch.prepare_data --name=librispeech     # once: downloads 60 GB
    python -m launch.train --config=configs/librispeech.py --workdir=gs://BUCKET/librispeech

Expected: not measured; neither the data nor the accelerators were available here. Published: 2.7% word error rate on
test-clean without a language model for a Conformer of 10.3 M parameters, a transducer of 1,024 word pieces (Gulati et
al. 2020, arXiv:2005.08100, table 2). CTC over single letters, as here, is worse.
Published settings: 80 mel bands of 25 ms every 10 ms, two frequency masks of at most 27 bands, ten time masks of at
most 5% of the utterance, 16 layers of width 144 with 4 heads and convolutions of 32 frames, dropout 0.1, Adam with
b2 = 0.98. Differences: convolutions of 31 frames, layer norm in place of batch norm, rotary positions, letters, CTC, a
cosine schedule, no language model. `test` is test-clean; `:other` reports test-other.
Time: not measured. The first start reads all sounds once. TFDS reads sounds with TensorFlow (extra `prepare`).
Variants: `:other`, `:tiny` (for tests; words spelled by tones).
"""

from research.core.config import base, few_steps


def get_config():
    config = base('speech_recognition', model='conformer')
    config.task.update(
        mels=80, seconds=25.0, buckets=6, time_masks=10, time_share=0.05, band_masks=2, band_mask=27, lm_weight=0.0,
    )  # fmt: skip
    config.data = {
        'name': 'librispeech', 'reader': 'tfds', 'fields': 'speech:audio',
        'train': 'train_clean100+train_clean360+train_other500',
        'validation': 'dev_clean', 'test': 'test_clean',
    }  # fmt: skip
    config.model.update(
        width=144, layers=16, heads=4, hidden_width=576, kernel=31, activation='silu', dropout=0.1, dtype='bfloat16',
        scan=True,
    )  # fmt: skip
    config.optimizer.model.update(
        learning_rate=2e-3, schedule='cosine', warmup_steps=10000, weight_decay=1e-2, clip=1.0, b2=0.98
    )
    config.train.update(
        epochs=100.0, batch_size=256, eval_batch_size=128, log_every=100, eval_every=5000, checkpoint_every=2500,
        best='wer', ema_decay=0.9999, workers=16,
    )  # fmt: skip
    return config


def other(config):
    """The harder half of the test data."""
    config.data.update(validation='dev_other', test='test_other')


def tiny(config):
    """A few steps on words spelled by tones."""
    config.task.update(sample_rate=8000, mels=12, seconds=3.0, buckets=2, speeds=(0.9, 1.0, 1.1), band_mask=3)
    config.data = {'name': 'spelled_tones'}
    config.model.update(width=16, layers=2, heads=2, hidden_width=32, kernel=3, dropout=0.0, dtype='float32')
    config.optimizer.model.warmup_steps = 2
    few_steps(config, ema_decay=0.0, workers=0)
