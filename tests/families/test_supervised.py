"""The supervised family: a new task in a few lines learns, is measured, scored and answered."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.core.state import State
from research.core.step import make_step
from research.core.task import Context, Host, Input, Metric
from research.families.supervised import supervised
from research.models.model import model_of
from research.nn.mlp import MLP
from research.ops import heads

MEAN, DEVIATION = 3.0, 2.0


# A task: the rating of a row from four features.


def rows(split):
    features = np.random.default_rng({'train': 0, 'validation': 1, 'test': 2}[split]).normal(size=(64, 4))
    return [{'features': row, 'label': MEAN + DEVIATION * np.tanh(row[0] - row[1])} for row in features]


def encode(raw, rng=None):
    example = {'features': np.float32(raw['features'])}
    return example | ({'label': np.float32(raw['label'])} if 'label' in raw else {})


def half_error(metrics):
    return {'half_rmse': Metric(metrics['mse'].value ** 0.5 / 2, better='lower')}


def rating(**more):
    host = Host({'features': Input('number', (4,))}, encode, heads.regression(MEAN, DEVIATION).decode)
    model = model_of(MLP(1, (16,)), lambda batch: (batch['features'],), {'features': np.zeros((1, 4), np.float32)})
    return supervised(host, rows, model, heads.regression(MEAN, DEVIATION), extra_metrics=half_error, **more)


# What a task can do.


def batch_of(task, split='train', **changes):
    examples = [task.encode(row) for row in task.source(split)]
    batch = {name: np.stack([example[name] for example in examples]) for name in examples[0]}
    return {**batch, 'index': np.arange(64, dtype=np.int32), 'mask': np.ones(64, np.float32), **changes}


def context(train=False, watch=None):
    return Context(jax.random.key(0), jnp.int32(0), train, watch)


def measured(task, variables, batch):
    return task.metrics(jax.device_get(jax.jit(task.metric_sums)(variables, batch, context())))


@pytest.fixture(scope='module')
def trained():
    task, optimizers = rating(), {'model': optax.adam(1e-2)}
    variables = task.init(jax.random.key(0))
    state = State(jnp.int32(0), variables, {'model': optimizers['model'].init(variables.params['model'])}, None)
    step = jax.jit(make_step(task, optimizers, {'model': 1}, 1, 0.0, 0))
    for _ in range(60):
        state, logs = step(state, batch_of(task))
    return task, variables, state.variables, logs


def test_a_task_of_a_few_lines_learns(trained):
    task, before, after, logs = trained
    first, last = (measured(task, variables, batch_of(task, 'test')) for variables in (before, after))
    assert last['mse'].value < 0.3 * first['mse'].value and last['half_rmse'].value == last['mse'].value ** 0.5 / 2
    assert set(logs) == {'loss', 'error', 'gradient_norm'} and logs['loss'][1] == 64
    outputs = task.predict(after, batch_of(task), context(train=True))
    answer = task.decode({name: np.asarray(value)[0] for name, value in outputs.items()})
    assert answer['value'] == pytest.approx(task.source('train')[0]['label'], abs=1)


def test_a_claim_is_scored_like_a_label_and_watched(trained):
    task, _, variables, _ = trained
    batch = batch_of(task)
    claimed = task.claim(batch, task.predict(variables, batch, context()))
    score, seen = task.score(variables, claimed, context())
    np.testing.assert_allclose(score, 0, atol=1e-6)  # the density is highest at the model's own answer
    labels, _ = task.score(variables, batch, context(train=True))
    assert seen == {} and (np.asarray(labels) <= 0).all() and labels.min() < -1e-4
    _, seen = task.score(variables, batch, context(watch={'model': {}}))
    assert seen['model'] and all(value.shape[0] == 64 for value in seen['model'].values())


def test_padding_counts_nowhere_and_outputs_follow_the_convention(trained):
    task, _, variables, _ = trained
    mask = np.float32([1.0] * 40 + [0.0] * 24)
    short = {name: value[:40] for name, value in batch_of(task).items()}
    padded = batch_of(task, mask=mask)
    (one, aux), (two, other) = (task.losses['model'](variables, batch, context(True)) for batch in (short, padded))
    assert one == pytest.approx(float(two), rel=1e-5) and aux.weight == other.weight == 40
    assert other.outputs['logits'].shape[:-1] == other.outputs['mask'].shape == (64,)
    first, second = (measured(task, variables, batch) for batch in (short, padded))
    assert first['mse'].value == pytest.approx(second['mse'].value, rel=1e-5)


def test_a_transform_is_read_by_loss_prediction_and_score_and_knows_training(trained):
    _, _, variables, _ = trained

    def transform(batch, context):
        return {**batch, 'features': batch['features'] * (0.0 if context.train else 2.0)}

    plain, changed = rating(), rating(transform=transform)
    batch = batch_of(plain)
    doubled, blank = ({**batch, 'features': factor * batch['features']} for factor in (2, 0))
    for field in ('predict', 'metric_sums', 'score'):
        expected = getattr(plain, field)(variables, doubled, context())
        actual = getattr(changed, field)(variables, batch, context(train=True))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), expected, actual)
    expected, _ = plain.losses['model'](variables, blank, context(True))
    actual, _ = changed.losses['model'](variables, batch, context(True))
    assert float(actual) == pytest.approx(float(expected))


def test_rows_are_encoded_once_where_nothing_is_augmented():
    plain, calls = rating(), []

    def counted(raw, rng=None):
        calls.append(raw)
        return encode(raw)

    host = Host(plain.inputs, counted, plain.decode)
    model = model_of(MLP(1, ()), lambda batch: (batch['features'],), {'features': np.zeros((1, 4), np.float32)})
    task = supervised(host, rows, model, heads.regression(MEAN, DEVIATION), encode_once=True)
    assert len(task.source('train')) == len(calls) == 64
    batch_of(task)
    assert len(calls) == 64 and plain.source is rows
