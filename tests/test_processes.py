"""Several processes are one run: the same order of data, the same parameters, checkpoints that fit any number."""

import os
import pathlib
import re
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from contract import ROOT

from research.checkpoint import manifest
from research.checkpoint.store import read_weights
from research.cluster import join as distributed
from research.errors import UserError

CONFIG = 'configs/fashion_mlp.py:tiny'  # scikit-learn's digits; batch norm over devices is tested with the mesh


def free_port() -> int:
    """Returns a port of this machine that nothing listens on."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def start(
    workdir: pathlib.Path, steps: int, number: int = 0, count: int = 1, port: int = 0, timeout: int = 60, every: int = 3
):  # fmt: skip
    """Starts one of `count` processes, each with one device."""
    settings = (
        f'steps={steps}', 'batch_size=12', f'checkpoint_every={every}', 'keep_last=9', 'log_every=1',
        'eval_every=100000', 'eval_split=', 'test_split=', 'sample_every=100000',
    )  # fmt: skip
    flags = [f'--config={CONFIG}', f'--workdir={workdir}', f'--timeout={timeout}']
    flags += ['--config.optimizer.model.schedule=constant', *(f'--config.train.{each}' for each in settings)]
    if count > 1:
        flags += [f'--coordinator=127.0.0.1:{port}', f'--num_processes={count}', f'--process_id={number}']
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONUNBUFFERED': '1', 'JAX_NUM_CPU_DEVICES': '1'}
    command = [sys.executable, '-m', 'launch.train', *flags]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def run(workdir: pathlib.Path, steps: int, count: int = 1) -> list[str]:
    """Runs `count` processes to the end; returns what each printed."""
    port = free_port()
    processes = [start(workdir, steps, number, count, port) for number in range(count)]
    texts = [process.communicate(timeout=240)[0] for process in processes]
    for process, text in zip(processes, texts, strict=True):
        assert process.returncode == 0, text
    return texts


@pytest.mark.slow
def test_two_and_four_processes_equal_one_and_share_checkpoints(tmp_path):
    counts, each = (2, 1, 2, 4, 2), 3  # every change of the number of processes, and a start with several
    run(tmp_path / 'one', each * len(counts))
    for number, count in enumerate(counts):
        texts = run(tmp_path / 'several', each * (number + 1), count)
        assert all('report    ' not in text for text in texts[1:]), 'only process 0 writes and reports'
        assert not number or f'resuming from step {each * number}' in texts[0], texts[0]
        ends = [read_weights(tmp_path / name, each * (number + 1)) for name in ('one', 'several')]
        assert [end['step'] for end in ends] == [each * (number + 1)] * 2
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ends[0]['variables'], ends[1]['variables']
        )


@pytest.mark.slow
def test_a_missing_process_ends_the_others_with_a_message(tmp_path):
    process = start(tmp_path, 3, 0, 2, free_port(), timeout=10)
    text, _ = process.communicate(timeout=90)
    assert process.returncode == 1
    assert 'waiting up to 10 s for the other processes (--coordinator=127.0.0.1' in text, text
    assert 'error: process 1 did not connect within 10 s' in text and 'Traceback' not in text, text
    assert 'step 1/' not in text


def start_all(workdir: pathlib.Path, steps: int, count: int = 2, timeout: int = 60) -> list[subprocess.Popen]:
    port = free_port()
    return [start(workdir, steps, number, count, port, timeout, every=10) for number in range(count)]


def await_step(process: subprocess.Popen, step: int) -> None:
    """Reads the output of process 0 until it has trained `step` steps."""
    for line in process.stdout:
        if (match := re.match(r'step (\d+)/', line)) and int(match[1]) >= step:
            return
    raise AssertionError(f'step {step} was not reached')


def assert_named(process: subprocess.Popen, problem: str) -> None:
    """Asserts that a survivor ended with one message about the dead process and what to do."""
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1, text
    message = text[text.index('error: ') :].splitlines()
    assert message[0].startswith(f'error: {problem}') and len(message) == 2, text
    assert message[1].startswith('Start the same command again in every process: the run in '), text
    assert 'Traceback' not in text and ' @ 0x' not in text and 'PASS' not in text and 'report    ' not in text


@pytest.mark.slow
def test_a_dead_process_is_named(tmp_path):
    processes = start_all(tmp_path, 100_000, timeout=10)
    await_step(processes[0], 5)
    processes[1].kill()
    assert_named(processes[0], 'no heartbeat from process 1 for 10 s')
    processes[1].communicate()


@pytest.mark.slow
def test_a_second_death_is_named_by_the_survivor(tmp_path):
    processes = start_all(tmp_path, 100_000, count=3)
    await_step(processes[0], 5)
    processes[1].kill()
    time.sleep(0.5)
    processes[0].kill()
    assert_named(processes[2], 'process 0 is gone')
    for process in processes[:2]:
        process.communicate()


@pytest.mark.slow
def test_deaths_of_process_0_lose_nothing(tmp_path):
    """Killed while it saves, then killed with process 1: the run equals one that was not killed."""
    workdir, steps = tmp_path / 'killed', 80

    def finish(processes: list[subprocess.Popen]) -> None:
        for process in processes:
            text, _ = process.communicate(timeout=120)
            assert process.returncode == 0, text

    processes = start_all(workdir, steps)
    await_step(processes[0], 15)
    while processes[0].poll() is None and not list((workdir / 'checkpoints').glob('*tmp*')):
        time.sleep(0.001)
    processes[0].kill()
    assert_named(processes[1], 'process 0 is gone')

    processes = start_all(workdir, steps)
    await_step(processes[0], max(manifest.finished_steps(workdir), default=0) + 12)
    for process in processes[::-1]:
        process.kill()
        time.sleep(0.3)

    finish(start_all(workdir, steps))
    finish(start_all(tmp_path / 'whole', steps))
    ends = [read_weights(folder, steps) for folder in (workdir, tmp_path / 'whole')]
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_clusters_are_recognised():
    assert distributed.cluster({}) == ''
    assert distributed.cluster({'SLURM_NTASKS': '4', 'SLURM_PROCID': '1'}) == 'SLURM'
    assert distributed.cluster({'SLURM_NTASKS': '1', 'SLURM_PROCID': '0'}) == ''
    assert distributed.cluster({'TPU_WORKER_HOSTNAMES': 'a,b'}) == 'a TPU pod'
    assert distributed.cluster({'TPU_WORKER_HOSTNAMES': 'localhost'}) == ''
    assert 'JobSet' in distributed.cluster({'JOBSET_NAME': 'x', 'JOB_COMPLETION_INDEX': '0'})
    with pytest.raises(UserError, match="SLURM_NTASKS must be a whole number .* got 'x'"):
        distributed.cluster({'SLURM_NTASKS': 'x'})


def test_flags_that_do_not_go_together():
    with pytest.raises(UserError, match='belong together'):
        distributed.start('127.0.0.1:1', 2, -1, 10)
    with pytest.raises(UserError, match='must be below'):
        distributed.start('127.0.0.1:1', 2, 2, 10)
    with pytest.raises(UserError, match='give HOST:PORT'):
        distributed.start('somewhere', 2, 1, 10)
