r"""The tutorials' BERT, fine-tuned for sentiment, setting for setting.

    python -m launch.train --config=configs/tutorials/bert.py --workdir=runs/bert

Loads bert-base-uncased from the Hugging Face hub (or HF_ENDPOINT) once. Without a network, give a folder:

    python -m launch.train --config=configs/tutorials/bert.py --workdir=runs/bert --config.model.weights=FOLDER

Expected: not measured; the weights of bert-base-uncased were not available here. Tests load and fine-tune a small
random BERT with the same code. Published: 93.5% on GLUE's SST-2, which also trains on phrases (Devlin et al. 2019,
table 1, BERT-base).
Time: not measured.
Variants, which compose: `:own` (your texts), `:chinese` (bert-base-chinese), `:tiny` (for tests; from scratch).

Settings kept:
- bert-base-uncased by name, with its tokenizer; the revision is stored in the run.
- Padding and truncation to one length, cutting the end; [CLS] text [SEP].
- BERT's pooler, dropout 0.1 and a linear classifier; all weights are trained.
- 3 epochs, batches of 32, accuracy; no early stopping, the last weights are the result.
- Defaults of its trainer: AdamW, learning rate 5e-5 falling linearly to 0, no warmup, no weight decay, gradients
  clipped to a norm of 1, dropout 0.1 as in the config of the weights.

Corrections:
- The length is 64 tokens: no sentence of SST-2 is longer, and padding to 512 costs 8 times the work.
- The validation split selects nothing, and the test split is evaluated once, at the end.
"""

from research.core.config import base, few_steps


def get_config():
    config = base('text_classification', model='transformer', data='sst2')
    config.model.update(
        weights='bert-base-uncased', pool='pooler', dropout=0.1, attention_dropout=0.1, embedding_dropout=0.1,
    )  # fmt: skip
    config.optimizer.model.update(learning_rate=5e-5, schedule='linear', clip=1.0)
    config.train.update(epochs=3.0, eval_batch_size=128, eval_every=217, checkpoint_every=217)
    return config


def own(config):
    """Your own texts."""
    config.task.length = 128
    config.data.update(name='', reader='csv')


def chinese(config):
    """Your own texts in Chinese."""
    own(config)
    config.model.weights = 'bert-base-chinese'


def tiny(config):
    """A few steps from scratch on this project's Chinese sentences, by character."""
    config.task.update(tokens='characters', length=16)
    config.model.update(weights='', width=16, layers=2, heads=2, norm_position='post', positions='learned')
    config.data.update(name='chinese')
    config.optimizer.model.learning_rate = 1e-3
    few_steps(config, steps=6, eval_batch_size=32, eval_every=3, checkpoint_every=6)
