"""Language models of published shapes, to plan for a cluster before paying for it; `:tiny` trains on a laptop.

    python -m launch.plan --config=configs/gpt.py:8b --topology=v5e:16x16 --mesh=fsdp:256
    python -m launch.train --config=configs/gpt.py:tiny

| variant | shape                                                       | source                           |
|---------|-------------------------------------------------------------|----------------------------------|
| `:1b`   | 24 layers, width 2048, 16 heads of 128, 2048 tokens: 1.3 B  | GPT-3 XL, Brown et al. 2020      |
| `:8b`   | 32 layers, width 4096, 32 heads on 8, 8192 tokens: 8.0 B    | Llama 3, Grattafiori et al. 2024 |
| `:70b`  | 80 layers, width 8192, 64 heads on 8, 8192 tokens: 70.6 B   | Llama 3, Grattafiori et al. 2024 |
| `:gpt3` | 96 layers, width 12288, 96 heads of 128, 2048 tokens: 175 B | GPT-3, Brown et al. 2020         |

Without a variant the config is `:1b`. GPT-3: table 2.1 of arXiv:2005.14165. For XL the table lists 24 heads of 128,
which is 3072 instead of the width of 2048; 16 heads give the stated 1.3 B. Its sparse attention layers are dense here,
and the vocabulary of 50,257 is padded to 51,200 so that it divides among devices. Llama 3: table 3 of arXiv:2407.21783,
with the vocabulary and the rotary base of the published weights.

The data are made-up words (`synthetic`), so that planning reads no corpus; to train, set `config.data.reader`.

Expected: `:8b` on v5e:16x16 takes 11.7 of 15.75 GiB per chip as compiled by libtpu. Of the runs, only `:tiny` (4 steps,
for tests) was trained; no metric is expected of it.
Time: compiling `:8b` takes 94 s on 2 CPU cores.
"""

from research.core.config import base, few_steps


def get_config():
    config = base('language_model', data='synthetic')
    config.task.update(vocabulary=51200, length=2048, max_new_tokens=128, prompts=('bado', 'kilu mero'))
    config.model.update(
        positions='learned', query_key_value_bias=True, output_bias=True,
        feed_forward_bias=True, initializer='normal', dtype='bfloat16', remat=True, scan=True,
    )  # fmt: skip
    config.optimizer.model.update(
        learning_rate=2e-4, schedule='cosine', warmup_steps=375, end_fraction=0.1, b2=0.95, weight_decay=0.1,
        clip=1.0,
    )  # fmt: skip
    config.mesh.update(data=1, fsdp=-1)
    config.train.update(steps=300_000, log_every=10, checkpoint_every=1000)
    _1b(config)
    return config


def _1b(config):
    """GPT-3 XL, batches of a million tokens; also the config without a variant."""
    config.model.update(width=2048, layers=24, heads=16)
    config.train.batch_size = 512


def gpt3(config):
    """GPT-3, 175 B parameters, batches of 3.1 million tokens (3.2 in the paper)."""
    config.model.update(width=12288, layers=96, heads=96)
    config.optimizer.model.update(learning_rate=6e-5)
    config.train.update(batch_size=1536)


def _llama(config):
    """Shared by the Llama 3 models: rotary positions, RMS norms, SwiGLU, grouped heads, no biases."""
    config.task.update(vocabulary=128256, length=8192)
    config.model.update(
        key_value_heads=8, norm='rms', activation='silu', gated=True, positions='rotary', rotary_base=500000.0,
    )  # fmt: skip
    config.model.update(query_key_value_bias=False, output_bias=False, feed_forward_bias=False, tie_embedding=False)
    config.optimizer.model.update(warmup_steps=8000)


def _8b(config):
    """Llama 3 8B; batches of 2.1 million tokens."""
    _llama(config)
    config.model.update(width=4096, layers=32, heads=32, hidden_width=14336)
    config.optimizer.model.update(learning_rate=3e-4)
    config.train.update(batch_size=256)


def _70b(config):
    """Llama 3 70B; batches of 4.2 million tokens."""
    _llama(config)
    config.model.update(width=8192, layers=80, heads=64, hidden_width=28672)
    config.optimizer.model.update(learning_rate=1.5e-4)
    config.train.update(batch_size=512)


def tiny(config):
    """A few steps of a small model."""
    config.task.update(vocabulary=320, length=32, max_new_tokens=8, check_count=2)
    config.model.update(width=32, layers=2, heads=2, dtype='float32')
    config.data.update(kilobytes=8)
    config.optimizer.model.update(learning_rate=4e-3, warmup_steps=2)
    few_steps(config, batch_size=8, eval_batch_size=8, sample_every=2)
