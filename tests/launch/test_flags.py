"""The programs' frame: help, wrong flags, and files that cannot be read or written."""

import subprocess
import sys

import pytest
from absl import flags
from contract import ROOT

import launch.flags

PROGRAM = 'from launch.main import main; main()'


@pytest.mark.parametrize(
    'command', [['-m', 'launch.classify_samples'], ['-c', PROGRAM, 'classify_samples']]
)
def test_help_is_printed_once_and_is_no_failure(command):
    done = subprocess.run([sys.executable, *command, '--help'], cwd=ROOT, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('Classifies the samples of a trained generator') == 1 and '--generator' in done.stdout


def test_a_seed_that_jax_cannot_take_is_refused():
    command = [sys.executable, '-m', 'launch.classify_samples', '--seed=3000000000']
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=60)
    assert done.returncode == 1 and '--seed=3000000000' in done.stderr and 'Traceback' not in done.stderr


def test_a_file_that_cannot_be_written_is_one_message(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(launch.flags, 'setup', lambda: None)
    monkeypatch.setattr(launch.flags.app, 'run', lambda main, argv, flags_parser: main(argv))
    flags.FLAGS(['program'])
    (tmp_path / 'x').write_text('')
    with pytest.raises(SystemExit) as ended:
        launch.flags.run(lambda overrides: (tmp_path / 'x').mkdir(), ['program'])
    message = f'\nerror: {tmp_path}/x: a file of this name exists where a folder is needed\n'
    assert ended.value.code == 1 and capsys.readouterr().err == message


def test_the_version_is_printed_and_missing_flags_are_named():
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, '--version'], cwd=ROOT, text=True, capture_output=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout.startswith('tessera 0')
    command = [sys.executable, '-m', 'launch.classify_samples', '--generator=x']
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=60)
    assert done.returncode == 1 and '--classifier is missing' in done.stderr and 'Traceback' not in done.stderr
