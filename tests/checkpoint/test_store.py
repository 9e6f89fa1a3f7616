"""Checkpoints: what is saved comes back equal on any devices, and what is kept is chosen."""

import logging
import shutil
import socket
import subprocess
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checkpoint_cases import (
    SCRIPT,
    TARGET,
    State,
    assert_equal,
    environment,
    flip,
    on_device,
    restore,
    save_steps,
    snapshot,
    state_at,
)
from etils import epath
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.checkpoint import manifest as manifests
from research.checkpoint.store import open_checkpoints, read_weights
from research.core.task import Variables
from research.errors import UserError


def test_a_real_state_restores_equal(tmp_path):
    params = {
        'discriminator': {
            'blocks': {'kernel': jnp.arange(24.0).reshape(2, 3, 4)},
            'bias': jnp.ones(3, jnp.bfloat16),
        },
        'generator': {'embedding': jnp.linspace(0, 1, 12).reshape(4, 3)},
    }
    variables = Variables(
        params, {'generator': {'batch_stats': {'mean': jnp.arange(3.0)}}, 'discriminator': {}}
    )
    frozen = optax.masked(optax.set_to_zero(), {'blocks': {'kernel': False}, 'bias': True})
    adam = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(0.1, 5)), frozen
    )
    optimizer = {
        'discriminator': adam.init(params['discriminator']),
        'generator': optax.sgd(0.1, momentum=0.9).init(params['generator']),
    }
    for average in (None, variables):
        folder = epath.Path(tmp_path / str(average is None))
        state = State(jnp.int32(7), variables, optimizer, average)
        checkpoints = open_checkpoints(folder, 2)
        meta = {'seed': 1, 'best': float('nan'), 'history': [[1, 0.1]], 'name': 'größe'}
        checkpoints.save(7, state, meta)
        found, found_meta, step = checkpoints.restore(jax.eval_shape(lambda state=state: state))
        checkpoints.close()
        assert step == 7 and repr(found_meta) == repr(meta)
        assert_equal(found, state)


@pytest.mark.parametrize('devices', [1, 4])
def test_eight_devices_restore_on_fewer(tmp_path, devices):
    def shardings(count):
        mesh = jax.make_mesh((count,), ('fsdp',), devices=jax.devices()[:count], axis_types=(AxisType.Auto,))
        return lambda leaf: NamedSharding(
            mesh, PartitionSpec('fsdp') if leaf.ndim and leaf.shape[0] % 8 == 0 else PartitionSpec()
        )

    saved = jax.tree.map(lambda leaf: jax.device_put(leaf, shardings(8)(leaf)), state_at(3))
    assert len(saved.variables.params['model']['kernel'].addressable_shards) == 8
    checkpoints = open_checkpoints(epath.Path(tmp_path), 2)
    checkpoints.save(3, saved, {})
    placing = shardings(devices)
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placing(leaf)), state_at(0)
    )
    state, _, _ = checkpoints.restore(target)
    checkpoints.close()
    assert_equal(state, state_at(3))
    for leaf, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(target), strict=True):
        assert leaf.sharding == wanted.sharding
    assert_equal(read_weights(tmp_path)['variables'], state_at(3).variables)  # without any device named


def test_donating_right_after_save_is_safe(tmp_path):
    @partial(jax.jit, donate_argnums=0)
    def advance(state):
        return jax.tree.map(lambda leaf: leaf + 1, state)

    size = 1 << 20
    state = State(jnp.int32(0), Variables({'model': {'kernel': jnp.zeros(size)}}, {}), {}, None)
    checkpoints = open_checkpoints(epath.Path(tmp_path), 10)
    for step in range(4):
        checkpoints.save(step, state, {})
        for _ in range(3):
            state = advance(state)  # in place
    target = jax.eval_shape(lambda: state)
    for step in range(4):
        found, _, _ = checkpoints.restore(target, step)
        assert int(found.step) == 3 * step
        np.testing.assert_array_equal(
            found.variables.params['model']['kernel'], np.full(size, 3 * step, np.float32)
        )
        advance(found)
    assert (
        checkpoints.restore(target)[2] == 3
    )  # neither restoring nor donating what it gave has touched a file
    checkpoints.close()


