"""The planner as a user starts it, and one real compile for a TPU slice."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


def run(*arguments):
    environment = {name: value for name, value in os.environ.items() if name not in ('JAX_PLATFORMS', 'XLA_FLAGS')}
    command = [sys.executable, '-m', 'launch.plan', *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)


@pytest.mark.slow
@pytest.mark.tpu
@pytest.mark.skipif(not importlib.util.find_spec('libtpu'), reason="needs libtpu: pip install '.[plan]' (Linux)")
def test_the_real_step_compiles_for_a_tpu_slice():
    """Runs in a process of its own: libtpu reads its settings once, and another worker may hold it too."""
    config, mesh = '--config=configs/gpt.py:tiny', '--mesh=fsdp:2,tensor:2'
    done = run(config, '--topology=v5e:2x2', mesh, '--config.mesh.min_shard_size=64', '--search=0', '--json')
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    memory, parameters = report['memory'], report['parameters']
    assert report['exact'] and report['compiler'].startswith('libtpu')
    assert memory['fits'] and memory['usable'] == 15.75 * 2**30
    # two axes of two: large arrays are split in four, those that one axis does not divide in two
    assert parameters < memory['parameters'] < 4 * parameters
    # some versions of libtpu keep all temporaries of so small a step beside HBM
    assert memory['total'] > memory['parameters'] + memory['optimizer']
    assert sum(row['count'] for row in report['collectives'].values()) >= 2 * 2
    assert report['time']['expected'] > 0 and report['notes'] == []
    noise = [line for line in done.stderr.splitlines() if 'compiling' not in line]
    assert not noise, 'libtpu looks for no TPU'


def test_wrong_flags_are_one_message():
    done = run('--config=configs/gpt.py:tiny', '--topology=v5e:8x8', '--mesh=data:8,fsdp:4')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'makes 32 devices and v5e:8x8 has 64 chips' in done.stderr
