"""Checkpoints: what is saved comes back equal on any devices, and damage never does."""

import json
import logging
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from checkpoint_process import State, flip, state_at
from etils import epath
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.core import records
from research.core.checkpoint import open_checkpoints, read_weights
from research.core.task import Variables
from research.errors import UserError

SCRIPT = pathlib.Path(__file__).parent / 'checkpoint_process.py'
TARGET = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state_at(0))


def assert_equal(found, expected):
    """Same containers, dtypes and bits."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def on_device(step: int) -> State:
    return jax.tree.map(jnp.asarray, state_at(step))


def save_steps(folder, *steps: int, keep_last: int = 5, best: int = -1, **options) -> None:
    checkpoints = open_checkpoints(epath.Path(folder), keep_last, **options)
    for step in steps:
        checkpoints.save(step, on_device(step), {'at': step}, best=step == best)
    checkpoints.close()


def restore(folder, step=None, target=TARGET, **options):
    """Returns (step or None, what was said) after comparing the state with what that step must hold."""
    said = []
    checkpoints = open_checkpoints(epath.Path(folder), 2, **options)
    found = checkpoints.restore(target, step, say=said.append)
    checkpoints.close()
    if found is None:
        return None, said
    state, meta, step = found
    assert_equal(state, state_at(step))
    assert meta == {'at': step}
    return step, said


def snapshot(folder: pathlib.Path) -> dict:
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob('*')}


# What is saved comes back.


def test_a_real_state_restores_equal(tmp_path):
    params = {
        'discriminator': {'blocks': {'kernel': jnp.arange(24.0).reshape(2, 3, 4)}, 'bias': jnp.ones(3, jnp.bfloat16)},
        'generator': {'embedding': jnp.linspace(0, 1, 12).reshape(4, 3)},
    }
    variables = Variables(params, {'generator': {'batch_stats': {'mean': jnp.arange(3.0)}}, 'discriminator': {}})
    frozen = optax.masked(optax.set_to_zero(), {'blocks': {'kernel': False}, 'bias': True})
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(0.1, 5)), frozen)
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
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placing(leaf)), state_at(0))
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
        np.testing.assert_array_equal(found.variables.params['model']['kernel'], np.full(size, 3 * step, np.float32))
        advance(found)
    assert checkpoints.restore(target)[2] == 3  # neither restoring nor donating what it gave has touched a file
    checkpoints.close()


def test_nothing_to_restore(tmp_path):
    assert restore(tmp_path / 'none') == (None, [])
    assert open_checkpoints(epath.Path(tmp_path / 'none'), 1).best() is None
    assert not (tmp_path / 'none').exists()
    with pytest.raises(UserError, match='no finished checkpoint'):
        read_weights(tmp_path / 'none')
    with pytest.raises(UserError, match='no finished step 4; there is none'):
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
        ([1], None), ([1, 2], 2), ([2, 3], 2), ([2, 3, 4], 2), ([4, 5], 5), ([5, 6], 5), ([5, 6, 7], 5),
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / 'checkpoints').iterdir()) == ['5', '6', '7']
    checkpoints.save(7, on_device(7), {'at': 70}, best=True)  # measured after it was saved
    checkpoints.wait()
    assert (checkpoints.steps(), checkpoints.best()) == ([6, 7], 7)
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
        with pytest.raises(UserError, match=f'step {step} cannot be saved.*already holds step 6'):
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


# Damage.


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def extend(file):
    file.write_bytes(file.read_bytes() + b'x')


def add_file(file):
    (file.parent / 'garbage').write_bytes(b'x')


def remove_step(file):
    shutil.rmtree(file.parents[1])


DAMAGES = {
    'truncated': truncate,
    'something was added': extend,
    'has changed': flip,
    'is missing': pathlib.Path.unlink,
    'does not belong there': add_file,
    '6 is missing': remove_step,
}


@pytest.mark.parametrize('what', DAMAGES)
@pytest.mark.parametrize('commit_file', [False, True])
def test_a_damaged_step_is_passed_over(tmp_path, what, commit_file):
    save_steps(tmp_path, 2, 4, 6, commit_file=commit_file)
    file = tmp_path / 'checkpoints' / '6' / 'weights' / 'manifest.ocdbt'
    DAMAGES[what](file)
    step, said = restore(tmp_path)
    assert step == 4 and len(said) == 1 and '\n' not in said[0]
    for part in ('step 6', str(file.parents[2] / '6'), what, 'step 4 is used instead'):
        assert part in said[0]
    assert restore(tmp_path) == (4, [])  # said once

    checkpoints = open_checkpoints(epath.Path(tmp_path), 5, commit_file=commit_file)
    checkpoints.restore(TARGET)
    checkpoints.save(6, on_device(6), {'at': 6})  # training arrives there again
    checkpoints.close()
    assert checkpoints.steps() == [2, 4, 6] and restore(tmp_path) == (6, [])


def test_every_byte_of_a_step_and_its_record_counts(tmp_path):
    """A flipped bit anywhere is found before Orbax, which would restore other values, sees the step."""
    save_steps(tmp_path, 1)
    folder = epath.Path(tmp_path)
    every = [path for path in tmp_path.rglob('*') if path.is_file()]
    assert len(every) > 15
    for file in every:
        whole = file.read_bytes()
        flip(file)
        assert file.name in records.verify(folder, 1)[1]
        file.unlink()
        assert file.name in records.verify(folder, 1)[1]
        file.write_bytes(whole)
    record = tmp_path / 'checksums' / '1.json'
    text = record.read_text()
    for place in range(0, len(text), 7):
        record.write_text(text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :])
        changed = records.verify(folder, 1)[1]
        assert 'cannot be read' in changed or text[place].isspace(), place
    record.write_text(text)
    assert records.verify(folder, 1)[1] == ''
    (tmp_path / 'checkpoints' / '1' / '.DS_Store').write_text('a file browser came by')
    assert restore(tmp_path) == (1, [])


def test_two_damaged_steps_and_a_damaged_record(tmp_path):
    save_steps(tmp_path, 1, 2, 3, best=3)
    flip(tmp_path / 'checksums' / '3.json')
    flip(tmp_path / 'checkpoints' / '2' / 'rest' / 'manifest.ocdbt')
    assert open_checkpoints(epath.Path(tmp_path), 2).best() is None
    step, said = restore(tmp_path)
    assert step == 1 and [text.split(' of')[0] for text in said] == ['step 3', 'step 2']
    assert '3.json cannot be read' in said[0] and 'rest/manifest.ocdbt' in said[1]
    assert sorted(path.name for path in (tmp_path / 'damaged').iterdir()) == ['2', '3']


def test_no_good_step_names_the_files_and_moves_nothing(tmp_path):
    save_steps(tmp_path, 1, 2)
    truncate(tmp_path / 'checkpoints' / '1' / 'weights' / '_METADATA')
    (tmp_path / 'checkpoints' / '2' / 'rest' / 'manifest.ocdbt').unlink()
    before = snapshot(tmp_path)
    for _ in range(2):
        with pytest.raises(UserError, match='no checkpoint of') as error:
            restore(tmp_path)
        assert '1/weights/_METADATA has' in str(error.value) and '2/rest/manifest.ocdbt is missing' in str(error.value)
    assert snapshot(tmp_path) == before


def test_a_step_asked_for_by_number(tmp_path):
    save_steps(tmp_path, 1, 2, 3)
    flip(tmp_path / 'checkpoints' / '2' / 'weights' / 'manifest.ocdbt')
    before = snapshot(tmp_path)
    assert restore(tmp_path, step=1) == (1, [])
    for read in (restore, read_weights):
        with pytest.raises(UserError, match='step 2 .*manifest.ocdbt has changed.*delete .*2.json'):
            read(epath.Path(tmp_path), step=2)
        with pytest.raises(UserError, match='no finished step 5; there is 1, 2, 3'):
            read(epath.Path(tmp_path), step=5)
    assert snapshot(tmp_path) == before


def test_another_config_is_refused_by_path(tmp_path):
    save_steps(tmp_path, 4)
    before = snapshot(tmp_path)
    params = {'model': {'kernel': jax.ShapeDtypeStruct((32,), jnp.float32), 'bias': jax.ShapeDtypeStruct((2,), jnp.int8)}}
    target = TARGET._replace(variables=TARGET.variables._replace(params=params), average=None)
    with pytest.raises(UserError) as error:
        restore(tmp_path, target=target)
    text = str(error.value)
    assert f'{tmp_path}, step 4' in text
    assert 'variables/params/model/kernel: float32[64] is saved, float32[32] is wanted' in text
    assert 'variables/params/model/bias: nothing is saved, int8[2] is wanted' in text
    assert 'average/params/model/kernel: float32[64] is saved, nothing is wanted' in text
    halved = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float16), TARGET)
    with pytest.raises(UserError, match=r'float32\[64\] is saved, float16\[64\] is wanted\n(.*\n)*  and 2 more'):
        restore(tmp_path, target=halved)
    assert snapshot(tmp_path) == before


def test_paths_that_orbax_confuses_are_refused(tmp_path):
    params = {'a.b': {'c': jnp.zeros(2)}, 'a': {'b.c': jnp.ones(2)}}
    checkpoints = open_checkpoints(epath.Path(tmp_path), 1)
    with pytest.raises(ValueError, match='confuse'):
        checkpoints.save(1, State(jnp.int32(1), Variables({'model': params}, {}), {}, None), {})
    checkpoints.close()


def test_a_failed_save_is_told(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, 'No space left on device')

    save_steps(tmp_path, 1)
    checkpoints = open_checkpoints(epath.Path(tmp_path), 2)
    checkpoints.restore(TARGET)
    with monkeypatch.context() as patch:
        patch.setattr(records, 'make_record', full)
        checkpoints.save(2, on_device(2), {'at': 2})
        with pytest.raises(UserError, match='step 2 could not be .*No space left.*newest finished step is 1'):
            checkpoints.save(3, on_device(3), {'at': 3})
    checkpoints.save(2, on_device(2), {'at': 2})
    checkpoints.close()
    assert restore(tmp_path) == (2, [])


# Weights alone.


def test_weights_are_read_without_the_optimizer(tmp_path):
    save_steps(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / 'checkpoints' / '2' / 'rest')  # neither read nor checked
    before = snapshot(tmp_path)
    weights = read_weights(tmp_path)
    assert (weights['step'], weights['meta']) == (2, {'at': 2})
    for name in ('variables', 'average'):
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
    assert weights['average'] is None and weights['variables'].extra == {}
    assert weights['variables'].params['model']['layers']['1'].shape == (3,)


def test_weights_are_read_while_the_run_goes_on(tmp_path, monkeypatch):
    """The step being read is deleted meanwhile: the newer one is read."""
    save_steps(tmp_path, 1)
    real, calls = records.digests, []

    def slow(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            save_steps(tmp_path / 'other', 2)
            for place in ('checkpoints', 'checksums'):
                shutil.copytree(tmp_path / 'other' / place, tmp_path / place, dirs_exist_ok=True)
            records.retire(epath.Path(tmp_path), keep_last=1)
        return real(*arguments)

    monkeypatch.setattr(records, 'digests', slow)
    calls.append(None)  # not while saving
    calls.clear()
    assert read_weights(tmp_path)['step'] == 2


# Killed at any moment.


def test_leftovers_of_a_killed_save(tmp_path):
    """Under another name (rename), in place (commit file), and committed but without its record."""
    save_steps(tmp_path, 1, 2, 3, 4)
    steps = tmp_path / 'checkpoints'
    assert records.UNRENAMED == ocp.path.atomicity.TMP_DIR_SUFFIX
    assert records.COMMITTED == ocp.path.atomicity.COMMIT_SUCCESS_FILE
    shutil.copytree(steps / '4' / 'weights', steps / f'7{records.UNRENAMED}' / f'weights{records.UNRENAMED}')
    shutil.copytree(steps / '4' / 'weights', steps / '6' / 'weights')
    shutil.rmtree(steps / '2' / 'rest')
    for step in (2, 4):
        (tmp_path / 'checksums' / f'{step}.json').rename(tmp_path / 'checksums' / f'{step}.json.tmp')
    (steps / 'notes').mkdir()
    assert read_weights(tmp_path)['step'] == 3
    step, said = restore(tmp_path)
    assert step == 3
    for text, unfinished in zip(said, (4, 6, 7), strict=True):  # 2 is of no interest any more
        assert f'step {unfinished} ' in text and f'{unfinished}.json is missing; it is deleted and step 3 is used' in text
    assert sorted(path.name for path in steps.iterdir()) == ['1', '3', 'notes']
    assert sorted(path.name for path in (tmp_path / 'checksums').iterdir()) == ['1.json', '3.json']
    assert not (tmp_path / 'damaged').exists()


def test_lost_records_lose_no_arrays(tmp_path):
    save_steps(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / 'checksums')
    step, said = restore(tmp_path)
    assert step is None and len(said) == 2 and 'damaged/2 and training starts anew' in said[1]
    assert sorted(path.name for path in (tmp_path / 'damaged').iterdir()) == ['1', '2']
    save_steps(tmp_path, 1)
    assert restore(tmp_path) == (1, [])


@pytest.mark.parametrize('commit_file', [False, True])
def test_saving_over_leftovers_without_restore(tmp_path, commit_file):
    (tmp_path / 'checkpoints' / '1' / 'weights' / 'd').mkdir(parents=True)
    (tmp_path / 'checkpoints' / '1' / 'weights' / 'd' / 'half').write_text('half')
    (tmp_path / 'checkpoints' / f'1{records.UNRENAMED}').mkdir()
    save_steps(tmp_path, 1, commit_file=commit_file)
    assert restore(tmp_path) == (1, [])


class Killed(BaseException):
    pass


def stopping(path_class: type, name: str, left: list[int]):
    """Returns a method of paths that raises instead of making a change once none is left to be made."""
    real = getattr(path_class, name)

    def operation(self, *arguments, **options):
        if name == 'open' and arguments[0] != 'w':
            return real(self, *arguments, **options)
        if left[0] == 0:
            if name == 'rmtree':  # half of the files are gone
                for file in [file for file in pathlib.Path(self).rglob('*') if file.is_file()][::2]:
                    file.unlink()
            raise Killed
        left[0] -= 1
        return real(self, *arguments, **options)

    return operation


def test_stopped_before_every_change_after_the_commit(tmp_path, monkeypatch):
    """Step 3 becomes the best and only one, 1 (the best so far) and 2 go: whichever change is the last one made."""
    save_steps(tmp_path / 'start', 1, 2, 3, best=1)
    (tmp_path / 'start' / 'checksums' / '3.json').unlink()
    path_class, outcomes = type(epath.Path(tmp_path)), []
    for count in range(20):
        folder = tmp_path / str(count)
        shutil.copytree(tmp_path / 'start', folder)
        checkpoints = open_checkpoints(epath.Path(folder), keep_last=1)
        with monkeypatch.context() as patch:
            left = [count]
            for name in ('mkdir', 'open', 'replace', 'unlink', 'rmtree'):
                patch.setattr(path_class, name, stopping(path_class, name, left))
            try:
                checkpoints._commit(3, {'at': 3}, best=True)
                killed = False
            except Killed:
                killed = True
        best = checkpoints.best()
        assert restore(folder, step=best)[0] == best
        outcomes.append((restore(folder)[0], best))
        checkpoints.close()
        if not killed:
            break
    assert outcomes == [(2, 1)] * 3 + [(3, 3)] * 5  # the record of 3 stands once its third change is made
    assert sorted(path.name for path in (folder / 'checkpoints').iterdir()) == ['3']


def run_until(random_time: random.Random, folder: pathlib.Path, commit_file: bool) -> int:
    """Starts the save loop, kills it at a random moment, and returns the step it began with."""
    command = [sys.executable, str(SCRIPT), 'loop', str(folder), str(commit_file)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=SCRIPT.parents[2], env=environment()
    )
    for line in process.stdout:
        if line.startswith('READY'):
            break
    time.sleep(random_time.uniform(0.05, 1.0))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return int(line.split()[1])


def environment() -> dict[str, str]:
    import os

    return {**os.environ, 'PYTHONPATH': str(SCRIPT.parents[2]), 'JAX_PLATFORMS': 'cpu'}


@pytest.mark.slow
@pytest.mark.parametrize('commit_file', [False, True])
def test_killed_at_random_moments(tmp_path, commit_file):
    moments, reached = random.Random(commit_file), 0
    for _ in range(4):
        began = run_until(moments, tmp_path, commit_file)
        assert began == reached
        checkpoints = open_checkpoints(epath.Path(tmp_path), 2, commit_file=commit_file)
        if not checkpoints.steps():  # killed before the first save was finished
            assert checkpoints.restore(TARGET, say=lambda text: None) is None and reached == 0
            checkpoints.close()
            continue
        looked, best = read_weights(tmp_path), checkpoints.best()
        state, meta, reached = checkpoints.restore(TARGET, say=lambda text: None)
        assert_equal(state, state_at(reached))
        assert meta == {'step': reached} and looked['step'] == reached
        if best is not None:
            assert best % 3 == 0 and best > reached - 4
            assert_equal(checkpoints.restore(TARGET, best)[0], state_at(best))
        checkpoints.close()
        assert not [path for path in tmp_path.rglob('*') if 'tmp' in path.relative_to(tmp_path).as_posix()]
    assert reached > 4


# Several processes, other stores, silence.


@pytest.mark.slow
def test_two_processes_save_and_fall_back_together(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), 'pair', str(tmp_path), port, str(index)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=SCRIPT.parents[2], env=environment(),
        )
        for index in range(2)
    ]  # fmt: skip
    deadline = time.time() + 90
    while time.time() < deadline and any(p.poll() is None for p in processes) and not any(p.poll() for p in processes):
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


def test_records_on_a_store_without_rename(tmp_path, monkeypatch):
    """The same on gs:// with an in-memory store behind it; Orbax's own part there is its commit file."""
    fsspec = pytest.importorskip('fsspec')
    memory = pytest.importorskip('fsspec.implementations.memory')

    class Bucket(memory.MemoryFileSystem):
        protocol = 'gcs'
        store, pseudo_dirs = {}, ['']

        @classmethod
        def _strip_protocol(cls, path):
            return '/' + str(path).removeprefix('gs://').strip('/')

    from etils.epath import backend

    monkeypatch.setattr(type(backend.fsspec_backend), '_get_filesystem', lambda self, name: Bucket())
    monkeypatch.setattr('etils.epath.gpath._is_tf_installed', lambda: False)
    del fsspec
    folder = epath.Path('gs://bucket/run')
    save_steps(tmp_path, 1, 2, 3, best=1)

    def upload(step):
        for name in records.files(epath.Path(tmp_path / 'checkpoints' / str(step))):
            file = records.arrays_path(folder, step) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes((tmp_path / 'checkpoints' / str(step) / name).read_bytes())

    assert records.find_good(folder, records.finished_steps(folder), None, False) == (None, {})
    for step in (1, 2, 3, 4):
        upload(min(step, 3))
        if step < 4:
            records.write_record(folder, records.make_record(folder, step, {'at': step}, step == 1))
    (records.arrays_path(folder, 4) / 'weights').mkdir(parents=True)
    (records.arrays_path(folder, 4) / 'weights' / 'half').write_bytes(b'half')
    (records.arrays_path(folder, 3) / 'rest' / 'manifest.ocdbt').write_bytes(b'other')
    finished, unfinished = records.finished_steps(folder), records.unfinished_steps(folder)
    assert (finished, unfinished, records.best_step(folder)) == ([1, 2, 3], [4], 1)
    record, damaged = records.find_good(folder, finished, None, False)
    assert record.step == 2 and list(damaged) == [3]
    said = []
    records.clear(folder, record.step, damaged, unfinished, said.append)
    assert len(said) == 2 and 'gs://bucket/run/damaged/3' in said[0]
    assert (folder / 'damaged' / '3' / 'rest' / 'manifest.ocdbt').read_bytes() == b'other'
    assert records.finished_steps(folder) == [1, 2] and records.unfinished_steps(folder) == []
    upload(3)
    records.write_record(folder, records.make_record(folder, 3, {}, False))
    records.retire(folder, keep_last=1)
    assert records.finished_steps(folder) == [1, 3] and not records.arrays_path(folder, 2).exists()
    assert json.loads(records.record_path(folder, 3).read_text())['step'] == 3
