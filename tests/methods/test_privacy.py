"""DP-SGD: gradients against float64 on every mesh, and noise against theory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from privacy_task import (
    CONTEXT,
    assert_close,
    convolve,
    errors_of,
    loss,
    make_batch,
    make_params,
    private_task,
    run_plan,
)

from research.core.runspec import make_run_spec
from research.core.step import accumulate, bind
from research.core.task import Aux, Gradient
from research.methods import lora, privacy

CLIP = 8.0


@functools.cache
def reference(masked):
    """The clipped sum in float64 NumPy: row by row, by hand-written backpropagation."""
    params = jax.tree.map(np.float64, make_params())
    batch = {name: np.float64(value) for name, value in make_batch(masked=masked).items()}
    total, norms = jax.tree.map(np.zeros_like, params), []
    for row in np.flatnonzero(batch['mask']):
        one = {name: value[row : row + 1] for name, value in batch.items()}
        images = one['image']
        hidden = np.tanh(convolve(params['conv']['kernel'], images, np))
        pooled = hidden.mean((1, 2))
        error = 2 * errors_of(params, one, convolve, np)
        height, width = hidden.shape[1:3]
        back = (error @ params['head']['kernel'].T)[:, None, None] * (1 - hidden**2) / (height * width)
        patches = [
            [images[:, y : y + height, x : x + width] for x in range(3)] for y in range(3)
        ]  # of what each of the kernel's positions reads
        kernel = np.einsum('yxbhwi,bhwo->yxio', np.array(patches), back)
        gradient = {'conv': {'kernel': kernel}, 'head': {'kernel': pooled.T @ error, 'bias': error[0]}}
        norm = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
        norms.append(norm)
        total = jax.tree.map(lambda a, b, norm=norm: a + b * min(1, CLIP / norm), total, gradient)
    return total, np.array(norms)


def make_mesh(data=1, fsdp=1, tensor=1):
    shape = (data, fsdp, tensor)
    devices = jax.devices()[: data * fsdp * tensor]
    return jax.make_mesh(shape, ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Auto,) * 3, devices=devices)


def private_gradient(params, batch, parts=1, chunk=0, mesh=None):
    """The clipped sum as the step takes it: jitted, the batch split over the mesh, in microbatches."""
    micro = functools.partial(privacy.clipped_sum, clip=CLIP, chunk=chunk)
    gradient = Gradient(micro, None)
    take = jax.jit(lambda params, batch: accumulate(gradient, loss, params, batch, CONTEXT, parts))
    if mesh is None:
        return take(params, batch)
    with jax.set_mesh(mesh):
        rows = jax.device_put(batch, NamedSharding(mesh, PartitionSpec(('data', 'fsdp'))))
        # As FSDP and tensor parallelism hold them.
        split = NamedSharding(mesh, PartitionSpec(None, None, None, 'fsdp'))
        params['conv']['kernel'] = jax.device_put(params['conv']['kernel'], split)
        params['head']['kernel'] = jax.device_put(
            params['head']['kernel'], NamedSharding(mesh, PartitionSpec('tensor', None))
        )
        return take(params, rows)


LAYOUTS = [None, {}, {'data': 2}, {'data': 8}, {'data': 2, 'fsdp': 2, 'tensor': 2}, {'tensor': 4}]


@pytest.mark.parametrize('layout', LAYOUTS, ids=str)
def test_gradient_equals_float64_on_every_mesh(layout):
    expected, norms = reference(masked=3)
    assert len(norms) == 13 and 2 < np.sum(norms > CLIP) < 11  # both kinds of rows are there
    mesh = None if layout is None else make_mesh(**layout)
    gradient, total, aux = private_gradient(make_params(), make_batch(), mesh=mesh)
    assert_close(gradient, expected)
    plain_total, plain = loss(make_params(), make_batch(), CONTEXT)
    np.testing.assert_allclose([total, aux.weight], [plain_total, plain.weight], rtol=1e-5)
    np.testing.assert_allclose(aux.logs['plain'], plain.logs['plain'], rtol=1e-5)


@pytest.mark.parametrize(('parts', 'chunk', 'devices'), [(1, 3, 1), (2, 0, 1), (4, 0, 1), (2, 3, 2)])
def test_microbatches_and_chunks_change_nothing(parts, chunk, devices):
    gradient, total, aux = private_gradient(make_params(), make_batch(), parts, chunk, make_mesh(devices))
    assert_close(gradient, reference(masked=3)[0])
    np.testing.assert_allclose(total, loss(make_params(), make_batch(), CONTEXT)[0], rtol=1e-5)


def test_the_sum_of_k_equal_rows_is_k_times_clip_long():
    batch = jax.tree.map(lambda values: np.repeat(values[:1], 8, axis=0), make_batch(masked=0))
    batch['target'] *= 100
    gradient, _, _ = private_gradient(make_params(), batch)
    norm = np.sqrt(sum(np.sum(np.float64(leaf) ** 2) for leaf in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(norm, 8 * CLIP, rtol=1e-5)


def test_padding_and_rows_that_are_not_finite_add_nothing():
    def bad(params, batch, context):
        # Of a padding row this loss has a gradient too, and of the row numbered 7 none that is finite.
        total, aux = loss(params, batch, context)
        poison = jnp.sum(jnp.where(batch['index'] == 7, jnp.inf, 1.0)) * jnp.sum(params['head']['bias'])
        return total + poison, aux

    batch = {**make_batch(masked=0), 'index': np.arange(16, dtype=np.int32)}

    @jax.jit
    def take(batch):
        return privacy.clipped_sum(bad, make_params(), batch, CONTEXT, CLIP, 0)[0]

    without = {name: np.delete(value, 7, axis=0) for name, value in batch.items()}
    filled = {name: np.concatenate([value, value[:1]]) for name, value in without.items()}
    filled['mask'][15] = 0
    assert_close(take(batch), take(without))
    assert_close(take(filled), take(without))


def test_each_row_has_a_key_of_its_own_that_follows_its_number():
    def noisy(params, batch, context):
        return jnp.sum(params['w'] * jax.random.normal(context.fold('dropout'), ())), Aux(
            jnp.sum(batch['mask'])
        )

    def gradient(numbers):
        batch = {'index': np.array(numbers, np.int32), 'mask': np.ones(len(numbers), np.float32)}
        params = {'w': jnp.zeros(())}
        return float(privacy.clipped_sum(noisy, params, batch, CONTEXT, 1e9, 0)[0]['w'])

    alone = [gradient([number]) for number in (3, 4, 5)]
    assert len(set(alone)) == 3
    np.testing.assert_allclose(gradient([5, 3, 4]), sum(alone), rtol=1e-5)


def finish_of(settings, batch_size=16):
    task, _ = private_task(settings, batch_size=batch_size)
    return task.gradients['model'].finish


def test_noise_has_the_deviation_of_theory():
    settings = privacy.Settings(clip=0.5, noise_multiplier=3.0, delta=1e-3)
    zeros = {'wide': jnp.zeros((500, 400)), 'other': jnp.zeros((500, 400)), 'vector': jnp.zeros(7)}
    noise = finish_of(settings)(zeros, jnp.float32(11), CONTEXT)
    wide, other = (np.float64(noise[name]).ravel() for name in ('wide', 'other'))
    deviation = 0.5 * 3.0 / 16  # divided by the expected batch, not by the weight of this one
    for values in (wide, other):
        count = len(values)
        assert abs(values.mean()) < 4 * deviation / np.sqrt(count)
        # (count - 1) s^2 / deviation^2 is chi-squared: mean count, variance 2 count.
        assert abs(np.sum(values**2) / deviation**2 - count) < 4 * np.sqrt(2 * count)
        assert abs(np.mean(np.abs(values) < deviation) - 0.6827) < 0.005
    assert abs(np.corrcoef(wide, other)[0, 1]) < 4 / np.sqrt(len(wide))
    later = finish_of(settings)(zeros, jnp.float32(11), CONTEXT._replace(key=jax.random.key(2)))
    assert abs(np.corrcoef(wide, np.ravel(later['wide']))[0, 1]) < 4 / np.sqrt(len(wide))


def test_noise_is_the_same_on_any_devices():
    zeros, finish = {'kernel': jnp.zeros((16, 8)), 'bias': jnp.zeros(3)}, finish_of(None)
    alone = jax.jit(finish)(zeros, jnp.float32(1), CONTEXT)
    for layout in ({'data': 2}, {'fsdp': 8}, {'data': 2, 'fsdp': 2, 'tensor': 2}):
        mesh = make_mesh(**layout)
        with jax.set_mesh(mesh):
            split = jax.device_put(zeros['kernel'], NamedSharding(mesh, PartitionSpec('fsdp', 'tensor')))
            placed = {**zeros, 'kernel': split}
            spread = jax.jit(finish)(placed, jnp.float32(1), CONTEXT)
        jax.tree.map(np.testing.assert_array_equal, spread, alone)


@pytest.mark.slow
def test_three_private_steps_agree_on_1_and_8_devices_and_under_accumulation():
    task, config = private_task(sampling='poisson')
    single, logs = run_plan(task, config, 1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((single, logs)))
    assert_close(run_plan(task, config, 8)[0], single, 1e-5)
    # With noise in each microbatch the parameters would differ from those of one large batch.
    parts = dataclasses.replace(config, train=dataclasses.replace(config.train, microbatches=4))
    assert_close(run_plan(task, parts, 2)[0], single, 1e-5)


def test_a_poisson_batch_is_divided_by_the_rows_expected():
    settings = privacy.Settings(clip=1e9, noise_multiplier=1e-15, delta=1e-3)
    task, config = private_task(settings, sampling='poisson')
    spec = make_run_spec(config, task, jax.devices()[:1])
    assert len(spec.rows(0)) == spec.capacity == spec.batch['mask'].shape[0] > 16
    real = [row.index for row in spec.rows(0) if row.real]
    after, logs = run_plan(task, config, 1, steps=1)
    raws, params = task.source('train'), make_params()
    steps = {'head': {'bias': np.zeros(3)}}
    for row in real:
        one = {name: np.asarray(value)[None] for name, value in raws[row].items()}
        error = errors_of(jax.tree.map(np.float64, params), one, convolve, np)
        steps['head']['bias'] += 2 * error[0]
    expected = params['head']['bias'] - 0.1 * steps['head']['bias'] / 16
    np.testing.assert_allclose(after['model']['head']['bias'], expected, rtol=1e-5)
    assert logs['loss'][1] == sum(raws[row]['length'] for row in real)


def test_private_gradient_of_adapters_equals_a_loop_over_rows():
    task, config = private_task()
    adapted, batch = lora.apply(task, lora.Settings(rank=2), config), make_batch(8)
    variables = adapted.init(jax.random.key(3))
    # B starts at zero, which would leave A without a gradient.
    params = jax.tree.map(lambda leaf: leaf + 0.1, variables.params['model'])
    bound = bind(adapted.losses['model'], variables, 'model')
    together = jax.jit(functools.partial(adapted.gradients['model'].micro, bound))(params, batch, CONTEXT)[0]

    @jax.jit
    def one(params, row):
        return jax.grad(lambda params: bound(params, row, CONTEXT)[0] / row['length'][0])(params)

    total = jax.tree.map(np.zeros_like, together)
    for number in np.flatnonzero(batch['mask']):
        gradient = one(params, {name: value[number : number + 1] for name, value in batch.items()})
        norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
        total = jax.tree.map(lambda a, b, norm=norm: a + b * min(1, 1 / norm), total, gradient)
    assert_close(together, jax.tree.map(np.asarray, total), 1e-5)
