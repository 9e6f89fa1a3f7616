"""A private task of one convolution, small enough to follow by hand; shared by the tests of privacy."""

import jax
import jax.numpy as jnp
import numpy as np
from contract import run_steps

from research.core.config import base, read_config
from research.core.runspec import make_run_spec
from research.core.task import Aux, Context, Metric, Task, Variables
from research.methods import privacy

CONTEXT = Context(jax.random.key(1), jnp.zeros((), jnp.int32), True)


def convolve(params, images, xp):
    """A 3x3 convolution without padding, written as shifted products, so that NumPy can run it too."""
    height, width = images.shape[1] - 2, images.shape[2] - 2
    return sum(
        xp.einsum('bhwi,io->bhwo', images[:, y : y + height, x : x + width], params[y, x])
        for y in range(3)
        for x in range(3)
    )


def by_library(params, images, xp):
    return jax.lax.conv_general_dilated(
        images, params, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def errors_of(params, batch, convolution, xp):
    hidden = xp.tanh(convolution(params['conv']['kernel'], batch['image'], xp)).mean((1, 2))
    return hidden @ params['head']['kernel'] + params['head']['bias'] - batch['target']


def loss(params, batch, context):
    """Squared errors; a row counts as often as its length, as a text has tokens."""
    rows = jnp.sum(errors_of(params, batch, by_library, jnp) ** 2, axis=-1)
    weight = batch['length'] * batch['mask']
    return jnp.sum(rows * weight), Aux(jnp.sum(weight), logs={'plain': jnp.sum(rows * batch['mask'])})


def make_params(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {'conv': {'kernel': (3, 3, 2, 4)}, 'head': {'kernel': (4, 3), 'bias': (3,)}}
    return jax.tree.map(
        lambda shape: rng.normal(size=shape).astype(np.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def make_batch(rows=16, masked=3, seed=1):
    rng = np.random.default_rng(seed)
    mask = np.ones(rows, np.float32)
    mask[rng.permutation(rows)[:masked]] = 0
    scale = rng.uniform(0.05, 3, size=(rows, 1)).astype(np.float32)  # so that some rows are clipped, some not
    return {
        'image': rng.normal(size=(rows, 6, 5, 2)).astype(np.float32),
        'target': scale * rng.normal(size=(rows, 3)).astype(np.float32),
        'length': rng.integers(1, 9, rows).astype(np.float32),
        'mask': mask,
        'index': rng.permutation(100)[:rows].astype(np.int32),
    }


def assert_close(tree, expected, tolerance=2e-6):
    for (path, got), wanted in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(expected), strict=True
    ):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(
            got, wanted, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path)
        )


def private_task(
    settings=None, sampling='shuffle', batch_size=16, rows=64, steps=10, groups=('model',), **fields
):
    """A private task of one convolution, and its config; `fields` replace fields of the task."""
    data = make_batch(rows, masked=0)
    raws = [{name: data[name][row] for name in ('image', 'target', 'length')} for row in range(rows)]

    def predict(variables, batch, context):
        return {'error': errors_of(variables.params['model'], batch, by_library, jnp)}

    def metric_sums(variables, batch, context):
        return {'sum': loss(variables.params['model'], batch, context)[0], 'count': jnp.sum(batch['mask'])}

    def loss_of(group):
        return lambda variables, batch, context: loss(variables.params[group], batch, context)

    task = Task(
        inputs={}, source=lambda split: raws, encode=lambda raw, rng=None: dict(raw),
        init=lambda key: Variables({group: jax.tree.map(jnp.asarray, make_params()) for group in groups}, {}),
        losses={group: loss_of(group) for group in groups}, predict=predict, metric_sums=metric_sums,
        metrics=lambda sums: {'error': Metric(sums['sum'] / sums['count'], None, 'lower')},
        decode=lambda outputs: {'error': outputs['error'].tolist()},
    )._replace(**fields)  # fmt: skip
    config = base(groups=groups)
    config.task = {'name': 'convolution'}
    config.train.update({
        'steps': steps, 'batch_size': batch_size, 'sampling': sampling, 'log_every': 2, 'eval_batch_size': 8,
    })  # fmt: skip
    for group in groups:
        config.optimizer[group].update({'name': 'sgd', 'learning_rate': 0.1, 'momentum': 0.0})
    config = read_config(config, {})
    return privacy.apply(task, settings or privacy.Settings(delta=1e-3), config), config


def run_plan(task, config, devices, steps=3):
    spec = make_run_spec(config, task, jax.devices()[:devices])
    state, logs = run_steps(spec, spec.compile(), steps)
    return jax.device_get(state.variables.params), logs[-1]
