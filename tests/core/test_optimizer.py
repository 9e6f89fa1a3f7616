"""Optimizers step by step against their formulas in NumPy float64, and schedules at chosen points."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.core.config import OptimizerSettings
from research.core.optimizer import make_optimizer, make_schedule
from research.errors import UserError, unpack
from research.ops.paths import flatten_paths, match, unflatten_paths

SHAPES = {
    'blocks/up/kernel': (2, 3, 4),
    'blocks/up/bias': (2, 4),
    'tokens/embedding': (5, 3),
    'norm/scale': (3,),
}
UPDATES = 6


def numbers(seed, scale=1.0):
    random = np.random.default_rng(seed)
    return {path: random.normal(0, scale, shape) for path, shape in SHAPES.items()}


def tree(flat):
    return unflatten_paths({path: jnp.asarray(leaf, jnp.float32) for path, leaf in flat.items()})


def run(settings, gradients, params):
    """Returns {path: array} after each update by the optimizer under test."""
    params = tree(params)
    optimizer = make_optimizer(settings, UPDATES, params)
    state, update, history = optimizer.init(params), jax.jit(optimizer.update), []
    for gradient in gradients:
        updates, state = update(tree(gradient), state, params)
        params = optax.apply_updates(params, updates)
        history.append(flatten_paths(params))
    return history


def reference(settings, gradients, params):
    """Returns the same by the formulas, in float64."""
    params = {path: leaf.copy() for path, leaf in params.items()}
    first = {path: np.zeros(leaf.shape) for path, leaf in params.items()}
    second = {path: np.zeros(leaf.shape) for path, leaf in params.items()}
    history = []
    for count, gradient in enumerate(gradients):
        rate = float(make_schedule(settings, UPDATES)(count))
        gradient = {path: leaf for path, leaf in gradient.items() if not match(path, settings.frozen)}
        for path in gradient:
            if match(path, settings.decay):
                penalty = settings.l1 * np.sign(params[path]) + settings.l2 * params[path]
                gradient[path] = gradient[path] + penalty
        norm = math.sqrt(sum((leaf**2).sum() for leaf in gradient.values()))
        shrink = settings.clip / norm if settings.clip and norm > settings.clip else 1.0
        for path, leaf in gradient.items():
            step = direction(settings, leaf * shrink, first, second, path, count + 1)
            if match(path, settings.decay):
                step = step + settings.weight_decay * params[path]
            params[path] = params[path] - rate * step
        history.append({path: leaf.copy() for path, leaf in params.items()})
    return history


def direction(settings, g, first, second, path, t):
    """Returns the step before decay: Kingma & Ba 2015, algorithm 1, or momentum of Sutskever et al. 2013."""
    if settings.name == 'sgd':
        first[path] = settings.momentum * first[path] + g
        return g + settings.momentum * first[path] if settings.nesterov else first[path]
    b1, b2 = settings.b1, settings.b2
    first[path] = b1 * first[path] + (1 - b1) * g
    second[path] = b2 * second[path] + (1 - b2) * g**2
    mean = first[path] / (1 - b1**t)
    if settings.nesterov:  # Dozat 2016, with a constant b1
        mean = b1 * first[path] / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    return mean / (np.sqrt(second[path] / (1 - b2**t)) + settings.eps)


CASES = {
    'adamw': {'weight_decay': 0.1},
    'adamw, all at once': {
        'weight_decay': 0.1, 'clip': 1.5, 'l1': 0.02, 'l2': 0.03, 'b1': 0.8, 'b2': 0.95, 'eps': 1e-3,
        'schedule': 'cosine', 'warmup_steps': 2, 'end_fraction': 0.1,
        'decay': ('blocks/*',), 'frozen': ('norm/*',),
    },
    'adam': {'name': 'adam'},
    'adam, l1, l2': {'name': 'adam', 'l1': 0.1, 'l2': 0.2},
    'adam, nesterov': {'name': 'adam', 'nesterov': True},
    'sgd': {'name': 'sgd', 'momentum': 0.0},
    'sgd, momentum': {'name': 'sgd', 'schedule': 'linear'},
    'sgd, nesterov, decay': {'name': 'sgd', 'nesterov': True, 'weight_decay': 0.2},
    'sgd, clip': {'name': 'sgd', 'clip': 0.5},
    'sgd, clip counts trained leaves only': {'name': 'sgd', 'clip': 0.5, 'frozen': ('*embedding', '*bias')},
    'sgd, clip after penalties': {'name': 'sgd', 'clip': 4.0, 'l1': 1.0, 'l2': 1.0},
    'decay of everything': {'weight_decay': 0.1, 'decay': ('*',)},
    'decay of nothing': {'weight_decay': 0.1, 'decay': ()},
}  # fmt: skip


@pytest.mark.parametrize('case', CASES)
def test_against_formulas(case):
    settings = OptimizerSettings(learning_rate=0.05, **CASES[case])
    params = numbers(0)
    gradients = [numbers(seed, 0.3) for seed in range(1, 5)]
    for ours, theirs in zip(
        run(settings, gradients, params), reference(settings, gradients, params), strict=True
    ):
        for path in SHAPES:
            np.testing.assert_allclose(ours[path], theirs[path], rtol=2e-5, atol=2e-6, err_msg=path)


def test_rates_fall_by_layer_towards_the_input():
    settings = OptimizerSettings(name='sgd', momentum=0.0, learning_rate=0.1, layer_decay=0.5, frozen=('*bias',))
    params, gradient = numbers(0), numbers(1)
    (new,) = run(settings, [gradient], params)
    expected = {  # two blocks: the last 0.5, the first 0.25, the embedding 0.125; what follows them 1
        'blocks/up/kernel': np.array([0.25, 0.5])[:, None, None], 'blocks/up/bias': 0.0,
        'tokens/embedding': 0.125, 'norm/scale': 1.0,
    }  # fmt: skip
    for path, factor in expected.items():
        np.testing.assert_allclose(new[path], params[path] - 0.1 * factor * gradient[path], rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="no parameter is below 'blocks'"):
        make_optimizer(settings, UPDATES, {'norm': {'scale': jnp.ones(3), 'bias': jnp.ones(3)}})


def test_first_blocks_stay_as_they_are():
    settings = OptimizerSettings(learning_rate=0.1, weight_decay=0.1, frozen_blocks=1)
    params, (new,) = numbers(0), run(settings, [numbers(1)], numbers(0))
    for path in ('blocks/up/kernel', 'blocks/up/bias'):
        np.testing.assert_array_equal(new[path][0], np.float32(params[path][0]))
        assert np.abs(new[path][1] - params[path][1]).min() > 0.05
    with pytest.raises(UserError, match='frozen_blocks=3: there are only 2 blocks'):
        make_optimizer(OptimizerSettings(frozen_blocks=3), UPDATES, tree(params))


def test_frozen_leaves_stay_and_have_no_state():
    settings = OptimizerSettings(
        weight_decay=0.5, l2=0.5, clip=1.0, decay=('*',), frozen=('blocks/*', 'norm/scale')
    )
    params = tree(numbers(0))
    optimizer = make_optimizer(settings, UPDATES, params)
    state = optimizer.init(params)
    gradient = tree(numbers(1))
    gradient['norm']['scale'] = jnp.full(3, jnp.nan)  # not even a NaN may reach the others
    updates, state = jax.jit(optimizer.update)(gradient, state, params)
    new = flatten_paths(optax.apply_updates(params, updates))
    for path, leaf in flatten_paths(params).items():
        moved = not np.array_equal(leaf, new[path])
        assert moved == (path == 'tokens/embedding'), path
        assert moved or not np.any(flatten_paths(updates)[path])
        assert np.isfinite(new[path]).all()
    held = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert held == [(5, 3), (5, 3)]  # the two moments of the embedding


def test_everything_frozen():
    settings = OptimizerSettings(weight_decay=0.5, clip=1.0, frozen=('*',))
    (new,) = run(settings, [numbers(1)], numbers(0))
    assert all(np.array_equal(new[path], np.float32(leaf)) for path, leaf in numbers(0).items())


def test_shapes_are_enough():
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree(numbers(0)))
    optimizer = make_optimizer(OptimizerSettings(frozen=('norm/*',)), UPDATES, shapes)
    state = jax.eval_shape(optimizer.init, shapes)
    assert len([leaf for leaf in jax.tree.leaves(state) if leaf.shape]) == 6


def test_any_tree_is_accepted():
    params = ({'kernel': jnp.ones((2, 2))}, [jnp.ones(2)])
    optimizer = make_optimizer(OptimizerSettings(frozen=('1/0',), weight_decay=0.1), UPDATES, params)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    assert np.all(updates[0]['kernel'] != 0) and np.all(updates[1][0] == 0)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'frozen': ('norms/*',)}, r"optimizer\.generator\.frozen: 'norms/\*'.*did you mean 'norm/\*'"),
        ({'frozen': ('tokens/embeding',)}, "did you mean 'tokens/embedding'"),
        ({'name': 'adam', 'weight_decay': 0.1}, 'weight_decay=0.1: adam has no decoupled'),
        ({'name': 'sgd', 'nesterov': True, 'momentum': 0.0}, 'needs momentum'),
        ({'b2': 1.0}, 'b2 must be'),
        ({'momentum': -0.1}, 'momentum must be'),
        ({'end_fraction': 2.0}, 'end_fraction must be'),
        ({'decay': (1,)}, 'decay: expected patterns'),
        ({'layer_decay': 1.5}, 'layer_decay must be at most 1'),
    ],
)
def test_mistakes(changes, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(OptimizerSettings(**changes), UPDATES, tree(numbers(0)), 'optimizer.generator')


def rates(updates, count, **changes):
    schedule = make_schedule(OptimizerSettings(learning_rate=2.0, **changes), updates)
    return [float(schedule(jnp.asarray(each, jnp.int32))) for each in range(count)]


def test_constant_and_warmup():
    assert rates(9, 3) == [2.0, 2.0, 2.0]
    np.testing.assert_allclose(rates(9, 6, warmup_steps=4), [0.5, 1.0, 1.5, 2.0, 2.0, 2.0], rtol=1e-6)


def test_cosine():
    found = rates(10, 13, schedule='cosine', warmup_steps=2, end_fraction=0.1)
    assert found[:3] == pytest.approx([1.0, 2.0, 2.0])
    assert found[6] == pytest.approx(2 * 0.55)  # half way between the warm-up's end and the last update's
    assert found[4] == pytest.approx(2 * (0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2))
    assert found[10:] == pytest.approx([0.2] * 3)
    assert found[9] > 0.2  # the last update is still a real one


def test_linear():
    found = rates(10, 12, schedule='linear', warmup_steps=2, end_fraction=0.5)
    assert found == pytest.approx([1.0, 2.0, *(2 - (count - 2) / 8 for count in range(2, 10)), 1.0, 1.0])
    assert rates(4, 5, schedule='linear') == pytest.approx([2.0, 1.5, 1.0, 0.5, 0.0])


def test_trapezoid_is_constant_and_then_falls_over_the_last_share():
    found = rates(10, 11, schedule='trapezoid', warmup_steps=2, cooldown=0.5, end_fraction=0.5)
    assert found == pytest.approx([1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0])
    assert rates(4, 5, schedule='trapezoid', cooldown=1.0) == rates(4, 5, schedule='linear')
    with pytest.raises(UserError, match='cooldown.*above zero'):
        unpack(OptimizerSettings, {'cooldown': 0.0}, 'optimizer.model')


def test_inverse_sqrt():
    found = rates(100, 100, schedule='inverse_sqrt', warmup_steps=9)
    assert found == pytest.approx([2 * min(t / 9, math.sqrt(9 / t)) for t in range(1, 101)], rel=1e-5)
    assert rates(100, 4, schedule='inverse_sqrt') == pytest.approx([2 / math.sqrt(t) for t in range(1, 5)])


def test_warmup_counts_steps_of_the_run():
    assert rates(9, 3, warmup_steps=6, update_every=3) == pytest.approx([1.0, 2.0, 2.0])
    assert rates(9, 3, warmup_steps=7, update_every=3) == pytest.approx([2 / 3, 4 / 3, 2.0])


@pytest.mark.parametrize('schedule', ['constant', 'cosine', 'linear', 'trapezoid', 'inverse_sqrt'])
def test_runs_shorter_than_their_warmup(schedule):
    found = rates(3, 3, schedule=schedule, warmup_steps=10)
    assert found == pytest.approx([0.2, 0.4, 0.6])
