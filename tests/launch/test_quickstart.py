"""The set-up: what a newcomer sees when something is missing, and that a second run starts at once.

Everything runs on a made-up project of two lines in a temporary folder, without a network.
"""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import quickstart

ROOT = Path(__file__).parent.parent.parent
CLOSED = 'http://127.0.0.1:9/simple'  # the discard port: connections are refused at once


def make_project(root: Path) -> Path:
    """Writes a copy of the set-up beside the metadata of an empty project."""
    (root / 'launch').mkdir(parents=True)
    for name in ('quickstart.py', 'quickstart.sh'):
        shutil.copy(ROOT / 'launch' / name, root / 'launch' / name)
    (root / 'pyproject.toml').write_text('[build-system]\nrequires = ["setuptools>=64"]\n')
    (root / 'setup.cfg').write_text('[metadata]\nname = made_up\n[options.extras_require]\ntest = pytest\n')
    return root


@pytest.fixture
def project(tmp_path) -> Path:
    return make_project(tmp_path / 'project')


def environment(**extra: str) -> dict[str, str]:
    """Returns the environment variables without what this machine says about pip."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(('PIP_', 'TESSERA_', 'PYTHON'))}
    return {**kept, 'PIP_CONFIG_FILE': os.devnull, 'PIP_INDEX_URL': CLOSED, 'PIP_RETRIES': '1', **extra}


def start(project: Path, *flags: str, before: str = '', **extra: str) -> subprocess.CompletedProcess:
    """Runs quickstart.py, with the statements `before` executed first in the same interpreter."""
    file = project / 'launch' / 'quickstart.py'
    program = f'import runpy, sys\n{before}\nrunpy.run_path({str(file)!r}, run_name="__main__")'
    command = [sys.executable, '-c', program, *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment(**extra))


def the_sentence(done: subprocess.CompletedProcess) -> str:
    """Returns the one line on stderr of a program that failed without a stack trace."""
    assert done.returncode not in (0, 2), done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith('quickstart: ')
    return line


def fill(venv: Path, root: Path, extras=(), **changes) -> None:
    """Makes `venv` look complete for a project at `root`: a stamp, and this interpreter in its place."""
    program = quickstart.python_of(venv)
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, 'ROOT', root)
        stamp = quickstart.fingerprint(venv)
    stamp = {**stamp, 'made': True, 'complete': True, 'extras': list(extras), **changes}
    (venv / quickstart.STAMP).write_text(json.dumps(stamp))


@pytest.fixture
def in_project(project, monkeypatch) -> Path:
    """The made-up project as the one that this process sets up."""
    monkeypatch.setattr(quickstart, 'ROOT', project)
    monkeypatch.delenv('TESSERA_VENV', raising=False)  # or these tests would work on the real environment
    return project


# --- what is missing -----------------------------------------------------------------------------------


def test_an_old_python_can_parse_the_file():
    ast.parse((ROOT / 'launch' / 'quickstart.py').read_text(), feature_version=(3, 6))


@pytest.mark.parametrize('version', [(3, 6, 1), (3, 10, 4), (3, 14, 0)])
def test_an_unfit_python_is_told_which_ones_fit(project, version):
    sentence = the_sentence(start(project, before=f'sys.version_info = {version}'))
    assert 'runs on Python 3.11, 3.12 and 3.13' in sentence
    assert 'is Python {}.{};'.format(*version) in sentence and 'PYTHON=' in sentence


def test_a_missing_venv_module(project):
    sentence = the_sentence(start(project, '--setup_only', before='sys.modules["ensurepip"] = None'))
    assert 'has no module venv' in sentence and 'apt install python3-venv' in sentence


def test_no_network(project):
    sentence = the_sentence(start(project, '--setup_only'))
    assert 'the package index cannot be reached' in sentence and 'PIP_INDEX_URL' in sentence
    assert 'Connection refused' in (project / '.venv' / 'install.log').read_text()
    assert json.loads((project / '.venv' / quickstart.STAMP).read_text())['complete'] is False


def test_a_full_disk_is_seen_before_anything_is_written(in_project, monkeypatch, capsys):
    usage = shutil.disk_usage(in_project)._replace(free=3 * 10**8)
    monkeypatch.setattr(quickstart.shutil, 'disk_usage', lambda path: usage)
    monkeypatch.setattr(sys, 'argv', ['quickstart.py', '--setup_only'])
    assert quickstart.main() == 1
    assert 'the disk is too full: the installation needs 1.6' in capsys.readouterr().err
    assert not (in_project / '.venv').exists()


@pytest.mark.parametrize(
    ('output', 'reason'),
    [
        ('ERROR: Could not install: [Errno 28] No space left on device', 'the disk is full'),
        ('ERROR: No matching distribution found for jax>=0.10', 'lacks a package'),
        ('  error: command gcc failed', 'command gcc failed'),
        ('', 'it gave no reason'),
    ],
)
def test_the_reason_is_read_from_what_pip_printed(in_project, monkeypatch, capsys, output, reason):
    def failing(command, log=None):
        log.write(output.encode())
        return 1

    fill(in_project / '.venv', in_project, complete=False)
    monkeypatch.setattr(quickstart, 'call', failing)
    monkeypatch.setattr(sys, 'argv', ['quickstart.py'])
    assert quickstart.main() == 1
    assert reason in capsys.readouterr().err


def test_an_unknown_extra_names_the_known_ones(project):
    sentence = the_sentence(start(project, '--extras=tset'))
    assert 'there is no extra tset; choose from test' in sentence


def test_a_folder_that_is_not_ours_is_never_emptied(project):
    (project / 'mine').mkdir()
    (project / 'mine' / 'thesis.txt').write_text('years of work')
    sentence = the_sentence(start(project, '--setup_only', f'--venv={project / "mine"}'))
    assert 'exists and is not a working environment' in sentence
    assert (project / 'mine' / 'thesis.txt').exists()


# --- a second run --------------------------------------------------------------------------------------


def test_a_complete_environment_needs_nothing(in_project, monkeypatch, capsys):
    fill(in_project / '.venv', in_project, extras=['test'])
    monkeypatch.setattr(sys, 'argv', ['quickstart.py', '--setup_only', '--extras=test'])
    begin = time.monotonic()
    assert quickstart.main() == 0
    assert time.monotonic() - begin < 5
    assert 'is complete: nothing to install' in capsys.readouterr().out


@pytest.mark.parametrize(
    'changes',
    [{'metadata': 'x'}, {'project': '/elsewhere'}, {'complete': False}, {'extras': []}, {'python': '3.10'}],
)
def test_an_environment_made_from_something_else_is_not_complete(in_project, changes):
    venv = in_project / '.venv'
    fill(venv, in_project, **{'extras': ['test'], **changes})
    assert not quickstart.is_complete(venv, {'test'})


def test_an_environment_without_its_interpreter_is_not_complete(in_project):
    fill(in_project / '.venv', in_project)
    quickstart.python_of(in_project / '.venv').unlink()
    assert not quickstart.is_complete(in_project / '.venv', set())


def test_extras_of_an_earlier_installation_are_kept(in_project, monkeypatch):
    venv, commands = in_project / '.venv', []
    fill(venv, in_project, extras=['test'], metadata='of an earlier version')
    monkeypatch.setattr(quickstart, 'call', lambda command, log=None: commands.append(command) or 0)
    quickstart.set_up(venv, set())
    python = str(quickstart.python_of(venv))
    assert commands == [[python, '-m', 'pip', 'install', '--no-input', '--editable', f'{in_project}[test]']]
    assert quickstart.is_complete(venv, {'test'})


def test_an_environment_whose_folder_was_moved_is_made_again(in_project, monkeypatch):
    venv, commands = in_project / '.venv', []
    fill(venv, in_project, environment='/where/it/was')
    monkeypatch.setattr(quickstart, 'call', lambda command, log=None: commands.append(command[2:4]) or 0)
    quickstart.make_environment(venv)
    assert commands == [['-m', 'venv']]
    assert [path.name for path in venv.iterdir()] == [quickstart.STAMP]


def test_the_users_own_environment_is_used_and_stays_theirs(in_project, monkeypatch):
    venv = in_project / 'mine'
    fill(venv, in_project)
    (venv / quickstart.STAMP).unlink()
    monkeypatch.setattr(quickstart, 'call', lambda command, log=None: 0)
    quickstart.set_up(venv, set())
    assert quickstart.is_complete(venv, set())
    monkeypatch.setattr(quickstart, 'version_of', lambda venv: '3.10')
    with pytest.raises(quickstart.Stop, match='is an environment of Python 3.10; remove it'):
        quickstart.make_environment(venv)
    assert quickstart.python_of(venv).exists()


# --- training and its end ------------------------------------------------------------------------------


def test_the_three_trainings_the_judge_and_what_to_type_next(in_project, monkeypatch, capsys):
    commands = []
    fill(in_project / '.venv', in_project)
    monkeypatch.setattr(quickstart, 'call', lambda command: commands.append(command[2:]) or 0)
    monkeypatch.setattr(sys, 'argv', ['quickstart.py'])
    assert quickstart.main() == 0
    assert commands == [
        ['launch.train', '--config=configs/digits.py', '--workdir=runs/digits'],
        ['launch.train', '--config=configs/digits_gan.py', '--workdir=runs/digits_gan'],
        ['launch.train', '--config=configs/python_lm.py', '--workdir=runs/python_lm'],
        ['launch.classify_samples', '--generator=runs/digits_gan', '--classifier=runs/digits', '--count=1000'],
    ]
    printed = capsys.readouterr().out
    assert '[1/4] python -m launch.train --config=configs/digits.py' in printed and '[4/4] 0 s' in printed
    assert str(in_project / 'runs' / 'python_lm' / 'report.html') in printed
    assert 'tessera predict --workdir=' in printed


def test_a_training_that_fails_ends_with_one_sentence(in_project, monkeypatch, capsys):
    fill(in_project / '.venv', in_project)
    monkeypatch.setattr(quickstart, 'call', lambda command: 3)
    monkeypatch.setattr(sys, 'argv', ['quickstart.py'])
    assert quickstart.main() == 1
    assert 'launch.train ended with code 3' in capsys.readouterr().err


CHILD = """
import pathlib, signal, sys, time
def leave(*_):
    pathlib.Path('saved').touch()
    sys.exit(0)
