r"""Questions answered from a text: SQuAD 1.1 with a convolution over question and paragraph, trained from scratch.

    python -m launch.train --config=configs/squad.py --workdir=runs/squad
    python -m launch.predict --workdir=runs/squad \
        --input='{"question": "Who built the mill?", "context": "The mill was built by Anna Berg in 1902."}'
"""

from research.core.config import base, few_steps


def get_config():
    config = base('question_answering', model='convolution', data='squad')
    config.task.update(length=320, question_length=40, stride=160, buckets=(160, 224), longest_answer=20)
    config.optimizer.model.update(
        learning_rate=1e-3, schedule='cosine', warmup_steps=100, weight_decay=0.05, clip=1.0, b2=0.98
    )
    config.train.update(
        epochs=10.0, batch_size=32, eval_batch_size=64, eval_every=250, checkpoint_every=250, best='f1',
        ema_decay=0.995,
    )  # fmt: skip
    return config


def tiny(config):
    """A few steps on invented facts in Chinese, some of which are missing."""
    config.task.update(
        length=48, question_length=16, stride=20, buckets=(), min_count=1, no_answer=True, metric='characters',
        longest_answer=8,
    )  # fmt: skip
    config.model.update(width=16, before=(1,), after=(1, 2), heads=2)
    config.data = {'name': 'facts', 'language': 'chinese', 'rows': 64, 'unanswerable': 0.2}
    few_steps(config, batch_size=8, eval_batch_size=16, ema_decay=0.0)
