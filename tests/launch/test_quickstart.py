"""The quickstart: what a newcomer sees when something is missing, and a second run that starts at once.

Everything runs on an empty project in a temporary folder, without a network.
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


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """An empty project with the quickstart, as the one that this process sets up."""
    root = tmp_path / 'project'
    (root / 'launch').mkdir(parents=True)
    for name in ('quickstart.py', 'quickstart.sh'):
        shutil.copy(ROOT / 'launch' / name, root / 'launch' / name)
    (root / 'pyproject.toml').write_text('[build-system]\nrequires = ["setuptools>=64"]\n')
    (root / 'setup.cfg').write_text('[metadata]\nname = empty\n[options.extras_require]\ntest = pytest\n')
    monkeypatch.setattr(quickstart, 'ROOT', root)
    monkeypatch.delenv('TESSERA_VENV', raising=False)  # or these tests would work on the real environment
    return root


def environment() -> dict[str, str]:
    """The environment variables without settings of pip and Python, and with a package index that is closed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(('PIP_', 'TESSERA_', 'PYTHON'))}
    return {**kept, 'PIP_CONFIG_FILE': os.devnull, 'PIP_INDEX_URL': CLOSED, 'PIP_RETRIES': '1'}


def start(project: Path, *flags: str, before: str = '') -> str:
    """Runs quickstart.py, with the statements `before` executed first; returns its one line on stderr."""
    program = (
        f'import runpy, sys\n{before}\nrunpy.run_path({str(project / "launch/quickstart.py")!r}, run_name="__main__")'
    )
    done = subprocess.run([sys.executable, '-c', program, *flags], capture_output=True, text=True, env=environment())
    assert done.returncode not in (0, 2), done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith('quickstart: ')
    return line


def run(monkeypatch, *flags: str, call=lambda command, log=None: 0) -> int:
    """Runs the quickstart in this process, with `call` in place of child processes."""
    monkeypatch.setattr(quickstart, 'call', call)
    monkeypatch.setattr(sys, 'argv', ['quickstart.py', *flags])
    return quickstart.main()


def fill(monkeypatch, root: Path, **changes) -> Path:
    """Makes .venv look complete with the extra `test`: this interpreter in its place, and a stamp with `changes`."""
    venv = root / '.venv'
    program = venv / quickstart.PROGRAM
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    assert run(monkeypatch, '--setup_only', '--extras=test') == 0
    stamp = venv / quickstart.STAMP
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), 'made': True, **changes}))
    return venv


def test_an_old_python_can_parse_the_file():
    ast.parse((ROOT / 'launch' / 'quickstart.py').read_text(), feature_version=(3, 6))


@pytest.mark.parametrize('version', [(3, 6, 1), (3, 10, 4), (3, 14, 0)])
def test_an_unsupported_python_is_refused_with_the_supported_ones(project, version):
    line = start(project, before=f'sys.version_info = {version}')
    assert 'runs on Python 3.11, 3.12 and 3.13' in line and 'PYTHON=' in line
    assert 'is Python {}.{};'.format(*version) in line


def test_no_venv_module_and_an_unknown_extra(project, monkeypatch, capsys):
    assert run(monkeypatch, call=lambda command, log=None: 1) == 1
    assert 'If the module venv is missing, install it (Debian: apt install python3-venv)' in capsys.readouterr().err
    assert run(monkeypatch, '--extras=tset') == 1
    assert 'there is no extra tset; choose from test' in capsys.readouterr().err


@pytest.mark.slow
def test_no_network(project):
    line = start(project, '--setup_only')
    assert 'the package index cannot be reached' in line and 'PIP_INDEX_URL' in line
    assert 'Connection refused' in (project / '.venv' / 'install.log').read_text()
    assert json.loads((project / '.venv' / quickstart.STAMP).read_text())['complete'] is False


def test_a_full_disk_is_seen_before_anything_is_written(project, monkeypatch, capsys):
    usage = shutil.disk_usage(project)._replace(free=3 * 10**8)
    monkeypatch.setattr(quickstart.shutil, 'disk_usage', lambda path: usage)
    assert run(monkeypatch, '--setup_only') == 1
    assert 'the disk is too full: the installation needs 1.6 GB' in capsys.readouterr().err
    assert not (project / '.venv').exists()


@pytest.mark.parametrize(('output', 'reason'), [
    ('ERROR: Could not install: [Errno 28] No space left on device', 'the disk is full'),
    ('ERROR: No matching distribution found for jax>=0.10', 'lacks a package'),
    ('  error: command gcc failed', 'command gcc failed'),
    ('', 'it gave no reason'),
])  # fmt: skip
def test_the_reason_is_read_from_the_output_of_pip(project, monkeypatch, capsys, output, reason):
    fill(monkeypatch, project, complete=False)
    assert run(monkeypatch, call=lambda command, log: log.write(output.encode()) or 1) == 1
    assert reason in capsys.readouterr().err