signal.signal(signal.SIGINT, leave)
signal.signal(signal.SIGTERM, leave)
pathlib.Path('ready').touch()
time.sleep(60)
"""


@pytest.mark.skipif(os.name == 'nt', reason='signals of POSIX')
@pytest.mark.parametrize('sent, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_lets_the_training_save(project, sent, code):
    (project / 'launch' / '__init__.py').touch()
    (project / 'launch' / 'train.py').write_text(CHILD)
    fill(project / '.venv', project)
    # a suite in the background ignores SIGINT, and what it starts would too
    heard = 'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])'
    command = [sys.executable, '-c', heard, sys.executable, str(project / 'launch' / 'quickstart.py')]
    pipes = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.PIPE, 'text': True}
    child = subprocess.Popen(command, env=environment(), start_new_session=True, **pipes)
    deadline = time.monotonic() + 30
    while not (project / 'ready').exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    if sent == signal.SIGINT:
        os.killpg(child.pid, sent)  # as a terminal does: to the whole group
    else:
        child.send_signal(sent)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == code
    assert (project / 'saved').exists()
    assert 'Traceback' not in errors


# --- the shell's part ----------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == 'nt', reason='the shell script is for POSIX systems')
class TestShell:
    """quickstart.sh finds a Python that fits."""

    def make_python(self, folder: Path, name: str, version: str) -> None:
        """A stand-in that answers the script's questions as that version and says who it is."""
        folder.mkdir(exist_ok=True)
        major, minor = version.split('.')
        program = folder / name
        program.write_text(
            f'#!/bin/sh\nif [ "$1" = -c ]; then exec {sys.executable} -c "import sys; '
            f'sys.version_info = ({major}, {minor}, 0); $2"; fi\necho "{version} runs $@"\n'
        )
        program.chmod(0o755)

    def run(self, project: Path, path: str, *flags: str, **extra: str) -> subprocess.CompletedProcess:
        command = ['/bin/sh', str(project / 'launch' / 'quickstart.sh'), *flags]
        variables = {'PATH': path, **extra}
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)

    @pytest.fixture
    def tools(self, tmp_path) -> Path:
        """A folder for PATH with `dirname` alone, so that no Python of this machine is found."""
        folder = tmp_path / 'tools'
        folder.mkdir()
        (folder / 'dirname').symlink_to(shutil.which('dirname'))
        return folder

    def test_the_first_that_fits_is_taken(self, project, tools):
        self.make_python(tools, 'python3', '3.9')
        self.make_python(tools, 'python3.12', '3.12')
        done = self.run(project, str(tools), '--setup_only', '--extras=test')
        assert done.stdout == f'3.12 runs {project}/launch/quickstart.py --setup_only --extras=test\n'

    def test_the_users_choice_wins(self, project, tools):
        self.make_python(tools, 'python3', '3.12')
        self.make_python(tools, 'my python', '3.11')
        done = self.run(project, str(tools), PYTHON=str(tools / 'my python'))
        assert done.stdout.startswith('3.11 runs ')
        assert 'is not a program' in the_sentence(self.run(project, str(tools), PYTHON='nowhere'))
