"""Hostile requests against one real server: no error 500, no hang, and the next good request is answered."""

import asyncio
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

pytest.importorskip('fastapi', reason='needs the extra serve')
pytest.importorskip('uvicorn', reason='needs the extra serve')

import uvicorn  # noqa: E402
from hostile import GOOD, HEAD, RAW, Case, http_cases  # noqa: E402
from serve_toy import Running, running, toy_model  # noqa: E402
from uvicorn.server import ServerState  # noqa: E402

from research.serve.protocol import limited  # noqa: E402
from research.serve.settings import ServerSettings  # noqa: E402

SECONDS = 10.0  # for an answer; the machine of the tests is busy


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server with small limits."""
    limits = {'max_body': 2**20, 'head_seconds': 1.0, 'body_seconds': 3.0, 'stalled_seconds': 1.0, 'connections': 40}
    with running({'toy': toy_model(tmp_path_factory.mktemp('toy'))}, **limits) as server:
        yield server


def assert_alive(served: Running) -> None:
    """A good request is answered, and nothing is left in the queue."""
    response = served.client.post('/models/toy/predict', content=GOOD, headers={'Content-Type': 'application/json'})
    assert response.status_code == 200
    assert served.hosted.admission.total == 0


@pytest.mark.parametrize('case', http_cases(), ids=lambda case: case.name)
def test_a_hostile_request_is_refused(served: Running, case: Case) -> None:
    started = time.monotonic()
    headers = {'Content-Type': 'application/json', **case.headers} if case.body else dict(case.headers)
    response = served.client.request(case.method, case.path, content=case.body or None, headers=headers)
    assert response.status_code in case.statuses, response.text[:300]
    assert time.monotonic() - started < SECONDS
    text = response.text
    assert '/work' not in text and 'Traceback' not in text and 'site-packages' not in text
    if response.status_code >= 400 and response.headers['content-type'] == 'application/json':
        assert response.json()['error']
    assert_alive(served)


def talk(served: Running, content: bytes) -> bytes:
    """Sends bytes and returns what comes back until the connection ends or rests."""
    answer = b''
    with socket.create_connection(('127.0.0.1', served.port), timeout=SECONDS) as connection:
        with contextlib.suppress(OSError):  # the server may close while we send
            connection.sendall(content)
        with contextlib.suppress(OSError):
            while part := connection.recv(65536):
                answer += part
                connection.settimeout(0.1)
    return answer


@pytest.mark.parametrize('name', RAW)
def test_hostile_bytes_are_refused(served: Running, name: str) -> None:
    content, statuses = RAW[name]
    started = time.monotonic()
    answer = talk(served, content)
    found = [int(status) for status in re.findall(rb'HTTP/1\.1 (\d{3})', answer)]
    assert (found[0] if found else 0) in statuses, answer[:300]
    assert all(status in statuses or status < 500 for status in found)
    assert time.monotonic() - started < SECONDS
    assert_alive(served)


def test_slow_heads_do_not_keep_others_out(served: Running) -> None:
    slow = []
    for _ in range(30):
        connection = socket.create_connection(('127.0.0.1', served.port))
        connection.sendall(b'GET /health HTTP/1.1\r\nHost: local')
        slow.append(connection)
    assert_alive(served)
    time.sleep(1.2)
    for connection in slow:
        connection.settimeout(5)
        with contextlib.suppress(ConnectionError):
            assert connection.recv(100) == b''  # closed by the server
        connection.close()
    assert_alive(served)


def test_an_idle_connection_and_a_slow_second_head_end(served: Running) -> None:
    with socket.create_connection(('127.0.0.1', served.port), timeout=10) as connection:
        connection.sendall(b'GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n')
        assert b'200 OK' in connection.recv(4096)
        started = time.monotonic()
        with contextlib.suppress(OSError):
            for _ in range(40):
                connection.sendall(b'G')
                time.sleep(0.1)
        assert time.monotonic() - started < 4


def test_connections_of_one_address_are_limited(served: Running) -> None:
    connections = [socket.create_connection(('127.0.0.1', served.port)) for _ in range(60)]
    refused = 0
    for connection in connections:
        connection.settimeout(0.3)
        with contextlib.suppress(OSError):
            answer = connection.recv(400)
            refused += answer.startswith(b'HTTP/1.1 503') and b'Retry-After' in answer
    for connection in connections:
        connection.close()
    assert refused >= 15
    deadline = time.monotonic() + 5
    while True:  # their places are given back
        with contextlib.suppress(httpx.HTTPError):
            if served.client.get('/health').status_code == 200:
                break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert_alive(served)


def test_a_body_that_stops_is_408(served: Running) -> None:
    started = time.monotonic()
    with socket.create_connection(('127.0.0.1', served.port), timeout=10) as connection:
        connection.sendall(HEAD + b'Content-Length: 1000\r\n\r\n{')
        answer = b''.join(iter(lambda: connection.recv(4096), b''))  # until the server closes the connection
    assert b' 408 ' in answer and b'too slowly' in answer
    assert 2 < time.monotonic() - started < SECONDS
    assert_alive(served)


def test_a_client_that_leaves_during_its_body_is_forgotten(served: Running) -> None:
    with socket.create_connection(('127.0.0.1', served.port)) as connection:
        connection.sendall(HEAD + b'Content-Length: 1000\r\n\r\n{')
    assert_alive(served)


class Transport(asyncio.Transport):
    """A connection whose buffers are full."""

    aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The addresses of both ends."""
        return {'peername': ('127.0.0.1', 1), 'sockname': ('127.0.0.1', 2)}.get(name, default)

    def is_closing(self) -> bool:
        """Whether it was aborted."""
        return self.aborted

    def abort(self) -> None:
        """Ends the connection."""
        self.aborted = True


def test_a_client_that_reads_nothing_is_dropped() -> None:
    async def connect(resumes: bool) -> bool:
        protocol_class = limited(ServerSettings(stalled_seconds=0.02))
        config = uvicorn.Config(lambda: None, log_config=None)
        config.load()
        connection, transport = protocol_class(config, ServerState(), {}), Transport()
        connection.connection_made(transport)
        connection.pause_writing()
        if resumes:
            connection.resume_writing()
        await asyncio.sleep(0.06)
        return transport.aborted

    assert asyncio.run(connect(resumes=False))
    assert not asyncio.run(connect(resumes=True))


def test_the_live_probe_answers_while_bodies_are_parsed(served: Running) -> None:
    body = json.dumps({'inputs': {'text': 'a' * 900_000}}).encode()
    headers, slowest = {'Content-Type': 'application/json'}, 0.0

    def flood() -> None:
        with httpx.Client(base_url=served.url, timeout=30) as client:
            for _ in range(5):
                client.post('/models/toy/predict', content=body, headers=headers)

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        started = time.monotonic()
        assert served.client.get('/health/live').status_code == 200
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 2.0
    assert_alive(served)
