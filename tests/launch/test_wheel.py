"""The wheel owns one top-level name, and its command works from any folder."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest
from contract import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> pathlib.Path:
    """A folder with what the wheel holds, built without a network."""
    pytest.importorskip('setuptools')
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'  # setuptools leaves its build beside setup.py
    source.mkdir()
    for name in ('research', 'launch', 'configs', 'setup.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
        (source / name).symlink_to(ROOT / name)
    pip = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation']
    done = subprocess.run([*pip, '-w', str(folder), str(source)], text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / 'site')
    return folder / 'site'


def run(installed, *arguments, cwd):
    environment = {**os.environ, 'PYTHONPATH': str(installed), 'JAX_PLATFORMS': 'cpu'}
    code = 'from research.program import main; main()'
    return subprocess.run(
        [sys.executable, '-c', code, *arguments], cwd=cwd, env=environment, text=True, capture_output=True
    )


def test_one_top_level_name_and_the_files_that_are_no_code(installed):
    assert {path.name for path in installed.iterdir() if not path.name.endswith('.dist-info')} == {'research'}
    files = ('py.typed', 'report/report.css', 'report/templates/page.html', 'data/sets/samples/chinese.tsv',
             'launch/train.py', 'configs/digits.py')  # fmt: skip
    for name in files:
        assert (installed / 'research' / name).is_file(), name


def test_the_command_trains_and_predicts_from_any_folder(installed, tmp_path):
    done = run(installed, 'train', '--config=configs/digits.py:tiny', '--workdir=runs/digits', cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / 'runs' / 'digits' / 'report.html').is_file()
    done = run(installed, 'evaluate', '--workdir=runs/digits', '--split=validation', cwd=tmp_path)
    assert done.returncode == 0 and 'accuracy' in done.stdout, done.stdout + done.stderr


def test_help_lists_the_programs(installed, tmp_path):
    done = run(installed, '--help', cwd=tmp_path)
    assert done.returncode == 0 and 'check_data' in done.stdout, done.stdout + done.stderr
