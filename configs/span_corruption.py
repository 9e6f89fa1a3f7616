"""A small T5 learns to write the spans that are missing from Python of your own interpreter's standard library.

    python -m launch.train --config=configs/span_corruption.py --workdir=runs/span_corruption

Pre-trains 0.99 million parameters (encoder and decoder of 2 layers each, width 128, RMS norm, SwiGLU, rotary
positions) for 500 steps of 16 x 64 tokens, 10 of them hidden in 3 spans. Expected test loss: 3.2 to 3.7 nats a target
token and 33 to 38% of them right (seed 0 on Python 3.11's library: 3.44 and 35.5%; unigrams of the targets 4.71 and
6.7%). A third of a target is sentinels and its end, which are easy. 115 CPU-seconds; 157 s on 2 cores with other work
on them, 4.3 steps a second.

Variant: `:tiny` (for tests).

From published weights, with their sizes and tokenizer (not measured): `--config.model.weights=t5-small
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
    """Everything small: seconds, for tests."""
    config.task.update(vocabulary=300, length=32)
    config.model.update(width=16, layers=2, heads=2, scan=True)
    config.data.update(megabytes=0.05)
    few_steps(config, batch_size=8, sample_every=2)
