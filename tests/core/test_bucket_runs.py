"""Tasks whose rows differ in length, whose requests are split into parts, or both: trained, evaluated and answered."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import assert_equal
from etils import epath

from research.core import train
from research.core.config import base, read_config
from research.core.evaluate import evaluate, make_evaluator
from research.core.predictions import predictions
from research.core.runspec import BucketSteps, make_run_spec
from research.core.sharding import batch_sharding
from research.core.task import Aux, Metric, Task, Variables
from research.data.buckets import by_length
from research.errors import UserError

ROWS = [{'x': [float(row % 5 + 1)] * (2 + row % 7)} for row in range(23)]
SIZES = (4, 8)


def lengths(split):
    return [len(row['x']) for row in ROWS]


def encode(raw, rng=None):
    values = np.float32(raw['x'])
    return {'x': values, 'length': np.int32(len(values))}


def sum_task(**changes) -> Task:
    """Learns a factor of the sum of a row; rows have 2 to 8 values, zero-padded to their bucket."""

    def value(variables, batch):
        return variables.params['model']['factor'] * jnp.sum(batch['x'], axis=1)

    def errors(variables, batch):
        return (value(variables, batch) - 3 * jnp.sum(batch['x'], axis=1)) ** 2 * batch['mask']

    task = Task(
        inputs={},
        source=lambda split: ROWS,
        encode=encode,
        init=lambda key: Variables({'model': {'factor': jnp.ones(())}}, {}),
        losses={'model': lambda v, b, c: (jnp.sum(errors(v, b)), Aux(jnp.sum(b['mask'])))},
        predict=lambda v, b, c: {'y': value(v, b)},
        metric_sums=lambda v, b, c: {'error': jnp.sum(errors(v, b)), 'count': jnp.sum(b['mask'])},
        metrics=lambda sums: {
            'error': Metric(sums['error'] / sums['count'], None, 'lower'), 'rows': Metric(sums['count']),
        },
        decode=lambda outputs: {'y': float(outputs['y'])},
        buckets=by_length(lengths, SIZES, {'x': 0.0}),
    )  # fmt: skip
    return task._replace(**changes)


def config_of(**settings):
    config = base()
    config.task = {'name': 'sums'}
    config.train.update({'epochs': 3.0, 'batch_size': 8, 'log_every': 1, **settings})
    config.optimizer.model.update({'name': 'sgd', 'learning_rate': 1e-4, 'momentum': 0.0})
    return read_config(config, {})


def run(config, folder, task):
    return train.run(config, epath.Path(folder), lambda config, folder: None, lambda config, folder: task)


def evaluator_of(task, size=8):
    spec = make_run_spec(config_of(), task, jax.devices()[:1])
    return make_evaluator(task, 0, size, batch_sharding(spec.mesh)), spec


def test_the_step_is_compiled_once_for_each_bucket_and_reads_every_row_once_an_epoch():
    _, spec = evaluator_of(sum_task())
    compiled = spec.compile()
    assert isinstance(compiled, BucketSteps) and len(compiled.compiled) == len(SIZES)
    assert spec.steps == 9  # three epochs of ceil(23 / 8)
    for epoch in range(3):
        rows = [row for step in range(3 * epoch, 3 * epoch + 3) for row in spec.rows(step)]
        assert sorted(row.index for row in rows if row.real) == list(range(len(ROWS)))


def test_a_run_trains_stops_and_resumes_to_the_same_bits(tmp_path):
    whole = run(config_of(checkpoint_every=4), tmp_path / 'whole', sum_task())
    assert whole.metrics['test']['metrics']['rows']['value'] == len(ROWS)
    run(config_of(checkpoint_every=4, steps=4, epochs=None), tmp_path / 'parted', sum_task())
    run(config_of(checkpoint_every=4), tmp_path / 'parted', sum_task())
    from research.checkpoint.store import read_weights

    one, other = (read_weights(epath.Path(tmp_path / name)) for name in ('whole', 'parted'))
    assert int(one['step']) == 9
    assert_equal(one['variables'], other['variables'])


def test_metrics_do_not_depend_on_the_batch_size_or_on_padding():
    values = []
    for size in (2, 8, 16):
        task = sum_task()
        evaluator, spec = evaluator_of(task, size)
        with jax.set_mesh(spec.mesh):
            metrics, count, *_ = evaluate(task, evaluator, task.init(None), 'test')
        values.append(metrics['error'].value)
        assert count == metrics['rows'].value == len(ROWS)
    expected = np.mean([(2 * sum(row['x'])) ** 2 for row in ROWS])
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_answers_come_in_the_order_of_the_requests():
    task = sum_task()
    evaluator, spec = evaluator_of(task)
    with jax.set_mesh(spec.mesh):
        answers = [task.decode(outputs)['y'] for _, outputs in predictions(task, evaluator, task.init(None), ROWS * 5)]
    np.testing.assert_allclose(answers, [sum(row['x']) for row in ROWS * 5], rtol=1e-6)


def halves(raw):
    middle = len(raw['x']) // 2
    return [{'x': raw['x'][:middle]}, {'x': raw['x'][middle:]}]


@pytest.mark.parametrize('bucketed', [True, False])
def test_parts_of_a_request_are_joined_in_evaluation_and_prediction(bucketed):
    def whole(raw, outputs):
        assert len(outputs) == 2
        return {'y': sum(output['y'] for output in outputs)}

    def check(pairs):
        pairs = list(pairs)
        assert [raw for raw, _ in pairs] == ROWS
        return {'gap': Metric(max(abs(answer['y'] - sum(raw['x'])) for raw, answer in pairs))}

    changes = {} if bucketed else {'buckets': None, 'encode': lambda raw, rng=None: padded(raw)}
    task = sum_task(split=halves, join=whole, finalize=check, **changes)
    evaluator, spec = evaluator_of(task)
    with jax.set_mesh(spec.mesh):
        metrics, count, *_ = evaluate(task, evaluator, task.init(None), 'test')
    assert count == len(ROWS) and metrics['rows'].value == 2 * len(ROWS)
    assert metrics['gap'].value < 1e-4


def padded(raw):
    return {'x': np.pad(np.float32(raw['x']), (0, 8 - len(raw['x'])))}


def test_poisson_batches_of_rows_that_differ_in_shape_are_refused():
    with pytest.raises(UserError, match='shuffle'):
        make_run_spec(config_of(sampling='poisson'), sum_task(), jax.devices()[:1])


def test_rows_without_a_batch_of_their_shape_are_filled_up_where_buckets_do_not_rise():
    task = sum_task()
    task = task._replace(buckets=task.buckets._replace(rising=False))
    _, spec = evaluator_of(task)
    real = [sum(row.real for row in spec.rows(step)) for step in range(spec.steps // 3)]
    assert sum(real) == len(ROWS) and max(real) == 8 and json.dumps(real)
