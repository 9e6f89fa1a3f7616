"""Masked language modelling: a small BERT on the Python source of your interpreter's standard library.

    python -m launch.train --config=configs/masked_lm.py --workdir=runs/masked_lm

Pre-trains 0.48 million parameters (a bidirectional Transformer of 2 layers, width 128, with BERT's head) for 700 steps
of 16 x 64 tokens. 15% of the tokens are predicted; of those, 80% are replaced by [MASK], 10% by a random token, and 10%
stay.

Expected: test loss 4.2 to 4.8 nats per masked token, accuracy 12% to 18% (seed 0 on Python 3.11's library: 4.51 and
14.9%; unigrams 5.32, always the commonest token 3.2%). The loss was still falling.
Time: 145 CPU-seconds; 249 s on 2 busy cores.
Variants: `:words` (whole-word masking; not measured), `:tiny` (for tests).

From pretrained weights, with their shape and tokenizer (not measured): `--config.model.weights=bert-base-uncased
--config.optimizer.model.learning_rate=1e-4`.
"""

from research.core.config import base, few_steps


def get_config():
    config = base('masked_model', data='python_source')
    config.task.update(
        vocabulary=512, length=64, top=3,
        prompts=('import [MASK]\n', 'for i in [MASK](10):\n    print(i)\n', 'if x is [MASK] None:\n    return\n'),
    )  # fmt: skip
    config.model.update(
        layers=2, causal=False, activation='gelu', head_transform=True, head_bias=True, initial_scale=0.1,
    )  # fmt: skip
    config.data.update(megabytes=3.0)
    config.optimizer.model.update(
        learning_rate=4e-3, schedule='cosine', warmup_steps=50, end_fraction=0.05, b2=0.98, weight_decay=0.05,
        clip=1.0,
    )  # fmt: skip
    config.train.update(
        steps=700, batch_size=16, eval_batch_size=32, eval_every=350, checkpoint_every=350, sample_every=350,
        best='loss',
    )  # fmt: skip
    config.expected = {'test': {'loss': (4.2, 4.8)}}
    return config


def words(config):
    """Whole-word masking: harder, because no part of a word reveals the rest."""
    config.task.whole_words = True
    config.expected = {}


def tiny(config):
    """A few steps of a small model."""
    config.task.update(vocabulary=300, length=24)
    config.model.update(width=16, layers=2, heads=2, scan=True)
    config.data.update(megabytes=0.05)
    few_steps(config, batch_size=8, sample_every=2)
