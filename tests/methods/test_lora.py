"""Low-rank adapters on a task of two groups: split, unchanged at the start, train, merge."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.core.task import Aux, Context, Generate, Gradient, Task, Variables
from research.errors import UserError, unpack
from research.methods import lora
from research.ops.paths import flatten_paths, unflatten_paths

SHAPES = {
    'conv/kernel': (3, 3, 1, 4),
    'blocks/up/kernel': (2, 4, 6),
    'blocks/up/bias': (2, 6),
    'blocks/down/kernel': (2, 6, 4),
    'tokens/embedding': (7, 4),
    'head/kernel': (4, 5),
    'head/bias': (5,),
    'norm/kernel': (4,),
}
LOADED = Variables({'model': 'weights', 'critic': 'others'}, {'model': 'stats'})
ADAPTED = ['blocks/down/kernel', 'blocks/up/kernel', 'conv/kernel', 'head/kernel']


def forward(params, batch):
    images = batch['image']
    hidden = jax.lax.conv_general_dilated(
        images, params['conv']['kernel'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    ).mean((1, 2))
    hidden = hidden + params['tokens']['embedding'][batch['token']]
    for layer in range(2):
        up, down = params['blocks']['up'], params['blocks']['down']
        hidden += jnp.tanh(hidden @ up['kernel'][layer] + up['bias'][layer]) @ down['kernel'][layer]
    return hidden * params['norm']['kernel'] @ params['head']['kernel'] + params['head']['bias']


def make_task():
    def init(key):
        sizes = [math.prod(shape) for shape in SHAPES.values()]
        parts = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
        flat = {path: part.reshape(SHAPES[path]) for path, part in zip(SHAPES, parts, strict=True)}
        other = {'kernel': jax.random.normal(key, (5, 1))}
        stats = {'model': {'batch_stats': {'mean': jnp.zeros(5)}}}
        return Variables({'model': unflatten_paths(flat), 'critic': other}, stats)

    def model_loss(variables, batch, context):
        outputs = forward(variables.params['model'], batch)
        errors = (
            jnp.square(outputs - batch['target']).sum(-1)
            - (outputs @ variables.params['critic']['kernel'])[:, 0]
        )
        mean = 0.9 * variables.extra['model']['batch_stats']['mean'] + 0.1 * outputs.mean(0)
        weight = batch['mask'].sum()
        return (errors * batch['mask']).sum(), Aux(
            weight, {'model': {'batch_stats': {'mean': mean}}}, {}, outputs
        )

    def critic_loss(variables, batch, context):
        scores = (forward(variables.params['model'], batch) @ variables.params['critic']['kernel'])[:, 0]
        return (scores**2 * batch['mask']).sum(), Aux(batch['mask'].sum())

    def predict(variables, batch, context):
        return {'output': forward(variables.params['model'], batch)}

    def metric_sums(variables, batch, context):
        return {'sum': (forward(variables.params['model'], batch).sum(-1) * batch['mask']).sum()}

    def start(variables, prompts, capacity):
        return {'hidden': variables.params['model']['tokens']['embedding'][prompts['tokens']].sum(1)}

    def step(variables, cache, tokens):
        hidden = cache['hidden'] + variables.params['model']['tokens']['embedding'][tokens]
        return {'hidden': hidden}, hidden @ variables.params['model']['head']['kernel']

    return Task(
        inputs={}, source=lambda split: [], encode=lambda raw, rng=None: {}, init=init,
        losses={'model': model_loss, 'critic': critic_loss}, predict=predict, metric_sums=metric_sums,
        metrics=lambda sums: {}, decode=lambda outputs: outputs, load=lambda: LOADED,
        gradients={'model': Gradient(None, None)}, generate=Generate(start, step, (), 8),
    )  # fmt: skip


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    return {
        'image': random.normal(size=(6, 5, 5, 1)).astype(np.float32),
        'token': np.array([0, 1, 2, 3, 4, 6]),
        'target': random.normal(size=(6, 5)).astype(np.float32),
        'mask': np.array([1, 1, 1, 1, 1, 0], np.float32),
    }


@pytest.fixture(scope='module')
def plain():
    """The task without adapters, and its variables at the start."""
    task = make_task()
    return task, task.init(jax.random.key(0))


@pytest.fixture(scope='module')
def adapted():
    """The task with adapters, and its variables at the start."""
    task = lora.apply(make_task(), SETTINGS)
    return task, task.init(jax.random.key(0))


CONTEXT = Context(jax.random.key(1), jnp.zeros((), jnp.int32), True)
SETTINGS = lora.Settings(rank=3, alpha=6.0)


def disturb(variables, seed=5):
    """Returns variables whose adapters are no longer the start's."""
    random = np.random.default_rng(seed)

    def move(leaf):
        return np.asarray(leaf) + random.normal(0, 0.3, leaf.shape).astype(np.float32)

    return variables._replace(
        params={**variables.params, 'model': jax.tree.map(move, variables.params['model'])}
    )