def test_nothing_to_restore(tmp_path):
    assert restore(tmp_path / 'none') == (None, [])
    assert open_checkpoints(epath.Path(tmp_path / 'none'), 1).best() is None
    assert not (tmp_path / 'none').exists()
    with pytest.raises(UserError, match='no finished checkpoint'):
        read_weights(tmp_path / 'none')
    with pytest.raises(UserError, match='no finished step 4; finished steps: none'):
        restore(tmp_path / 'none', step=4)


# Which steps are kept.


def test_the_last_and_the_best_are_kept(tmp_path):
    checkpoints = open_checkpoints(epath.Path(tmp_path), keep_last=2)
    kept = []
    for step in range(1, 8):
        checkpoints.save(step, on_device(step), {'at': step}, best=step in (2, 5))
        checkpoints.wait()
        kept.append((checkpoints.steps(), checkpoints.best()))
    assert kept == [
        ([1], None), ([1, 2], 2), ([2, 3], 2), ([2, 3, 4], 2), ([2, 4, 5], 5), ([5, 6], 5), ([5, 6, 7], 5),
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / 'checkpoints').iterdir()) == ['5', '6', '7']
    checkpoints.save(7, on_device(7), {'at': 70}, best=True)  # measured after it was saved
    checkpoints.wait()
    assert (checkpoints.steps(), checkpoints.best()) == ([5, 6, 7], 7)  # 5 was the best when 6 was saved
    assert checkpoints.restore(TARGET)[1] == {'at': 70}
    checkpoints.close()


def test_the_step_restored_is_not_written_again(tmp_path):
    save_steps(tmp_path, 1, 2)
    before = snapshot(tmp_path / 'checkpoints')
    checkpoints = open_checkpoints(epath.Path(tmp_path), 2)
    checkpoints.restore(TARGET)
    checkpoints.save(2, on_device(2), {'at': 2}, best=True)
    checkpoints.close()
    assert checkpoints.best() == 2 and snapshot(tmp_path / 'checkpoints') == before


def test_a_strange_step_is_not_written_over(tmp_path):
    save_steps(tmp_path, 3, 6)
    for step in (3, 5, 6):
        checkpoints = open_checkpoints(epath.Path(tmp_path), 2)
        with pytest.raises(UserError, match=f'step {step} cannot be saved.*already contains step 6'):
            checkpoints.save(step, on_device(step), {})
        checkpoints.close()
    assert restore(tmp_path) == (6, [])


def test_meta_must_be_json(tmp_path):
    checkpoints = open_checkpoints(epath.Path(tmp_path), 1)
    with pytest.raises(TypeError, match='not JSON'):
        checkpoints.save(1, on_device(1), {'loss': jnp.ones(())})
    checkpoints.save(1, on_device(1), {10: 'ten', 2: (1, 2)})
    assert checkpoints.restore(TARGET)[1] == {'10': 'ten', '2': [1, 2]}
    checkpoints.close()


def test_another_config_is_refused_by_path(tmp_path):
    save_steps(tmp_path, 4)
    before = snapshot(tmp_path)
    params = {
        'model': {
            'kernel': jax.ShapeDtypeStruct((32,), jnp.float32),
            'bias': jax.ShapeDtypeStruct((2,), jnp.int8),
        }
    }
    target = TARGET._replace(variables=TARGET.variables._replace(params=params), ema=None)
    with pytest.raises(UserError) as error:
        restore(tmp_path, target=target)
    text = str(error.value)
    assert f'{tmp_path}, step 4' in text
    assert 'variables/params/model/kernel: saved float32[64], expected float32[32]' in text
    assert 'variables/params/model/bias: saved nothing, expected int8[2]' in text
    assert 'average/params/model/kernel: saved float32[64], expected nothing' in text
    halved = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float16), TARGET)
    with pytest.raises(
        UserError, match=r'saved float32\[64\], expected float16\[64\]\n(.*\n)*  and 2 more'
    ):
        restore(tmp_path, target=halved)
    assert snapshot(tmp_path) == before


