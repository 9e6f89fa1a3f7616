r"""Tables: UCI Adult, does a person earn more than 50,000 dollars a year (1994 census)?

    python -m launch.train --config=configs/adult.py --workdir=runs/adult

A perceptron on 29,305 rows (6 MB, fetched on first use) with 8 categorical columns, embedded, and 5 numeric ones.

Expected: test accuracy 85.0% to 86.2% (seeds 0 to 2: 85.8%, 85.5%, 85.7%; always '<=50K': 76.4%).
Time: 30 s on 2 CPU cores.
Variants: `:own` (your table), `:tiny` (for tests; scikit-learn's breast cancer table).

    python -m launch.train --config=configs/adult.py:own --workdir=runs/mine \
        --config.data.train=mine.csv --config.data.fields=my_column:label
"""

from research.core.config import base, few_steps


def get_config():
    config = base('table_classification', data='adult')
    config.task.update(
        ignore=('weight',),  # census weight of the row, not a property of the person
    )  # fmt: skip
    config.model.update(dropout=0.2)
    config.optimizer.model.update(learning_rate=2e-3, schedule='cosine', warmup_steps=100, weight_decay=0.01)
    config.train.update(
        epochs=10.0, batch_size=256, eval_batch_size=1024, eval_every=200, checkpoint_every=400, best='loss',
    )  # fmt: skip
    config.expected = {'test': {'accuracy': (0.850, 0.862)}}
    return config


def own(config):
    """Your own table."""
    config.task.ignore = ()
    config.data.update(name='', reader='csv', validation_fraction=0.15, test_fraction=0.15)
    config.train.update(
        epochs=40.0, batch_size=32, eval_batch_size=256, checkpoint_every=200, patience=8,
        eval_every=0, evaluations=40,  # after each epoch, whether the table is small or large
    )  # fmt: skip
    config.expected = {}


def tiny(config):
    """A few steps on scikit-learn's breast cancer table."""
    own(config)
    config.data = {'name': 'breast_cancer'}
    config.model.update(widths=(16,), dropout=0.0)
    few_steps(config, steps=8, eval_batch_size=32)
