"""The smallest task, with one weight, and how the tests of the loop start it."""

import jax.numpy as jnp
import numpy as np
from etils import epath

from research import api
from research.core import train
from research.core.config import base, read_config
from research.core.task import Aux, Metric, Task, Variables


def slope_task(data=(1.0, 2.0, 3.0, 4.0), explode_at=None, load=None) -> Task:
    """Fits y = 2 x with one weight; the loss can be made to overflow at a step."""

    def init(key):
        return Variables({'model': {'kernel': jnp.zeros(())}}, {})

    def loss(variables, batch, context):
        errors = (variables.params['model']['kernel'] - 2) * batch['x']
        total = jnp.sum(batch['mask'] * errors**2)
        if explode_at is not None:
            total = total + jnp.where(context.step == explode_at, jnp.inf, 0.0) * variables.params['model']['kernel']
        return total, Aux(jnp.sum(batch['mask']))

    def metric_sums(variables, batch, context):
        error = jnp.abs(variables.params['model']['kernel'] - 2)
        return {'error': jnp.sum(batch['mask'] * error), 'count': jnp.sum(batch['mask'])}

    return Task(
        inputs={},
        source=lambda split: [{'x': x} for x in data],
        encode=lambda raw, rng=None: {'x': np.float32(raw['x'])},
        init=init,
        losses={'model': loss},
        predict=lambda variables, batch, context: {'y': 2 * batch['x']},
        metric_sums=metric_sums,
        metrics=lambda sums: {'error': Metric(sums['error'] / sums['count'], 2.0, 'lower')},
        decode=lambda outputs: {'y': float(outputs['y'])},
        load=load,
    )


def make_config(**settings):
    config = base()
    config.task = {'name': 'slope'}
    config.train.update({'steps': 12, 'batch_size': 8, 'log_every': 1, **settings})
    config.optimizer.model.update({'name': 'sgd', 'learning_rate': 0.02, 'momentum': 0.0})
    return read_config(config, {})


def start(config, folder, task):
    folder, observers = epath.Path(folder), api.observers()
    return train.run(config, folder, lambda config, folder: None, lambda config, folder: task, observers)