def test_split(plain, adapted):
    (before, original), (task, variables) = plain, adapted
    assert set(variables.params) == {'model', 'model_base', 'critic'}
    jax.tree.map(np.testing.assert_array_equal, variables.params['model_base'], original.params['model'])
    jax.tree.map(np.testing.assert_array_equal, variables.extra, original.extra)
    shapes = {path: leaf.shape for path, leaf in flatten_paths(variables.params['model']).items()}
    assert shapes == {
        'blocks/down/kernel/a': (2, 6, 3), 'blocks/down/kernel/b': (2, 3, 4),
        'blocks/up/kernel/a': (2, 4, 3), 'blocks/up/kernel/b': (2, 3, 6),
        'conv/kernel/a': (9, 3), 'conv/kernel/b': (3, 4),
        'head/kernel/a': (4, 3), 'head/kernel/b': (3, 5),
    }  # fmt: skip
    assert list(task.losses) == ['model', 'critic']
    assert task.gradients == before.gradients


def test_weights_from_elsewhere_go_to_the_base():
    task = lora.apply(make_task(), SETTINGS)
    assert task.load() == Variables({'model_base': 'weights', 'critic': 'others'}, {'model': 'stats'})
    adapted = Variables({'model': 'adapters', 'model_base': 'weights'}, {})
    assert lora.apply(make_task()._replace(load=lambda: adapted), SETTINGS).load() == adapted
    assert lora.apply(make_task()._replace(load=None), SETTINGS).load is None


def test_the_function_is_unchanged_at_the_start(plain, adapted, batch):
    (before, original), (task, variables) = plain, adapted
    for ours, theirs in zip((task.predict, task.metric_sums), (before.predict, before.metric_sums), strict=True):
        for name, value in theirs(original, batch, CONTEXT).items():
            np.testing.assert_array_equal(ours(variables, batch, CONTEXT)[name], value)
    for group in before.losses:
        ours, theirs = (
            task.losses[group](variables, batch, CONTEXT),
            before.losses[group](original, batch, CONTEXT),
        )
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_initial_adapters():
    targets = {f'layer_{number}/kernel': (400, 50) for number in range(2)}
    flat = flatten_paths(lora.init_adapters(targets, 40, jax.random.key(3)))
    again = flatten_paths(lora.init_adapters(targets, 40, jax.random.key(3)))
    assert not np.any(flat['layer_0/kernel/b']) and flat['layer_0/kernel/a'].dtype == jnp.float32
    np.testing.assert_allclose(np.std(flat['layer_0/kernel/a']), 1 / 20, rtol=0.03)
    assert not np.array_equal(flat['layer_0/kernel/a'], flat['layer_1/kernel/a'])
    for path, leaf in flat.items():
        np.testing.assert_array_equal(leaf, again[path])


def test_product_against_numpy(adapted):
    variables = disturb(adapted[1])
    merged = flatten_paths(lora.merge(variables, SETTINGS).params['model'])
    adapters = {p: np.asarray(x, np.float64) for p, x in flatten_paths(variables.params['model']).items()}
    for path, base in flatten_paths(variables.params['model_base']).items():
        expected = np.asarray(base, np.float64)
        if path in ADAPTED:
            a, b = adapters[f'{path}/a'], adapters[f'{path}/b']
            expected = expected + 6.0 / 3 * np.einsum('...ir,...ro->...io', a, b).reshape(base.shape)
        np.testing.assert_allclose(merged[path], expected, rtol=1e-5, atol=1e-6, err_msg=path)


def test_merged_variables_work_without_adapters(plain, adapted, batch):
    (before, original), (task, variables) = plain, adapted
    variables = disturb(variables)
    merged = lora.merge(variables, SETTINGS)
    assert jax.tree.structure(merged) == jax.tree.structure(original)
    assert jax.tree.map(jnp.shape, merged) == jax.tree.map(jnp.shape, original)
    ours = jax.jit(task.predict)(variables, batch, CONTEXT)['output']
    theirs = jax.jit(before.predict)(merged, batch, CONTEXT)['output']
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert np.abs(theirs - before.predict(original, batch, CONTEXT)['output']).max() > 0.1
    prompts = {'tokens': np.array([[1, 2], [3, 4]]), 'length': np.array([2, 2])}
    logits = []
    for each, held in ((task, variables), (before, merged)):
        cache = each.generate.start(held, prompts, capacity=4)
        logits.append(each.generate.step(held, cache, np.array([5, 6]))[1])
    np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-5)
    assert task.generate.end == () and task.generate.limit == 8


