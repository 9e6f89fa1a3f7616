"""The README's example of a new task works as it is printed, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from contract import ROOT


@pytest.mark.slow
def test_add_a_task_works_word_for_word(tmp_path):
    for name in ('research', 'configs', 'launch'):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__'))
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    section = text.split('## Add a task')[1].split('\n## ')[0]
    files = re.findall(r'```python\n# (\S+)\n(.*?)```', section, re.S)
    assert [path for path, _ in files] == ['research/tasks/line.py', 'configs/line.py']
    for path, code in files:
        (tmp_path / path).write_text(code)
    commands = [line.strip() for line in section.splitlines() if line.startswith('    python -m')]
    assert len(commands) == 3
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(tmp_path)}
    for command in commands:
        command = command.replace('python', sys.executable, 1)
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        if '--workdir=runs/line' in command and 'train' in command:
            assert 'PASS' in done.stdout
        if 'predict' in command:
            assert re.search(r'"y": 2\.[45]', done.stdout)


def test_every_path_in_the_file_map_exists():
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    table = text.split('## Where things are')[1].split('\n## ')[0]
    for path in re.findall(r'^\| `([^`]+)`', table, re.M):
        assert (ROOT / path).exists(), path
