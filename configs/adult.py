"""A table: does a person of the 1994 census earn more than 50,000 dollars a year, from age, work, schooling, ...

    python -m launch.train --config=configs/adult.py --workdir=runs/adult

Trains a perceptron on 29,364 rows of UCI's Adult (8 categories as embeddings, 6 numbers), reads
$TESSERA_DATA/fairness/adult-*.csv.gz and needs 1 minute on 2 CPU cores. Expected test accuracy: 85.0% to 86.2%
(always '<=50K' reaches 76.4%).

`:tiny` reads scikit-learn's breast cancer table, which is always there. A table of your own:

    python -m launch.train --config=configs/adult.py --workdir=runs/mine \
        --config.data.train=mine.csv --config.data.test='' --config.data.columns='' \
        --config.data.fields=my_column:label
"""

import os
import pathlib

from research.core.config import base

COLUMNS = (
    'age', 'workclass', 'weight', 'education', 'education_years', 'marital_status', 'occupation', 'relationship',
    'race', 'sex', 'capital_gain', 'capital_loss', 'hours_per_week', 'native_country', 'label',
)  # fmt: skip


def get_config(variant: str = ''):
    """Returns the config; ':tiny' for tests."""
    beside = pathlib.Path(__file__).parent.parent.parent / 'shared' / 'data'
    folder = os.environ.get('TESSERA_DATA', str(beside))
    config = base()
    config.task = {
        'name': 'table_classification', 'categorical': (), 'ignore': ('weight',), 'most_categories': 100,
        'strip': '.', 'label_smoothing': 0.0,
    }  # fmt: skip
    config.model = {'embedding': 8, 'widths': (128, 64), 'dropout': 0.2}
    config.data = {
        'name': '', 'reader': 'csv', 'train': f'{folder}/fairness/adult-train.csv.gz', 'validation': '',
        'test': f'{folder}/fairness/adult-test.csv.gz', 'columns': ','.join(COLUMNS), 'fields': '', 'delimiter': '',
        'validation_fraction': 0.1, 'test_fraction': 0.1, 'on_error': 'stop', 'error_limit': 100,
    }  # fmt: skip
    config.optimizer.model.update({
        'name': 'adamw', 'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 100, 'weight_decay': 0.01,
    })  # fmt: skip
    config.train.update({
        'epochs': 10.0, 'batch_size': 256, 'eval_batch_size': 1024, 'log_every': 50, 'eval_every': 200,
        'checkpoint_every': 400, 'best': 'loss',
    })  # fmt: skip
    config.expected = {'test': {'accuracy': (0.850, 0.862)}}
    if variant == 'tiny':
        config.task.ignore = ()
        config.data.update({'name': 'breast_cancer', 'reader': '', 'train': '', 'test': '', 'columns': ''})
        config.model.update({'widths': (16,), 'dropout': 0.0})
        config.train.update({'epochs': 0.0, 'steps': 8, 'batch_size': 16, 'eval_batch_size': 32, 'eval_every': 4})
        config.expected = {}
    return config
