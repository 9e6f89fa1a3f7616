"""What the tests of text tasks share: a small config, batches of rows, a task on Chinese text."""

import importlib
import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from research.core.task import Context
from research.data.batches import encode_rows, evaluation_rows, requests

CHINESE = pathlib.Path(__file__).parent.parent.parent / 'research' / 'data' / 'sets' / 'samples' / 'chinese.tsv'
MODEL = {'width': 16, 'layers': 2, 'heads': 2, 'scan': True, 'initial_scale': 0.2}


def config(task, model=None, data=None):
    """Returns what `prepare` and `make` read of a config."""
    data = data or {'name': 'python_source', 'megabytes': 0.05}
    return types.SimpleNamespace(task=task, model={**MODEL, **(model or {})}, data=data)


def chinese(task, model=None):
    """Returns a config on the embedded sample of Chinese text."""
    data = {'reader': 'tsv', 'train': str(CHINESE), 'validation_fraction': 0.2, 'test_fraction': 0.2}
    return config(task, model, data)


def built(values, folder):
    """Prepares a config in a folder and returns its task."""
    module = importlib.import_module(f'research.tasks.{values.task["name"]}')
    folder = epath.Path(folder) / 'prepared'
    module.prepare(values, folder)
    return module.make(values, folder)


def context(train=False):
    return Context(jax.random.key(5), jnp.int32(0), train)


def rows(task, count, split='validation'):
    """Returns the first rows of a split as one batch."""
    return encode_rows(task.source(split), task.encode, evaluation_rows(count, count, 0), 0)


def answers(task, variables, raws):
    """Returns the decoded answers to requests, which must be JSON."""
    batch = requests(task.encode, raws, len(raws))
    outputs = jax.device_get(jax.jit(lambda v, b: task.predict(v, b, context()))(variables, batch))
    found = [task.decode({name: value[row] for name, value in outputs.items()}) for row in range(len(raws))]
    return json.loads(json.dumps(found))


def metrics_of(task, variables, batch):
    """Returns the metrics of one batch."""
    sums = jax.jit(lambda v, b: task.metric_sums(v, b, context()))(variables, batch)
    return task.metrics({name: np.asarray(value, np.float64) for name, value in sums.items()})


def log_probabilities(logits):
    """Returns log softmax in float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
