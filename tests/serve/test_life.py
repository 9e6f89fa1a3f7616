"""The life of a server process: refusals to start, signals, and what it prints."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

pytest.importorskip('fastapi', reason='needs the extra serve')
pytest.importorskip('uvicorn', reason='needs the extra serve')

from launch import serve  # noqa: E402
from research.errors import UserError  # noqa: E402
from research.serve.card import config_of, model_name  # noqa: E402
from research.serve.run import open_socket  # noqa: E402

ROOT = pathlib.Path(__file__).parent.parent.parent
SCRIPT = """
import sys, tempfile, time
sys.path[:0] = [{tests!r}, {here!r}]
import jax
jax.config.update('jax_num_cpu_devices', 1)
from serve_toy import toy_task, toy_model, shared_for, hosted_of
from research.serve.run import make_server, open_socket, run_server

def decode(outputs):
    time.sleep(3.0 * (outputs['scores'][0] == 4))
    return {{'length': float(outputs['scores'][0])}}

listener = open_socket('127.0.0.1', 0)
shared = shared_for(listener.getsockname()[1])
models = {{'toy': hosted_of('toy', toy_model(tempfile.mkdtemp(), toy_task()._replace(decode=decode)), shared)}}
say = lambda text: print(text, flush=True)
made = make_server(models, shared.server, shared.metrics, lambda line: None, lambda: say(shared.server.port), say)
run_server(made, listener)
"""


def start() -> tuple[subprocess.Popen, str]:
    """A process with a toy server, and its address."""
    script = SCRIPT.format(tests=str(ROOT / 'tests'), here=str(ROOT / 'tests' / 'serve'))
    process = subprocess.Popen(
        [sys.executable, '-c', script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    )  # fmt: skip
    assert process.stdout
    return process, f'http://127.0.0.1:{process.stdout.readline().strip()}'


def ask(address: str, text: str, answers: list) -> threading.Thread:
    """Asks in a thread."""

    def run() -> None:
        try:
            answers.append(httpx.post(f'{address}/models/toy/predict', json={'inputs': {'text': text}}, timeout=20))
        except httpx.HTTPError as error:
            answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize('twice', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_signal_lets_running_requests_finish_and_a_second_one_does_not(twice: bool) -> None:
    process, address = start()
    answers: list = []
    try:
        thread = ask(address, 'slow', answers)
        time.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert httpx.get(f'{address}/health').status_code == 503
        assert httpx.get(f'{address}/health/live').status_code == 200
        late = httpx.post(f'{address}/models/toy/predict', json={'inputs': {'text': 'late'}})
        assert late.status_code == 503 and late.headers['retry-after']
        if twice:
            process.send_signal(signal.SIGTERM)
        code = process.wait(20)
        thread.join()
    finally:
        process.kill()
    out, errors = process.communicate()
    if twice:
        assert code == 128 + signal.SIGTERM and isinstance(answers[0], httpx.HTTPError)
    else:
        assert code == 0, errors
        assert answers[0].json()['answer'] == {'length': 4.0}
        assert 'stopping when 1 running request' in out and 'stopped' in errors


def test_other_machines_need_a_token(tmp_path: pathlib.Path) -> None:
    for host in ('127.0.0.1', '::1', 'localhost'):
        serve.check_open(host, b'', False)
    with pytest.raises(UserError, match='--token_file'):
        serve.check_open('0.0.0.0', b'', False)
    serve.check_open('0.0.0.0', b'', True)
    serve.check_open('0.0.0.0', b'x' * 16, False)
    file = tmp_path / 'token'
    file.write_text('a-token-of-16-characters\n')
    assert serve.read_token(str(file), {}) == b'a-token-of-16-characters'
    assert serve.read_token('', {'TESSERA_TOKEN': 'another-token-of-16'}) == b'another-token-of-16'
    for text in ('', 'short', 'two words that are long', 'täglich-ein-anderes-token'):
        file.write_text(text, encoding='utf-8')
        with pytest.raises(UserError, match='a token is one word'):
            serve.read_token(str(file), {})


def test_names_of_models() -> None:
    assert serve.named_folders(['runs/Digits GAN/', 'lm=runs/python_lm']) == {
        'digits-gan': 'runs/Digits GAN/', 'lm': 'runs/python_lm',
    }  # fmt: skip
    assert serve.named_folders(['gs://bucket/a=b/run']) == {'run': 'gs://bucket/a=b/run'}
    with pytest.raises(UserError, match='two models are named'):
        serve.named_folders(['a/run', 'b/run'])
    with pytest.raises(UserError, match='--workdir is missing'):
        serve.named_folders([])
    with pytest.raises(UserError, match='NAME=FOLDER'):
        model_name('..')


def test_a_used_port_and_a_foreign_address_are_one_message() -> None:
    with open_socket('127.0.0.1', 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # else asyncio holds small packets back
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f'cannot listen on 127.0.0.1:{port}'):
            open_socket('127.0.0.1', port)
    with pytest.raises(UserError, match='cannot listen on 192.0.2.1'):
        open_socket('192.0.2.1', 8000)


@pytest.mark.parametrize(
    ('command', 'config'),
    [
        (
            'python launch/train.py --config=/home/me/tessera/configs/digits.py:tiny --workdir=x',
            'configs/digits.py:tiny',
        ),
        ('python x --config=configs/tutorials/bert.py', 'configs/tutorials/bert.py'),
        ('python x --config=/secret/place/mine.py', 'mine.py'),
        ('python "x', ''),
        ('', ''),
    ],
)
def test_the_card_names_the_config_without_folders_of_the_machine(command: str, config: str) -> None:
    assert config_of({'command': command}) == config
