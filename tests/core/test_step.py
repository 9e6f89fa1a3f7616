"""The step against hand-written float64 updates, for groups, accumulation, n-critic, EMA and masks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.core.config import OptimizerSettings
from research.core.optimizer import make_optimizer
from research.core.state import init_state
from research.core.step import make_step, split
from research.core.task import Aux, Gradient, Task, Variables

RATE = 0.1


def linear_task(gradients=None):
    """Two groups: 'first' fits y from x; 'second' fits the first's error, with a running mean as extra."""

    def init(key):
        first = {'w': jnp.array([0.5, -0.3, 0.2])}
        return Variables(
            {'first': first, 'second': {'v': jnp.array(0.1)}}, {'second': {'stats': {'mean': jnp.array(0.0)}}}
        )

    def first(variables, batch, context):
        errors = batch['x'] @ variables.params['first']['w'] - batch['y']
        return jnp.sum(batch['mask'] * errors**2), Aux(
            jnp.sum(batch['mask']), logs={'absolute': jnp.sum(jnp.abs(errors))}
        )

    def second(variables, batch, context):
        errors = batch['x'] @ variables.params['first']['w'] - batch['y'] - variables.params['second']['v']
        mean = 0.9 * variables.extra['second']['stats']['mean'] + 0.1 * errors.mean()
        return jnp.sum(batch['mask'] * errors**2), Aux(jnp.sum(batch['mask']), {'second': {'stats': {'mean': mean}}})

    return Task(
        inputs={},
        source=None,
        encode=None,
        init=init,
        losses={'first': first, 'second': second},
        predict=None,
        metric_sums=None,
        metrics=None,
        decode=None,
        gradients=gradients or {},
    )


def make_batch(rows=8, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.ones(rows, np.float32)
    return {
        'x': rng.normal(size=(rows, 3)).astype(np.float32),
        'y': rng.normal(size=rows).astype(np.float32),
        'mask': mask,
    }


def prepare(task, every=1, parts=1, ema=0.0):
    settings = OptimizerSettings(name='sgd', learning_rate=RATE, momentum=0.0)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    optimizers = {group: make_optimizer(settings, 10, shapes.params[group], group) for group in task.losses}
    step = jax.jit(make_step(task, optimizers, {'first': 1, 'second': every}, parts, ema, seed=3))
    return init_state(task, optimizers, ema, seed=3), step


def reference(batch, w, v, mean, update_second=True):
    """One step in float64 NumPy: the second group sees the first already updated."""
    x, y, mask = (np.float64(batch[name]) for name in ('x', 'y', 'mask'))
    w = w - RATE * 2 * (mask * (x @ w - y)) @ x / mask.sum()
    if update_second:
        errors = x @ w - y - v
        v, mean = v + RATE * 2 * (mask * errors).sum() / mask.sum(), 0.9 * mean + 0.1 * errors.mean()
    return w, v, mean


@pytest.mark.parametrize('masked', [0, 3])
def test_groups_in_order_equal_float64(masked):
    state, step = prepare(linear_task())
    w, v, mean = np.array([0.5, -0.3, 0.2]), 0.1, 0.0
    for number in range(3):
        batch = make_batch(seed=number)
        batch['mask'][:masked] = 0
        w, v, mean = reference(batch, w, v, mean)
        state, logs = step(state, batch)
        assert int(state.step) == number + 1
        assert float(logs['first/loss'][1]) == 8 - masked
    np.testing.assert_allclose(state.variables.params['first']['w'], w, rtol=1e-5)
    np.testing.assert_allclose(state.variables.params['second']['v'], v, rtol=1e-5)
    np.testing.assert_allclose(state.variables.extra['second']['stats']['mean'], mean, rtol=1e-4)


def test_update_every_skips_with_weight_zero():
    state, step = prepare(linear_task(), every=3)
    w, v, mean = np.array([0.5, -0.3, 0.2]), 0.1, 0.0
    weights = []
    for number in range(6):
        batch = make_batch(seed=number)
        w, v, mean = reference(batch, w, v, mean, update_second=number % 3 == 2)
        state, logs = step(state, batch)
        weights.append(float(logs['second/loss'][1]))
    assert weights == [0, 0, 8, 0, 0, 8]
    np.testing.assert_allclose(state.variables.params['second']['v'], v, rtol=1e-5)
    np.testing.assert_allclose(state.variables.extra['second']['stats']['mean'], mean, rtol=1e-4)


@pytest.mark.parametrize('parts', [2, 4])
def test_accumulation_equals_the_large_batch(parts):
    whole, step_whole = prepare(linear_task())
    parted, step_parted = prepare(linear_task(), parts=parts)
    for number in range(3):
        batch = make_batch(seed=number)
        batch['mask'][:3] = 0
        whole, logs_whole = step_whole(whole, batch)
        parted, logs_parted = step_parted(parted, batch)
    for left, right in zip(jax.tree.leaves(whole), jax.tree.leaves(parted), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(logs_whole['first/absolute'], logs_parted['first/absolute'], rtol=1e-5)


def test_split_interleaves_rows():
    parts = split({'x': np.arange(6)}, 3)['x']
    np.testing.assert_array_equal(parts, [[0, 3], [1, 4], [2, 5]])


def test_average_follows_the_published_warm_up():
    state, step = prepare(linear_task(), ema=0.4)
    average = np.array([0.5, -0.3, 0.2])
    for number in range(8):
        state, _ = step(state, make_batch(seed=number))
        rate = min(0.4, (1 + number) / (10 + number))
        average = average * rate + np.float64(state.variables.params['first']['w']) * (1 - rate)
    np.testing.assert_allclose(state.ema.params['first']['w'], average, rtol=1e-5)
    assert rate == 0.4 and state.ema.extra['second']['stats']['mean'].dtype == jnp.float32


def test_another_gradient_is_used_once_a_step():
    def micro(loss, params, batch, context):
        total, aux = loss(params, batch, context)
        return jax.tree.map(jnp.ones_like, params), total, aux

    def finish(gradient, weight, context):
        return jax.tree.map(lambda leaf: leaf + weight, gradient)

    state, step = prepare(linear_task({'first': Gradient(micro, finish)}), parts=2)
    new, _ = step(state, make_batch())
    expected = np.array([0.5, -0.3, 0.2]) - RATE * (2 + 8)  # two microbatches of ones, and a weight of eight
    np.testing.assert_allclose(new.variables.params['first']['w'], expected, rtol=1e-6)


def test_keys_differ_by_step_group_and_microbatch():
    seen = []

    def init(key):
        return Variables({'a': {'w': jnp.zeros(())}, 'b': {'w': jnp.zeros(())}}, {})

    def loss(variables, batch, context):
        noise = jax.random.uniform(context.fold('noise'))
        jax.debug.callback(lambda value: seen.append(float(value)), noise)
        return jnp.sum(batch['x']) * 0 * noise, Aux(jnp.ones(()))

    task = linear_task()._replace(init=init, losses={'a': loss, 'b': loss})
    optimizer = optax.sgd(0.1)
    step = jax.jit(make_step(task, {'a': optimizer, 'b': optimizer}, {'a': 1, 'b': 1}, 2, 0.0, seed=1))
    state = init_state(task, {'a': optimizer, 'b': optimizer}, 0.0, 1)
    for _ in range(2):
        state, _ = step(state, {'x': np.ones(4, np.float32)})
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == 8
