"""The program that fetches data sets, the flag that forbids it, and the table of what each config reads."""

import os
import pathlib
import subprocess
import sys

import pytest

from launch import data_table, flags
from launch import fetch as program

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path):
    """A mirror with TREC alone, and an empty cache."""
    files = {'trec_questions/TREC.test': b'not the official file'}
    for path, content in files.items():
        (tmp_path / 'mirror' / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'mirror' / path).write_bytes(content)
    ours = {key: value for key, value in os.environ.items() if not key.startswith('TESSERA_')}
    return ours | {'TESSERA_MIRROR': str(tmp_path / 'mirror'), 'XDG_CACHE_HOME': str(tmp_path / 'cache')}


def called(command, environment):
    return subprocess.run(
        [sys.executable, '-m', *command.split()], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )


@pytest.mark.slow
def test_names_are_checked_and_a_failure_is_one_message(environment):
    wrong = called('launch.fetch sst3', environment)
    assert wrong.returncode == 1 and "'sst3' is unknown; did you mean 'sst2'?" in wrong.stderr
    failed = called('launch.fetch trec', environment)
    assert failed.returncode == 1 and 'there is no file' in failed.stderr and 'Traceback' not in failed.stderr
    listed = called('launch.fetch --list', environment)
    assert listed.returncode == 0 and 'fashion_mnist       31 MB' in listed.stdout


def test_training_does_not_fetch_where_it_is_forbidden(environment, tmp_path):
    run = called(f'launch.train --config=configs/trec.py --nofetch --workdir={tmp_path}/run', environment)
    assert run.returncode == 1 and 'fetching is switched off (--nofetch)' in run.stderr
    assert 'TREC.train: https://raw.githubusercontent.com/' in run.stderr and 'Traceback' not in run.stderr


def test_only_a_main_that_reads_names_takes_them(capsys):
    assert flags.parse(['fetch', 'sst2'], takes_names=True) == ['fetch', 'sst2']
    with pytest.raises(SystemExit):
        flags.parse(['train', 'sst2'])
    assert 'not understood: sst2' in capsys.readouterr().err
    with pytest.raises(ValueError, match='name the data sets'):
        program.main({}, [])


def test_the_table_of_the_documents_is_up_to_date():
    written = (ROOT / data_table.DOCUMENT).read_text(encoding='utf-8')
    assert written == data_table.document(), 'run python -m launch.data_table'
    assert '| `configs/sst2.py` | `sst2` | 1.0 MB |' in written
    assert '| `configs/digits.py` | `digits` | nothing |' in written
