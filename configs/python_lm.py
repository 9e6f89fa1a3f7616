"""Language modelling: a small Transformer on the Python source of your interpreter's standard library.

    python -m launch.train --config=configs/python_lm.py --workdir=runs/python_lm

Trains 1.3 million parameters (decoder, 3 layers, width 160, rotary positions, SwiGLU) for 360 steps of 8 x 128 tokens
on 2.7 MB of source, split by module.

Expected: test loss 4.0 to 4.9 nats per token, 1.8 to 2.2 bits per byte (unigrams: 6.4 nats). Python 3.11's library gave
4.57, 3.13's 4.52; each version has its own library. Python's tokenizer accepts 0.92 to 0.99 of the generated lines
(`python_lines`). 450 steps reach 4.41 and 4.34.
Time: 104 s on 2 CPU cores.
Variants: `:own` (your texts, see docs/data.md), `:tiny` (for tests). On a GPU, `--config.model.dtype=bfloat16` enables
the fused attention kernel.
"""

from research.core.config import base, few_steps


def get_config():
    config = base('language_model', data='python_source')
    config.task.update(
        temperature=0.7, top_p=0.9,
        prompts=('import os\n', 'class Parser:\n', 'def read(', 'for name in ', 'if __name__ == '), check='python',
    )  # fmt: skip
    config.model.update(
        width=160, layers=3, norm='rms', activation='silu', gated=True,
        initial_scale=0.1,  # 0.02 trains slower at this width: loss 5.3 against 4.5 after 250 steps
    )  # fmt: skip
    config.data.update(megabytes=3.0)
    config.optimizer.model.update(
        learning_rate=4e-3, schedule='cosine', warmup_steps=40, end_fraction=0.05, b2=0.95, weight_decay=0.1,
        clip=1.0,
    )  # fmt: skip
    config.train.update(
        steps=360, batch_size=8, eval_batch_size=32, log_every=25, eval_every=180, checkpoint_every=180,
        sample_every=180, best='loss',
    )  # fmt: skip
    config.expected = {'test': {'loss': (4.0, 4.9)}}
    return config


def own(config):
    """Your own texts, separated by end tokens."""
    config.task.update(prompts=(), check='')
    config.data = {'reader': 'text_folder'}
    config.expected = {}


def tiny(config):
    """A few steps of a small model."""
    config.task.update(vocabulary=320, length=32, max_new_tokens=16, check_count=4)
    config.model.update(width=32, layers=2, heads=2)
    config.data.update(megabytes=0.1)
    few_steps(config, batch_size=8, eval_batch_size=8, sample_every=2)
