"""Checkpoints: damage never comes back, and a run can be killed at any moment."""

import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest
from checkpoint_cases import (
    SCRIPT,
    TARGET,
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
from etils.epath import backend

from research.checkpoint import manifest as manifests
from research.checkpoint.store import open_checkpoints, read_chosen, read_weights
from research.errors import UserError


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
    'extended': extend,
    'has changed': flip,
    'is missing': pathlib.Path.unlink,
    'is not in the manifest': add_file,
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
        assert file.name in manifests.verify(folder, 1)[1]
        file.unlink()
        assert file.name in manifests.verify(folder, 1)[1]
        file.write_bytes(whole)
    record = tmp_path / 'checksums' / '1.json'
    text = record.read_text()
    for place in range(0, len(text), 7):
        record.write_text(text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :])
        changed = manifests.verify(folder, 1)[1]
        assert 'cannot be read' in changed or text[place].isspace(), place
    record.write_text(text)
    assert manifests.verify(folder, 1)[1] == ''
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
        assert '1/weights/_METADATA has' in str(error.value)
        assert '2/rest/manifest.ocdbt is missing' in str(error.value)
    assert snapshot(tmp_path) == before


def test_a_step_asked_for_by_number(tmp_path):
    save_steps(tmp_path, 1, 2, 3)
    flip(tmp_path / 'checkpoints' / '2' / 'weights' / 'manifest.ocdbt')
    before = snapshot(tmp_path)
    assert restore(tmp_path, step=1) == (1, [])
    for read in (restore, read_weights):
        with pytest.raises(UserError, match='step 2 .*manifest.ocdbt has changed.*delete .*2.json'):
            read(epath.Path(tmp_path), step=2)
        with pytest.raises(UserError, match='no finished step 5; finished steps: 1, 2, 3'):
            read(epath.Path(tmp_path), step=5)
    assert snapshot(tmp_path) == before


def test_a_failed_save_is_told(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, 'No space left on device')

    save_steps(tmp_path, 1)
    checkpoints = open_checkpoints(epath.Path(tmp_path), 2)
    checkpoints.restore(TARGET)
    with monkeypatch.context() as patch:
        patch.setattr(manifests, 'make_manifest', full)
        checkpoints.save(2, on_device(2), {'at': 2})
        message = 'step 2 could not be .*No space left.* free of .* KiB are needed.*step is 1'
        with pytest.raises(UserError, match=message):
            checkpoints.save(3, on_device(3), {'at': 3})
    checkpoints.save(2, on_device(2), {'at': 2})
    checkpoints.close()
    assert restore(tmp_path) == (2, [])


# Killed at any moment.


def test_leftovers_of_a_killed_save(tmp_path):
    """Under another name (rename), in place (commit file), and committed but without its record."""
    save_steps(tmp_path, 1, 2, 3, 4)
    steps = tmp_path / 'checkpoints'
    assert manifests.TEMPORARY_SUFFIX == ocp.path.atomicity.TMP_DIR_SUFFIX
    assert manifests.COMMIT_FILE == ocp.path.atomicity.COMMIT_SUCCESS_FILE
    suffix = manifests.TEMPORARY_SUFFIX
    shutil.copytree(steps / '4' / 'weights', steps / f'7{suffix}' / f'weights{suffix}')
    shutil.copytree(steps / '4' / 'weights', steps / '6' / 'weights')
    shutil.rmtree(steps / '2' / 'rest')
    for step in (2, 4):
        (tmp_path / 'checksums' / f'{step}.json').rename(tmp_path / 'checksums' / f'{step}.json.tmp')
    (steps / 'notes').mkdir()
    assert read_weights(tmp_path)['step'] == 3
    step, said = restore(tmp_path)
    assert step == 3
    for text, unfinished in zip(said, (4, 6, 7), strict=True):  # 2 is of no interest any more
        assert f'step {unfinished} of' in text and f'{unfinished}.json (interrupted save)' in text
        assert 'it is deleted and step 3 is used instead' in text
    assert sorted(path.name for path in steps.iterdir()) == ['1', '3', 'notes']
    assert sorted(path.name for path in (tmp_path / 'checksums').iterdir()) == ['1.json', '3.json']
    assert not (tmp_path / 'damaged').exists()


def test_lost_manifests_lose_no_arrays(tmp_path):
    save_steps(tmp_path, 1)
    shutil.rmtree(tmp_path / 'checksums')  # as where the first save was killed
    step, said = restore(tmp_path)
    assert step is None and len(said) == 1 and 'damaged/1 and training starts from the beginning' in said[0]
    assert [path.name for path in (tmp_path / 'damaged').iterdir()] == ['1']
    save_steps(tmp_path, 1)
    assert restore(tmp_path) == (1, [])


@pytest.mark.parametrize('steps', [(1, 2), (4,)])
def test_a_run_whose_manifests_were_lost_does_not_start_anew(tmp_path, steps):
    save_steps(tmp_path, *steps)
    (tmp_path / 'metrics.json').write_text('{}')  # one step alone is also what a killed first save leaves
    shutil.rmtree(tmp_path / 'checksums')
    before = snapshot(tmp_path)
    for read in (restore, read_weights):
        with pytest.raises(UserError, match='contains step .* but no manifest: .*checksums was lost'):
            read(epath.Path(tmp_path))
    assert snapshot(tmp_path) == before


def test_a_lost_newest_manifest_is_told(tmp_path):
    save_steps(tmp_path, 1, 2, 3)
    (tmp_path / 'checksums' / '3.json').unlink()
    said = []
    assert read_weights(tmp_path, say=said.append)['step'] == 2
    assert len(said) == 1 and 'step 3 of' in said[0] and 'has no manifest' in said[0] and 'step 2 is used' in said[0]