def test_paths_that_orbax_confuses_are_refused(tmp_path):
    params = {'a.b': {'c': jnp.zeros(2)}, 'a': {'b.c': jnp.ones(2)}}
    checkpoints = open_checkpoints(epath.Path(tmp_path), 1)
    with pytest.raises(ValueError, match='confuse'):
        checkpoints.save(1, State(jnp.int32(1), Variables({'model': params}, {}), {}, None), {})
    checkpoints.close()


# Weights alone.


def test_weights_are_read_without_the_optimizer(tmp_path):
    save_steps(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / 'checkpoints' / '2' / 'rest')  # neither read nor checked
    before = snapshot(tmp_path)
    weights = read_weights(tmp_path)
    assert (weights['step'], weights['meta']) == (2, {'at': 2})
    for name in ('variables', 'ema'):
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(weights[name]))
        assert_equal(weights[name], state_at(2).variables)
    assert read_weights(tmp_path, step=1)['step'] == 1
    flip(tmp_path / 'checkpoints' / '2' / 'weights' / 'manifest.ocdbt')
    said = []
    assert read_weights(tmp_path, say=said.append)['step'] == 1
    assert len(said) == 1 and 'manifest.ocdbt has changed' in said[0] and 'step 1 is used' in said[0]
    flip(tmp_path / 'checkpoints' / '2' / 'weights' / 'manifest.ocdbt')
    assert snapshot(tmp_path) == before


def test_a_state_without_average_or_extra(tmp_path):
    state = State(jnp.int32(1), Variables({'model': {'layers': [jnp.ones(2), jnp.zeros(3)]}}, {}), {}, None)
    checkpoints = open_checkpoints(epath.Path(tmp_path), 1)
    checkpoints.save(1, state, {})
    checkpoints.close()
    weights = read_weights(tmp_path)
    assert weights['ema'] is None and weights['variables'].extra == {}
    assert weights['variables'].params['model']['layers']['1'].shape == (3,)


def test_weights_are_read_while_the_run_goes_on(tmp_path, monkeypatch):
    """The step being read is deleted meanwhile: the newer one is read."""
    save_steps(tmp_path, 1)
    real, calls = manifests.digests, []

    def slow(*arguments):
        if not calls:
            calls.append(arguments)
            save_steps(tmp_path / 'other', 2)
            for place in ('checkpoints', 'checksums'):
                shutil.copytree(tmp_path / 'other' / place, tmp_path / place, dirs_exist_ok=True)
            manifests.retire(epath.Path(tmp_path), keep_last=1)
        return real(*arguments)

    monkeypatch.setattr(manifests, 'digests', slow)
    assert read_weights(tmp_path)['step'] == 2


# Several processes, other stores, silence.


@pytest.mark.slow
def test_two_processes_save_and_fall_back_together(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), 'pair', str(tmp_path), port, str(index)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
        )
        for index in range(2)
    ]  # fmt: skip
    deadline = time.time() + 90
    while (
        time.time() < deadline
        and any(p.poll() is None for p in processes)
        and not any(p.poll() for p in processes)
    ):
        time.sleep(0.1)
    for process in processes:
        process.kill()
    outputs = [process.communicate()[0] for process in processes]
    assert all('DONE' in output for output in outputs), outputs


def test_orbax_is_silent(tmp_path, caplog, recwarn):
    with caplog.at_level(logging.INFO):
        save_steps(tmp_path, 1, 2)
        flip(tmp_path / 'checkpoints' / '2' / 'weights' / 'manifest.ocdbt')
        assert restore(tmp_path)[0] == 1
    assert not caplog.records and not recwarn.list
    assert sum(each.__name__ == 'not_orbax' for each in logging.getLogger('absl').filters) == 1
