"""How programs end: signals, closed pipes, full disks, outputs that lack characters, users without a home."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
from contract import ROOT

import launch.guard
from research import api
from research.cluster import platform, signals
from research.disk import is_disk_full
from research.errors import UserError
from research.locations import run_folder, split_variant

CONFIG = 'configs/digits.py:tiny'


def environment(**changes) -> dict[str, str]:
    """Returns the environment of a program on the CPU; None removes a variable."""
    values = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONUNBUFFERED': '1', 'PYTHONPATH': str(ROOT), **changes}
    return {name: value for name, value in values.items() if value is not None}


def program(body: str, before: Sequence[str] = (), **options) -> subprocess.Popen:
    """Starts a program whose `main` is the given text."""
    lines = ['import launch.flags', 'def main(overrides):', *(f'    {line}' for line in body.split('\n'))]
    code = '\n'.join([*lines, 'launch.flags.run(main, ["program"])'])
    options = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True, **options}
    return subprocess.Popen([*before, sys.executable, '-c', code], cwd=ROOT, **{'env': environment(), **options})


def train(workdir: pathlib.Path, steps: int, **options) -> subprocess.Popen:
    """Starts a training that prints a line for each step."""
    settings = [f'--config.train.{each}' for each in (f'steps={steps}', 'log_every=1', 'eval_every=0')]
    command = [sys.executable, '-m', 'launch.train', f'--config={CONFIG}', f'--workdir={workdir}', *settings]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, **options)


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT', 'SIGHUP'])
def test_a_signal_at_any_time_is_one_message(name):
    process = program('print("ready", flush=True)\nimport time\ntime.sleep(60)')
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + getattr(signal, name) and errors == f'\nstopped by {name}\n'


def test_nohup_stays_in_force():
    process = program(
        'print("ready", flush=True)\nimport time\ntime.sleep(1)\nprint("done")',
        before=['nohup'],
    )
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30)[0] == 'done\n' and process.returncode == 0


def test_a_signal_whose_exception_was_swallowed_stops_the_loop():
    with signals.interruptible():
        try:
            signal.raise_signal(signal.SIGTERM)
        except signals.Interrupted as error:
            assert error.number == signal.SIGTERM
        with signals.stop_requested() as asked:
            assert asked(True) == signal.SIGTERM
    with signals.stop_requested() as asked:
        assert asked(True) == 0
        signal.raise_signal(signal.SIGHUP)
        assert asked(True) == signal.SIGHUP


@pytest.mark.slow
def test_training_saves_when_its_terminal_or_its_reader_goes(tmp_path):
    process = train(tmp_path / 'hangup', 100_000, stderr=subprocess.STDOUT)
    for line in process.stdout:
        if line.startswith('step 3/'):
            break
    process.send_signal(signal.SIGHUP)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGHUP and 'by SIGHUP' in text and 'resumes from here' in text
    process = train(tmp_path / 'pipe', 100_000, stderr=subprocess.PIPE)
    for line in process.stdout:
        if line.startswith('step 3/'):
            break
    process.stdout.close()
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE and 'Traceback' not in process.stderr.read()
    process.stderr.close()
    for name in ('hangup', 'pipe'):
        assert list((tmp_path / name / 'checksums').iterdir())


def test_a_closed_pipe_and_a_full_output_leave_no_trace():
    process = program('import sys\nwhile True: print("x" * 1000)')
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=30) == 128 + signal.SIGPIPE and errors == ''
    process.stderr.close()
    if pathlib.Path('/dev/full').exists():
        with open('/dev/full', 'w') as full:
            process = program('print("answer")', stdout=full)
            _, errors = process.communicate(timeout=30)
        assert process.returncode == 1 and errors.startswith('\nerror: the disk is full\nthe file system of ')
        assert ' free of ' in errors and 'Traceback' not in errors and 'Exception ignored' not in errors


def test_a_full_disk_is_told_with_its_file_and_its_space(tmp_path):
    error = OSError(28, 'No space left on device', str(tmp_path / 'answers.jsonl'))
    text = launch.guard.message(error)
    assert text.startswith(f'{tmp_path}/answers.jsonl: the disk is full\nthe file system of {tmp_path} has ')
    wrapped = ValueError('RESOURCE_EXHAUSTED: write failed: No space left on device')
    assert is_disk_full(wrapped) and is_disk_full(RuntimeError('x').with_traceback(None)) is False
    outer = RuntimeError('the save failed')
    outer.__cause__ = wrapped
    assert 'the disk is full' in launch.guard.message(outer)
    assert launch.guard.message(KeyError('a bug')) == ''


def test_answers_survive_an_output_without_their_characters():
    value = {'text': 'naïve 天气 😀', 'half': '\ud800'}
    process = program(f'import json\nprint(json.dumps({value!r}, ensure_ascii=False))',
                      env=environment(PYTHONIOENCODING='cp1252'), text=False)  # fmt: skip
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert json.loads(output.decode('cp1252')) == value


def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    import jax

    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
    (tmp_path / 'file').write_text('')
    platform.keep_compiled_programs(tmp_path / 'file' / 'compiled')
    monkeypatch.setattr(os, 'getuid', lambda: 54321)  # a folder of somebody else
    platform.keep_compiled_programs(tmp_path / 'compiled')
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.skipif(not hasattr(os, 'getuid') or os.getuid() != 0, reason='only root can become another user')
def test_a_numeric_user_of_a_container_can_start_a_program():
    try:
        process = program('print("ok")', env=environment(HOME=None, JAX_COMPILATION_CACHE_DIR=None), user=54321)
    except PermissionError:
        pytest.skip('another user cannot start this interpreter')
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and output == 'ok\n', errors


def test_paths_as_people_type_them(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setattr('research.locations.STORES', {})  # as if the package of gs:// were installed
    assert str(run_folder('~/runs/x')) == f'{tmp_path}/runs/x' and str(run_folder('gs://bucket/x')) == 'gs://bucket/x'
    assert split_variant('configs/digits.py:tiny') == ('configs/digits.py', 'tiny')
    assert split_variant('digits') == ('digits', '') and split_variant('digits:gpu,vit') == ('digits', 'gpu,vit')
    assert split_variant('C:\\mine\\config.py') == ('C:\\mine\\config.py', '')
    assert split_variant('C:\\mine\\config.py:tiny') == ('C:\\mine\\config.py', 'tiny')
    folder = tmp_path / 'a:b'
    folder.mkdir()
    file = folder / 'mine.py'
    file.write_text((ROOT / 'configs' / 'digits.py').read_text())
    assert split_variant(str(file)) == (str(file), '') and split_variant(f'{file}:tiny') == (str(file), 'tiny')
    assert split_variant('~/a:b/mine') == (f'{folder}/mine', '')
    assert api.read(f'{file}:tiny').task['name'] == 'image_classification'


def test_seeds_below_zero_are_refused_before_anything_is_read():
    with pytest.raises(UserError, match='config.seed: expected a whole number from 0 .*, got -1'):
        api.read(CONFIG, {'seed': '-1'})


def test_metrics_of_a_run_on_a_read_only_disk_are_printed(tmp_path, capsys, monkeypatch):
    from absl import flags

    import launch.evaluate
    from research.core import metrics
    from research.core.evaluate import Evaluation
    from research.core.task import Metric

    class Model:
        config, step, workdir = api.read(CONFIG), 3, tmp_path

        def evaluate(self, split):
            return Evaluation({'accuracy': Metric(0.875)}, 8, 0.1)

    def read_only(*arguments):
        raise OSError(30, 'Read-only file system', str(tmp_path / 'metrics.json.part'))

    flags.FLAGS(['evaluate', f'--workdir={tmp_path}'])
    monkeypatch.setattr(launch.evaluate.research, 'load', lambda *arguments: Model(), raising=False)
    monkeypatch.setattr(metrics, 'write_text', read_only)
    launch.evaluate.main({})
    output = capsys.readouterr()
    assert '0.875' in output.out and 'metrics.json was not updated: Read-only file system' in output.err


@pytest.mark.slow
def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    flags = ['--config=configs/fashion_mlp.py:tiny', f'--workdir={tmp_path}/run', '--config.train.steps=100000']
    flags += ['--config.train.workers=2', '--config.train.eval_every=0', '--config.train.log_every=1']
    command = [sys.executable, '-m', 'launch.train', *flags]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE)
    for line in process.stdout:
        if line.startswith('step 2/'):
            break
    children = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    workers = [pid for pid in children if 'spawn_main' in pathlib.Path(f'/proc/{pid}/cmdline').read_text()]
    assert len(workers) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while alive := [pid for pid in workers if running(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.2)


def running(pid: str) -> bool:
    """Returns whether a process runs; one that only waits for its parent to look does not."""
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told_once(tmp_path):
    settings = {'train.steps': '2', 'train.workers': '2', 'train.eval_every': '0'}
    script = tmp_path / 'script.py'
    script.write_text(
        'import research\n'
        f"research.run(research.read('configs/fashion_mlp.py:tiny', {settings}), {str(tmp_path / 'run')!r})\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=120
    )
    assert done.returncode == 1 and done.stderr.count('Traceback') == 1
    assert "under `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]