def test_an_environment_of_the_user_is_used_and_nothing_of_theirs_is_removed(project, monkeypatch, capsys):
    venv = fill(monkeypatch, project, made=False)  # has installed into it
    monkeypatch.setattr(quickstart, 'version_of', lambda venv: '3.10')
    assert run(monkeypatch) == 1 and 'is an environment of Python 3.10; remove it' in capsys.readouterr().err
    monkeypatch.setattr(quickstart, 'version_of', lambda venv: '')
    assert run(monkeypatch) == 1 and 'exists and is not a working environment' in capsys.readouterr().err
    assert (venv / quickstart.PROGRAM).exists()


@pytest.mark.parametrize('changes', [
    {'metadata': 'x'}, {'project': '/elsewhere'}, {'complete': False}, {'python': '3.10'}, {'environment': '/x'}, {},
])  # fmt: skip
def test_an_incomplete_environment_is_installed_with_its_extras(project, monkeypatch, changes):
    venv, commands = fill(monkeypatch, project, **changes), []
    if not changes:
        (venv / quickstart.PROGRAM).unlink()
    assert run(monkeypatch, '--setup_only', call=lambda command, log=None: commands.append(command) or 0) == 0
    made_again = (
        [[sys.executable, '-I', '-m', 'venv', str(venv)]] if changes in ({}, {'environment': '/x'}) else []
    )
    install = [str(venv / quickstart.PROGRAM), '-m', 'pip', 'install', '--no-input', '--editable', f'{project}[test]']
    assert commands == [*made_again, install]
    assert json.loads((venv / quickstart.STAMP).read_text())['complete']
    assert not made_again or {path.name for path in venv.iterdir()} == {quickstart.STAMP, 'install.log'}


def test_the_three_trainings_the_judge_and_what_to_type_next(project, monkeypatch, capsys):
    fill(monkeypatch, project)
    commands = []
    assert run(monkeypatch, call=lambda command: commands.append(command[2:]) or 0) == 0
    assert commands == [
        *(['launch.train', f'--config=configs/{name}.py', f'--workdir=runs/{name}'] for name in quickstart.RUNS),
        ['launch.classify_samples', '--generator=runs/digits_gan', '--classifier=runs/digits', '--count=1000'],
    ]
    printed = capsys.readouterr().out
    assert '[1/4] python -m launch.train --config=configs/digits.py' in printed and '[4/4] 0 s' in printed
    assert '.venv is complete: nothing to install' in printed
    assert str(project / 'runs' / 'python_lm' / 'report.html') in printed and 'tessera predict --workdir=' in printed
    assert run(monkeypatch, call=lambda command: 3) == 1
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
@pytest.mark.parametrize(('sent', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_lets_the_training_save(project, monkeypatch, sent, code):
    (project / 'launch' / '__init__.py').touch()
    (project / 'launch' / 'train.py').write_text(CHILD)
    fill(monkeypatch, project)
    # a suite in the background ignores SIGINT, and what it starts would too
    program = (
        'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])'
    )
    command = [sys.executable, '-c', program, sys.executable, str(project / 'launch' / 'quickstart.py')]
    child = subprocess.Popen(command, env=environment(), start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (project / 'ready').exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    # a terminal interrupts the whole group
    os.killpg(child.pid, sent) if sent == signal.SIGINT else child.send_signal(sent)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == code and (project / 'saved').exists() and 'Traceback' not in errors


@pytest.mark.skipif(os.name == 'nt', reason='the shell script is for POSIX systems')
def test_the_shell_script_finds_a_supported_python(project, tmp_path):
    tools = tmp_path / 'tools'  # for PATH, so that no Python of this machine is found
    tools.mkdir()
    (tools / 'dirname').symlink_to(shutil.which('dirname'))
    for name, version in (('python3', '3.9'), ('python3.12', '3.12'), ('my python', '3.11')):
        check = f'exec {sys.executable} -c "import sys; sys.version_info = ({version.replace(".", ", ")}, 0); $2"'
        (tools / name).write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then {check}; fi\necho "{version} runs $@"\n')
        (tools / name).chmod(0o755)

    def shell(*flags: str, **variables: str) -> subprocess.CompletedProcess:
        command = ['/bin/sh', str(project / 'launch' / 'quickstart.sh'), *flags]
        return subprocess.run(command, env={'PATH': str(tools), **variables}, capture_output=True, text=True)

    assert shell('--setup_only', '--extras=test').stdout == (
        f'3.12 runs {project}/launch/quickstart.py --setup_only --extras=test\n'
    )
    assert shell(PYTHON=str(tools / 'my python')).stdout.startswith('3.11 runs ')
    assert 'is not a program' in shell(PYTHON='nowhere').stderr
