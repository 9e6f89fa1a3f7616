"""A model small enough to export in a moment, and the sources of configs at ':tiny'."""

import types

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from research.core.task import Input, Task, Variables
from research.export.programs import read_source

CLASSES = ('low', 'middle', 'high')


def sampled_task() -> Task:
    """A classifier of four numbers whose answers include a drawn number; one weight is never read."""

    def predict(variables, batch, context):
        weights = variables.params['model']
        logits = batch['numbers'] @ weights['kernel'] + weights['bias']
        keys = jax.vmap(jax.random.fold_in, (None, 0))(context.fold('draw'), batch['index'])
        noise = jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
        return {'logits': logits, 'probability': jax.nn.softmax(logits), 'drawn': noise}

    def encode(raw, rng=None):
        return {'numbers': np.asarray(raw['numbers'], np.float32), 'unused': np.float32(1)}

    def init(key):
        kernel = jax.random.normal(key, (4, 3))
        params = {'kernel': kernel, 'bias': jnp.arange(3.0), 'spare': jnp.ones((7, 7))}
        return Variables({'model': params}, {})

    rows = [{'numbers': np.random.default_rng(row).normal(size=4), 'label': 1} for row in range(20)]
    return Task(
        inputs={'numbers': Input('array', (4,))}, source=lambda split: rows, encode=encode, init=init, losses={},
        predict=predict, metric_sums=lambda *all: {}, metrics=lambda sums: {},
        decode=lambda outputs: {'label': CLASSES[int(np.argmax(outputs['probability']))]},
    )  # fmt: skip


def source_of(task: Task, workdir, config=None, variables=None):
    """The source of a task with its initial weights."""
    config = config or types.SimpleNamespace(task={'name': 'sampled'}, data={'name': 'numbers'}, seed=5)
    variables = variables or task.init(jax.random.key(0))
    return read_source(
        types.SimpleNamespace(config=config, task=task, variables=variables, step=12, workdir=epath.Path(workdir))
    )
