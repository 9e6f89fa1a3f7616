r"""The tutorials' BERT: fine-tuned to tell positive sentences from negative ones. Their program, setting for setting.

    python -m launch.train --config=configs/tutorials/bert.py --workdir=runs/bert

It reads bert-base-uncased from the Hugging Face hub (or HF_ENDPOINT) once; without a network, name a folder:

    python -m launch.train --config=configs/tutorials/bert.py --workdir=runs/bert --config.model.weights=FOLDER

Expected: not measured with bert-base-uncased, whose weights no machine of this project has had; what is tested is
that a small random BERT of the same form is read and fine-tuned by the same line. The paper has 93.5% on GLUE's SST-2,
which trains on phrases too (Devlin et al. 2019, table 1, BERT-base).

Its settings, all kept:
- bert-base-uncased by name, with its own tokenizer; the revision that was read is stored in the run.
- Padding and truncation: rows of one length, longer texts lose their end; [CLS] text [SEP].
- BERT's pooler, dropout 0.1 and a linear layer for the classes, all weights trained.
- 3 epochs, batches of 32, accuracy; no early stopping, the last weights are the result.
- What its trainer does where nothing is said: AdamW, learning rate 5e-5 falling linearly to 0, no warm-up, no weight
  decay, gradients clipped to a norm of 1, dropout 0.1 as in the weights' own config.

Its repairs:
- The length is 64 tokens: no sentence of SST-2 has more, and padding to 512 costs 8 times the work.
- Rows of the validation split choose nothing, and the test split is measured once, at the end.

Variants: `:own` for texts of your own, `:chinese` (bert-base-chinese by name), `:tiny` for tests (from scratch).
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
    """Texts of your own: nothing is known of them."""
    config.task.length = 128
    config.data.update(name='', reader='csv')


def chinese(config):
    """Texts of your own in Chinese, character by character."""
    own(config)
    config.model.weights = 'bert-base-chinese'


def tiny(config):
    """A few steps from scratch on the Chinese sentences of this project, character by character."""
    config.task.update(tokens='characters', length=16)
    config.model.update(weights='', width=16, layers=2, heads=2, norm_position='post', positions='learned')
    config.data.update(name='chinese')
    config.optimizer.model.learning_rate = 1e-3
    few_steps(config, steps=6, eval_batch_size=32, eval_every=3, checkpoint_every=6)