def test_training_moves_adapters_and_leaves_the_base(adapted, batch):
    task, start = adapted
    variables = start
    optimizer = optax.adamw(1e-2, weight_decay=0.1)
    states = {group: optimizer.init(variables.params[group]) for group in task.losses}

    @jax.jit
    def update(variables, states):
        losses = {}
        for group, loss in task.losses.items():

            def mean(params, loss=loss, group=group, variables=variables):
                total, aux = loss(
                    variables._replace(params={**variables.params, group: params}), batch, CONTEXT
                )
                return total / aux.weight, aux.extra

            (losses[group], extra), gradient = jax.value_and_grad(mean, has_aux=True)(variables.params[group])
            updates, state = optimizer.update(gradient, states[group], variables.params[group])
            states = {**states, group: state}
            params = {**variables.params, group: optax.apply_updates(variables.params[group], updates)}
            variables = Variables(params, {**variables.extra, **extra})
        return variables, states, losses

    history = []
    for _ in range(20):
        variables, states, losses = update(variables, states)
        history.append(float(losses['model']))
    assert history[-1] < history[0]
    jax.tree.map(np.testing.assert_array_equal, variables.params['model_base'], start.params['model_base'])
    for path, leaf in flatten_paths(variables.params['model']).items():
        assert not np.array_equal(leaf, flatten_paths(start.params['model'])[path]), path
    assert np.any(variables.extra['model']['batch_stats']['mean'])
    merged = lora.merge(variables, SETTINGS)
    np.testing.assert_allclose(
        task.predict(variables, batch, CONTEXT)['output'],
        make_task().predict(merged, batch, CONTEXT)['output'],
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


def test_other_group_and_patterns():
    settings = lora.Settings(group='critic', rank=1, target=('kernel',))
    variables = jax.eval_shape(lora.apply(make_task(), settings).init, jax.random.key(0))
    assert set(variables.params) == {'model', 'critic', 'critic_base'}
    settings = lora.Settings(target=('*embedding', 'head/*'))
    adapters = jax.eval_shape(lora.apply(make_task(), settings).init, jax.random.key(0)).params['model']
    assert set(flatten_paths(adapters)) == {
        'tokens/embedding/a', 'tokens/embedding/b', 'head/kernel/a', 'head/kernel/b'
    }  # fmt: skip


def test_two_groups_adapted_one_after_the_other(plain):
    first, second = lora.Settings(), lora.Settings(group='critic', rank=1)
    task = lora.apply(lora.apply(make_task(), first), second)
    variables = jax.eval_shape(task.init, jax.random.key(0))
    assert set(variables.params) == {'model', 'model_base', 'critic', 'critic_base'}
    merged = jax.eval_shape(lambda held: lora.merge(lora.merge(held, first), second), variables)
    assert jax.tree.structure(merged) == jax.tree.structure(plain[1])
    assert jax.tree.map(jnp.shape, merged) == jax.tree.map(jnp.shape, plain[1])


def test_nothing_is_compiled():
    compiled = []

    def record(event, seconds, **details):
        if event == '/jax/core/compile/backend_compile_duration':
            compiled.append(details)

    jax.monitoring.register_event_duration_secs_listener(record)
    task = make_task()
    jax.jit(lambda x: x * 3 + 1)(1.0)
    assert compiled  # the listener hears compilations
    compiled.clear()
    lora.apply(task, lora.Settings(rank=5))
    assert not compiled


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'group': 'modell'}, "trains no group 'modell'; did you mean 'model'.*model, critic"),
        ({'group': ''}, "trains no group ''; choose one of: critic, model"),
        (
            {'target': ('*kernal',)},
            r"config\.lora\.target: '\*kernal' matches no parameter; did you mean '\*kernel'",
        ),
        ({'target': ('*kernel', 'nothing')}, "'nothing' matches no parameter"),
        ({'target': ('*bias',)}, 'matches only vectors.*blocks/up/kernel'),
    ],
)
def test_what_cannot_be_adapted(settings, message):
    with pytest.raises(UserError, match=message):
        lora.apply(make_task(), lora.Settings(**settings))


def test_twice_on_one_group():
    with pytest.raises(UserError, match='model_base'):
        lora.apply(lora.apply(make_task(), SETTINGS), lora.Settings(target=('*',)))


def test_bad_settings():
    for settings, message in (({'rank': 0}, 'rank'), ({'alpha': 0.0}, 'alpha'), ({'target': ()}, 'target')):
        with pytest.raises(UserError, match=f'config.lora.{message}'):
            unpack(lora.Settings, settings, 'lora')
    with pytest.raises(UserError, match='no adapters to merge'):
        lora.merge(Variables({'model': {}}, {}), SETTINGS)
