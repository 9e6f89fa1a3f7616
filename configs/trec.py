r"""What a question asks for: a convolution over words on TREC's questions, six classes, from scratch.

    python -m launch.train --config=configs/trec.py --workdir=runs/trec

Trains 0.57 million parameters (Kim 2014's CNN-rand with vectors of 128) on 4,890 questions, 562 more for validation,
in 50 CPU-seconds. Expected test accuracy (500 questions): 88% to 92.5% (seeds 0 to 2: 91.2, 89.0, 90.4%, and on
another machine 90.4, 89.0, 88.6%, mean of all 89.8%; always the commonest class: 18.8%). CNN-rand: 91.2% (Kim 2014,
table 2), a point and a half more. Tried, means of three seeds on the validation split, where this has 85.7%: windows of
1 to 5, 84.9%; a width of 300 and 150 filters, 85.7%; words dropped, 85.2%. Half the learning rate was no better.

Variants: `:fine` (50 classes), `:own` for texts of yours, `:tiny` for tests: sentences in Chinese by character.

    python -m launch.train --config=configs/trec.py:own --workdir=runs/mine \
        --config.data.train=mine.csv --config.data.fields=question:text,kind:label
"""

from research.core.config import base, few_steps


def get_config():
    config = base('text_classification', model='convolution', data='trec')
    config.task.update(
        segment='space',  # the questions are tokenized
        min_count=2,  # the words that occur once teach what an unknown word is
        length=28,
    )  # fmt: skip
    config.model.update(width=128, embedding_dropout=0.3)
    config.optimizer.model.update(learning_rate=2e-3)
    config.train.update(
        epochs=8.0, batch_size=50, eval_batch_size=256, eval_every=49, checkpoint_every=196, best='accuracy',
        ema_decay=0.998,  # of the weights: what is evaluated and kept
    )  # fmt: skip
    config.expected = {'test': {'accuracy': (0.88, 0.925)}}
    return config


def fine(config):
    """The 50 fine classes."""
    config.data.update(labels='fine')
    config.expected = {}


def own(config):
    """Texts of your own: nothing is known of them."""
    config.task.update(segment='words', length=128)
    config.data = {'reader': 'csv'}
    config.expected = {}


def tiny(config):
    """A few steps on the Chinese sentences of this project, character by character."""
    config.task.update(tokens='characters', length=12)
    config.model.update(width=16, filters=8, windows=(2, 3))
    config.data = {'name': 'chinese'}
    few_steps(config, steps=6, eval_batch_size=32, eval_every=3, checkpoint_every=6)
