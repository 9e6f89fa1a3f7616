"""Killed at any moment, a run ends with the same bits as one that was never interrupted."""

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from contract import ROOT, assert_equal

from research.checkpoint.store import finished_steps, read_weights

CONFIGS = ('configs/digits.py', 'configs/digits_gan.py', 'configs/python_lm.py')
STEPS = 20


def start(config: str, workdir: pathlib.Path, steps: int = STEPS) -> subprocess.Popen:
    """Starts a training of a tiny config that saves at every second step."""
    flags = [
        f'--config={config}:tiny',
        f'--workdir={workdir}',
        f'--config.train.steps={steps}',
        '--config.train.checkpoint_every=2',
        '--config.train.eval_every=10',
        '--config.train.log_every=1',
        '--config.train.sample_every=10',
    ]
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONUNBUFFERED': '1'}
    return subprocess.Popen(
        [sys.executable, '-m', 'launch.train', *flags],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(config: str, workdir: pathlib.Path) -> str:
    """Runs to the end and returns what was printed."""
    process = start(config, workdir)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    return text


def kill_after(process: subprocess.Popen, line: int, pause: float) -> None:
    """Kills a run some milliseconds after it printed a number of lines about its steps."""
    seen = 0
    for text in process.stdout:
        seen += text.startswith('step ')
        if seen >= line:
            break
    time.sleep(pause)
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize('config', CONFIGS)
def test_kill_at_random_moments_changes_no_bit(config, tmp_path):
    seed = int(os.environ.get('TESSERA_KILL_SEED', random.randrange(10**6)))
    print(f'TESSERA_KILL_SEED={seed} repeats these kill points')
    rng = random.Random(seed)
    finish(config, tmp_path / 'whole')
    kill_after(start(config, tmp_path / 'killed'), rng.randrange(1, 16), rng.random() * 0.2)
    finish(config, tmp_path / 'killed')
    whole, killed = read_weights(tmp_path / 'whole'), read_weights(tmp_path / 'killed')
    assert whole['step'] == killed['step'] == STEPS
    assert_equal((whole['variables'], whole['ema']), (killed['variables'], killed['ema']))
    values = [json.loads((tmp_path / name / 'metrics.json').read_text()) for name in ('whole', 'killed')]
    for split in values[0]:
        rows = [each[split]['metrics'] for each in values]
        assert {k: v['value'] for k, v in rows[0].items()} == {k: v['value'] for k, v in rows[1].items()}
    records = [
        [json.loads(line) for line in (tmp_path / name / 'metrics.jsonl').read_text().splitlines()]
        for name in ('whole', 'killed')
    ]
    steps = [[(record['step'], record['kind']) for record in each] for each in records]
    assert steps[0] == steps[1]  # the curve has neither holes nor doubles
    np.testing.assert_array_equal(
        [record['values'].get('loss', 0) for record in records[0]],
        [record['values'].get('loss', 0) for record in records[1]],
    )


@pytest.mark.slow
def test_sigterm_saves_and_ends_cleanly_and_the_same_command_goes_on(tmp_path):
    process = start(CONFIGS[0], tmp_path, steps=100_000)
    for text in process.stdout:
        if text.startswith('step 5/'):
            break
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and 'resumes from here' in text
    assert re.search(r'stopped at step [\d,]+ by SIGTERM', text)
    saved = finished_steps(tmp_path)[-1]
    assert saved >= 5 and read_weights(tmp_path)['step'] == saved
    process = start(CONFIGS[0], tmp_path, steps=saved + 3)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and f'resuming from step {saved:,}' in text
    assert finished_steps(tmp_path)[-1] == saved + 3
