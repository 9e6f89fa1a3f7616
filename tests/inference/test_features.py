"""Feature vectors of models: their values, windows, padding, and models without features."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from research.core.evaluate import make_evaluator
from research.core.task import Context, Input, Task, Variables
from research.errors import UserError
from research.inference.features import feature_model, features_of, last_of, only_text
from research.inference.model import Model

CONTEXT = Context(jax.random.key(0), jnp.int32(0), False)


def task_of(taps, **more):
    """A task whose score reports these activations: {path: function of the batch}."""

    def encode(raw, rng=None):
        if not raw['text']:
            raise UserError('the text is empty')
        return {'values': np.float32([len(raw['text']), 1, 2, 3]), 'length': np.int32(min(len(raw['text']), 4))}

    def score(variables, batch, context):
        assert context.watch == {} and not context.train and 'label' in batch
        return batch['values'].sum(1), {'model': {path: tap(batch) for path, tap in taps.items()}}

    fields = {
        'inputs': {'text': Input('text')}, 'source': lambda split: [], 'encode': encode, 'score': score, 'losses': {},
        'init': lambda key: Variables({}, {}), 'metrics': lambda sums: {}, 'decode': lambda outputs: outputs,
        'metric_sums': lambda variables, batch, context: {},
        'predict': lambda variables, batch, context: {'label': batch['values'].argmax(1)},
        'claim': lambda batch, outputs: {**batch, 'label': outputs['label']},
    }  # fmt: skip
    return Task(**{**fields, **more})


def model_of(task):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ('data',))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
    fields = dict.fromkeys(Model._fields)
    return Model(
        **{
            **fields, 'config': types.SimpleNamespace(seed=0), 'task': task, 'variables': Variables({}, {}), 'step': 1,
            'measure': make_evaluator(task, 0, 2, sharding), 'mesh': mesh, 'workdir': epath.Path('run'),
        }
    )  # fmt: skip


def pooled(batch):
    return batch['values'] * 2


def positions(batch):
    """[batch, positions, width]: position p of a row holds p + 10 * its first value."""
    place = jnp.arange(4.0)[None, :, None] + 10 * batch['values'][:, :1, None]
    return jnp.broadcast_to(place, (len(place), 4, 3))


def test_the_input_of_the_head_is_preferred():
    model = feature_model(model_of(task_of({'a/features': positions, 'b/pooled': pooled, 'stream': positions})))
    answers = model.predict([{'text': 'abc'}, {'text': 'a'}, {'text': 'ab'}])
    np.testing.assert_array_equal(
        [answer['features'] for answer in answers], [[6, 2, 4, 6], [2, 2, 4, 6], [4, 2, 4, 6]]
    )


@pytest.mark.parametrize('stacked', [False, True])
def test_a_stream_is_averaged_over_the_text_alone(stacked):
    taps = {'stream': (lambda batch: jnp.stack([0 * positions(batch), positions(batch)])) if stacked else positions}
    answers = feature_model(model_of(task_of(taps))).predict([{'text': 'ab'}, {'text': 'abcd'}])
    np.testing.assert_array_equal([answer['features'] for answer in answers], [[20.5] * 3, [41.5] * 3])


def test_a_map_of_features_is_averaged():
    def features(batch):
        return jnp.broadcast_to(batch['values'][:, None, :, None], (len(batch['values']), 5, 4, 2))

    (answer,) = feature_model(model_of(task_of({'features': features}))).predict([{'text': 'ab'}])
    np.testing.assert_array_equal(answer['features'], [2, 2])


def test_windows_of_a_text_are_averaged():
    split = lambda raw: [{'text': part} for part in raw['text'].split()]  # noqa: E731
    task = task_of({'pooled': pooled}, split=split, join=lambda raw, parts: parts[0])
    (answer,) = feature_model(model_of(task)).predict([{'text': 'a bbb'}])
    np.testing.assert_array_equal(answer['features'], [4, 2, 4, 6])


@pytest.mark.parametrize(
    'more',
    [
        {'score': None},
        {'claim': None},
        {'generate': object()},
        {'inputs': {'text': Input('text'), 'pair': Input('text')}},
        {'inputs': {'image': Input('image')}},
        {'score': lambda variables, batch, context: (batch['mask'], {'model': {'weights': batch['values']}})},
    ],
)
def test_other_models_have_no_features(more):
    assert feature_model(model_of(task_of({'pooled': pooled}, **more))) is None


def test_the_last_activation_of_a_kind_counts():
    seen = {'model': {'a/pooled': jnp.zeros(1), 'b/pooled': jnp.ones(1), 'c/stream': jnp.ones(2)}}
    value, name = last_of(seen)
    assert name == 'pooled' and value[0] == 1
    with pytest.raises(LookupError):
        last_of({'model': {'weights': jnp.zeros(1)}})


def test_a_task_that_reads_nothing_known_is_an_error():
    def encode(raw, rng=None):
        raise UserError('too short')

    with pytest.raises(UserError, match='too short'):
        feature_model(model_of(task_of({'pooled': pooled}, encode=encode)))
    assert only_text(task_of({})) == 'text'


def test_features_equal_those_of_one_row():
    task = task_of({'pooled': pooled})
    batch = {**{name: value[None] for name, value in task.encode({'text': 'abc'}).items()}, 'mask': jnp.ones(1)}
    np.testing.assert_array_equal(features_of(task, Variables({}, {}), batch, CONTEXT), [[6, 2, 4, 6]])
