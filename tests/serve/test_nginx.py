"""Two servers behind nginx, with the configuration that the documentation prints."""

import contextlib
import re
import shutil
import socket
import subprocess
import time

import httpx
import pytest
from contract import ROOT

pytest.importorskip('uvicorn', reason="the extra 'serve' is not installed")
if not shutil.which('nginx'):
    pytest.skip('nginx is not installed', allow_module_level=True)

from serve_toy import running, toy_model  # noqa: E402

pytestmark = pytest.mark.slow
NAME = 'models.example.org'
PAGES = ('docs/beyond_one_machine.md', 'docs/zh/beyond_one_machine.md')


def printed(page):
    """The configuration on a page."""
    return re.search(r'```nginx\n(.*?)```', (ROOT / page).read_text(encoding='utf-8'), re.S).group(1)


def free_port():
    with contextlib.closing(socket.create_server(('127.0.0.1', 0))) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def nginx(folder, text):
    """Runs nginx with the servers of a configuration."""
    file = folder / 'nginx.conf'
    temporary = ''.join(f'{kind}_temp_path {folder}/{kind};\n' for kind in ('client_body', 'proxy'))
    temporary += ''.join(f'{kind}_temp_path {folder}/{kind};\n' for kind in ('fastcgi', 'uwsgi', 'scgi'))
    file.write_text(
        f'daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n'
        f'http {{\naccess_log off;\n{temporary}{text}}}\n'
    )
    command = ['nginx', '-c', str(file), '-e', str(folder / 'error.log')]
    tested = subprocess.run([*command, '-t'], capture_output=True, text=True, timeout=30)
    assert tested.returncode == 0, tested.stderr
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def test_both_languages_print_the_same_configuration():
    assert printed(PAGES[0]) == printed(PAGES[1])


def test_a_server_that_stops_is_replaced_by_the_other(tmp_path):
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        servers = [
            stack.enter_context(running({'toy': toy_model(tmp_path)}, 300, allowed_hosts=(NAME,)))
            for stack in (first, second)
        ]
        port = free_port()
        text = printed(PAGES[0]).replace('listen 8000', f'listen 127.0.0.1:{port}')
        for number, server in enumerate(servers, 8001):
            text = text.replace(f'127.0.0.1:{number}', f'127.0.0.1:{server.port}')
        folder = tmp_path / 'nginx'
        folder.mkdir()
        with nginx(folder, text), httpx.Client(base_url=f'http://127.0.0.1:{port}', headers={'Host': NAME}) as client:

            def ask(number):
                body = {'inputs': {'text': 'abc', 'count': number}}
                return client.post('/models/toy/predict', json=body, timeout=60)

            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.ConnectError):
                    if client.get('/v2/health/ready').status_code == 200:
                        break
                time.sleep(0.05)
            answers = [ask(number) for number in range(12)]
            assert [answer.json()['answer']['scores'][3] for answer in answers] == list(range(12))
            handled = [sum('/predict' in line for line in server.lines) for server in servers]
            assert sum(handled) == 12 and min(handled) >= 3, handled
            foreign = client.get('/models', headers={'Host': 'elsewhere.example.org'})
            assert foreign.status_code == 421  # the server's own check sees the name that the client used
            first.close()
            assert [ask(number).status_code for number in range(8)] == [200] * 8
