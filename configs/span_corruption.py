"""Span corruption: a small T5 on the Python source of your interpreter's standard library.

    python -m launch.train --config=configs/span_corruption.py --workdir=runs/span_corruption

Pre-trains 0.99 million parameters (encoder and decoder of 2 layers each, width 128, RMS norm, SwiGLU, rotary positions)
for 500 steps of 16 x 64 tokens, of which 10 are removed in 3 spans.

Expected: test loss 3.2 to 3.7 nats per target token, accuracy 33% to 38% (seed 0 on Python 3.11's library: 3.44 and
35.5%; unigrams of the targets: 4.71 and 6.7%). A third of each target, sentinels and the end token, is easy to predict.
Time: 115 CPU-seconds; 157 s on 2 busy cores.
Variants: `:tiny` (for tests).

From pretrained weights, with their shape and tokenizer (not measured): `--config.model.weights=t5-small
--config.optimizer.model.learning_rate=1e-3`.
"""

from research.core.config import base, few_steps


def get_config():
    config = base('span_corruption', data='python_source')
    config.task.update(
        vocabulary=512, length=64,
        prompts=('for i in<extra_id_0>(10):\n    print(<extra_id_1>)\n', 'if x is<extra_id_0> None:\n    return\n'),
    )  # fmt: skip
    config.model.update(layers=2, norm='rms', activation='silu', gated=True, initial_scale=0.1)
    config.data.update(megabytes=3.0)
    config.optimizer.model.update(
        learning_rate=4e-3, schedule='cosine', warmup_steps=50, end_fraction=0.05, b2=0.98, weight_decay=0.05,
        clip=1.0,
    )  # fmt: skip
    config.train.update(
        steps=500, batch_size=16, eval_batch_size=32, eval_every=250, checkpoint_every=250, sample_every=250,
        best='loss',
    )  # fmt: skip
    config.expected = {'test': {'loss': (3.2, 3.7)}}
    return config


def tiny(config):
    """A few steps of a small model."""
    config.task.update(vocabulary=300, length=32)
    config.model.update(width=16, layers=2, heads=2, scan=True)
    config.data.update(megabytes=0.05)
    few_steps(config, batch_size=8, sample_every=2)