def test_a_damaged_best_step_is_told_and_the_newest_used(tmp_path):
    save_steps(tmp_path, 1, 2, 3, best=1)
    assert read_chosen(tmp_path, True, 0, pytest.fail)['step'] == 1
    flip(tmp_path / 'checkpoints' / '1' / 'weights' / 'manifest.ocdbt')
    said = []
    assert read_chosen(tmp_path, True, 0, said.append)['step'] == 3
    assert len(said) == 1 and 'step 1' in said[0] and 'the newest step is used instead of the best' in said[0]


def test_a_damaged_step_is_left_out_of_the_average(tmp_path):
    save_steps(tmp_path, 1, 2, 4)
    flip(tmp_path / 'checkpoints' / '2' / 'weights' / 'manifest.ocdbt')
    said = []
    found = read_chosen(tmp_path, False, 3, said.append)['variables'].params['model']['kernel']
    assert_equal(found, state_at(4).variables.params['model']['kernel'] * np.float32(0.625))
    assert 'it is not averaged' in said[0] and 'instead of 3' in said[1]


def test_a_path_that_orbax_takes_for_a_pattern_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'run\[1\]: the path of a run must not contain \[ \]'):
        open_checkpoints(epath.Path(tmp_path / 'run[1]'), 2)


def test_a_step_that_cannot_be_read_back_gets_no_manifest(tmp_path, monkeypatch):
    checkpoints = open_checkpoints(epath.Path(tmp_path), 2)
    commit = checkpoints.checkpointer.wait_until_finished

    def lose_array():
        commit()
        shutil.rmtree(tmp_path / 'checkpoints' / '1' / 'rest', ignore_errors=True)

    monkeypatch.setattr(checkpoints.checkpointer, 'wait_until_finished', lose_array)
    checkpoints.save(1, on_device(1), {'at': 1})
    with pytest.raises(UserError, match='step 1 could not be saved'):
        checkpoints.wait()
    assert checkpoints.steps() == []
    monkeypatch.undo()
    checkpoints.close()


@pytest.mark.parametrize('commit_file', [False, True])
def test_saving_over_leftovers_without_restore(tmp_path, commit_file):
    (tmp_path / 'checkpoints' / '1' / 'weights' / 'd').mkdir(parents=True)
    (tmp_path / 'checkpoints' / '1' / 'weights' / 'd' / 'half').write_text('half')
    (tmp_path / 'checkpoints' / f'1{manifests.TEMPORARY_SUFFIX}').mkdir()
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
    """Step 3 becomes the best and only one; 1, the best so far, and 2 go: whichever change is the last."""
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
    lines = (line.split() for line in process.stdout if line.startswith(('READY', 'SAVING')))
    began = int(next(lines)[1])
    for _ in range(random_time.randint(2, 7)):
        next(lines)
    time.sleep(random_time.uniform(0, 0.15))  # about what a save takes
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return began


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    moments, reached = random.Random(0), 0
    for commit_file in (False, True, False, True):
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
    assert reached >= 4


# Another store.


def test_records_on_a_store_without_rename(tmp_path, monkeypatch):
    """The same on gs:// with an in-memory store behind it; Orbax's own part there is its commit file."""
    memory = pytest.importorskip('fsspec.implementations.memory')

    class Bucket(memory.MemoryFileSystem):
        protocol = 'gcs'
        store, pseudo_dirs = {}, ['']

        @classmethod
        def _strip_protocol(cls, path):
            return '/' + str(path).removeprefix('gs://').strip('/')

    monkeypatch.setattr(type(backend.fsspec_backend), '_get_filesystem', lambda self, name: Bucket())
    monkeypatch.setattr('etils.epath.gpath._is_tf_installed', lambda: False)
    folder = epath.Path('gs://bucket/run')
    save_steps(tmp_path, 1, 2, 3, best=1)

    def upload(step):
        for name in manifests.files(epath.Path(tmp_path / 'checkpoints' / str(step))):
            file = manifests.arrays_path(folder, step) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes((tmp_path / 'checkpoints' / str(step) / name).read_bytes())

    assert manifests.find_good(folder, manifests.finished_steps(folder), None, False) == (None, {})
    for step in (1, 2, 3, 4):
        upload(min(step, 3))
        if step < 4:
            manifests.write_manifest(folder, manifests.make_manifest(folder, step, {'at': step}, step == 1))
    (manifests.arrays_path(folder, 4) / 'weights').mkdir(parents=True)
    (manifests.arrays_path(folder, 4) / 'weights' / 'half').write_bytes(b'half')
    (manifests.arrays_path(folder, 3) / 'rest' / 'manifest.ocdbt').write_bytes(b'other')
    finished, unfinished = manifests.finished_steps(folder), manifests.unfinished_steps(folder)
    assert (finished, unfinished, manifests.best_step(folder)) == ([1, 2, 3], [4], 1)
    record, damaged = manifests.find_good(folder, finished, None, False)
    assert record.step == 2 and list(damaged) == [3]
    said = []
    manifests.clear(folder, record.step, damaged, unfinished, said.append)
    assert len(said) == 2 and 'gs://bucket/run/damaged/3' in said[0]
    assert (folder / 'damaged' / '3' / 'rest' / 'manifest.ocdbt').read_bytes() == b'other'
    assert manifests.finished_steps(folder) == [1, 2] and manifests.unfinished_steps(folder) == []
    upload(3)
    manifests.write_manifest(folder, manifests.make_manifest(folder, 3, {}, False))
    manifests.retire(folder, keep_last=1)
    assert manifests.finished_steps(folder) == [1, 3] and not manifests.arrays_path(folder, 2).exists()
    assert json.loads(manifests.manifest_path(folder, 3).read_text())['step'] == 3
