"""The secure defaults of the server, each as a test; hostile requests are in test_hostile.py."""

import ast
import asyncio
import json
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip('fastapi', reason='needs the extra serve')
pytest.importorskip('uvicorn', reason='needs the extra serve')

from serve_toy import Running, running, toy_model, toy_task  # noqa: E402

from research.core.task import Input  # noqa: E402
from research.serve import limits, security  # noqa: E402
from research.serve.errors import RequestError, content  # noqa: E402
from research.serve.settings import Phase, ServerSettings  # noqa: E402

ROOT = pathlib.Path(__file__).parent.parent.parent
TOKEN = b'a-token-of-32-characters-for-tests'


@pytest.fixture(scope='module')
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that wants a token, with a name of its own and a model that can be slow."""

    def decode(outputs: Any) -> Any:
        time.sleep(0.5 * float(outputs['scores'][0] == 4))
        return {'length': float(outputs['scores'][0])}

    model = toy_model(tmp_path_factory.mktemp('toy'), toy_task()._replace(decode=decode))
    with running({'toy': model}, token=TOKEN, allowed_hosts=('models.example',), queue=4) as server:
        yield server


def ask(served: Running, text: str = 'a', **headers: str) -> httpx.Response:
    """Asks for one answer."""
    return served.client.post('/models/toy/predict', json={'inputs': {'text': text}}, headers=headers)


def test_a_token_is_needed_everywhere_but_for_health_and_the_page(guarded: Running) -> None:
    assert ask(guarded).status_code == 200
    with httpx.Client(base_url=guarded.url) as stranger:
        for path in ('/models', '/models/toy', '/metrics', '/openapi.json', '/v2/models/toy', '/nothing'):
            response = stranger.get(path)
            assert response.status_code == 401 and response.headers['www-authenticate'] == 'Bearer', path
        for path in ('/health', '/health/live', '/v2/health/live', '/v2/health/ready', '/'):
            assert stranger.get(path).status_code == 200, path
        for value in (
            'Bearer wrong',
            'Bearer',
            f'Basic {TOKEN.decode()}',
            'Bearer \xff\xfe',
            f'Bearer {TOKEN.decode()}x',
        ):
            headers = {b'Authorization': value.encode('latin-1')}
            assert stranger.get('/models', headers=headers).status_code == 401  # pyright: ignore[reportArgumentType]
        assert stranger.get(f'/models?token={TOKEN.decode()}').status_code == 401  # never in an address


def test_tokens_are_compared_in_constant_time() -> None:
    source = (ROOT / 'research' / 'serve' / 'security.py').read_text(encoding='utf-8')
    assert 'hmac.compare_digest' in source
    assert not re.search(r'token\s*(==|!=)', source)


def test_names_of_this_server(guarded: Running) -> None:
    for host, status in (('models.example', 200), ('MODELS.example:99', 200), ('localhost', 200), ('[::1]:5', 200),
                         ('example', 421), ('models.example.evil', 421), ('127.0.0.1.evil', 421)):  # fmt: skip
        assert ask(guarded, Host=host).status_code == status, host
    assert ask(guarded, Origin='https://models.example').status_code == 200
    assert ask(guarded, Origin='https://evil.example').status_code == 403


def test_every_answer_has_the_headers(guarded: Running) -> None:
    for response in (
        ask(guarded), guarded.client.get('/'), guarded.client.get('/nothing'), guarded.client.get('/metrics'),
        httpx.get(f'{guarded.url}/models'), ask(guarded, Host='evil'),
    ):  # fmt: skip
        policy = response.headers['content-security-policy']
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert 'unsafe' not in policy and 'http' not in policy
        assert response.headers['x-content-type-options'] == 'nosniff'
        assert response.headers['referrer-policy'] == 'no-referrer'
        assert 'server' not in response.headers
        assert not any(name.startswith('access-control') for name in response.headers)
        assert len(response.headers.get_list('x-request-id')) == 1
    assert ask(guarded).headers['cache-control'] == 'no-store'


def test_request_ids_of_clients_are_kept_only_if_they_are_plain(guarded: Running) -> None:
    assert ask(guarded, **{'X-Request-Id': 'job-7.a_B'}).headers['x-request-id'] == 'job-7.a_B'
    for wrong in ('a b', 'a"b', 'x' * 65, 'ü'.encode('latin-1').decode('latin-1')):
        headers = {b'X-Request-Id': wrong.encode('latin-1')}
        response = guarded.client.get('/models', headers=headers)  # pyright: ignore[reportArgumentType]
        assert re.fullmatch(r'[0-9a-f]{16}', response.headers['x-request-id'])


def test_a_deadline_in_the_header_ends_the_wait(guarded: Running) -> None:
    started = time.monotonic()
    response = ask(guarded, 'slow', **{'X-Timeout-Ms': '100'})
    assert response.status_code == 504 and time.monotonic() - started < 5
    assert guarded.hosted.admission.total == 0
    assert 'deadline' in response.json()['error']['message']


def test_a_full_queue_is_429_with_a_time_to_wait(guarded: Running) -> None:
    async def flood() -> list[httpx.Response]:
        headers = {'Authorization': f'Bearer {TOKEN.decode()}'}
        async with httpx.AsyncClient(base_url=guarded.url, headers=headers, timeout=30) as client:
            body = {'inputs': {'text': 'slow'}}
            return await asyncio.gather(*(client.post('/models/toy/predict', json=body) for _ in range(8)))

    answers = asyncio.run(flood())
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 6 and all(int(answer.headers['retry-after']) >= 1 for answer in refused)
    assert 'yours' in refused[0].json()['error']['message']  # one client gets half of a queue of 4
    assert sum(answer.status_code == 200 for answer in answers) == 2


def test_clients_that_leave_are_forgotten(guarded: Running) -> None:
    for _ in range(4):
        with pytest.raises(httpx.ReadTimeout):
            guarded.client.post('/models/toy/predict', json={'inputs': {'text': 'slow'}}, timeout=0.1)
    until = time.monotonic() + 5
    while guarded.hosted.admission.total and time.monotonic() < until:
        time.sleep(0.01)
    assert guarded.hosted.admission.total == 0
    assert any(json.loads(line)['code'] == 499 for line in guarded.lines)


def test_nothing_is_accepted_while_the_server_starts_or_stops(guarded: Running) -> None:
    status = guarded.server.status
    for phase in (Phase.STARTING, Phase.STOPPING):
        status.phase = phase
        try:
            response, health = ask(guarded), guarded.client.get('/health')
        finally:
            status.phase = Phase.READY
        assert response.status_code == 503 and int(response.headers['retry-after']) >= 1
        assert health.status_code == 503 and health.json()['phase'] == phase.value
    assert ask(guarded).status_code == 200


def test_a_bug_is_logged_with_its_number_and_shown_without_details(guarded: Running, monkeypatch: Any) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError('secret /path/of/this/machine')

    monkeypatch.setattr(guarded.hosted, 'finish', broken)
    response = ask(guarded)
    monkeypatch.undo()
    assert response.status_code == 500 and 'secret' not in response.text
    number = response.headers['x-request-id']
    assert number in response.json()['error']['message']
    until = time.monotonic() + 5  # the line comes after the answer
    while not any(number in line and 'secret' in line for line in guarded.lines):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert ask(guarded).status_code == 200


def test_no_request_opens_a_file(guarded: Running, monkeypatch: Any, tmp_path: pathlib.Path) -> None:
    file = tmp_path / 'digit.png'
    file.write_bytes(b'\x89PNG')
    for value in (str(file), f'file://{file}', {'path': str(file)}, {'file': str(file)}, {'url': f'file://{file}'}):
        for name in ('image', 'audio'):
            response = guarded.client.post('/models/toy/predict', json={'inputs': {name: value}})
            assert response.status_code in (400, 422), value
    for module in (ROOT / 'research' / 'serve').rglob('*.py'):
        text = module.read_text(encoding='utf-8')
        assert 'open_files' not in text and 'read_requests' not in text, module.name
    with pytest.raises(RequestError, match='not a text or a path'):
        limits.check_fields({'image': Input('image')}, {'image': str(file)})


def test_the_server_imports_nothing_that_runs_code_of_others() -> None:
    forbidden = {
        'pickle',
        'dill',
        'cloudpickle',
        'marshal',
        'shelve',
        'torch',
        'subprocess',
        'urllib.request',
        'requests',
    }
    for file in [*(ROOT / 'research' / 'serve').rglob('*.py'), ROOT / 'launch' / 'serve.py']:
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ''] if isinstance(node, ast.ImportFrom) else []
            assert not forbidden & set(names), f'{file.name}: {names}'
            if isinstance(node, ast.Name):
                assert node.id not in ('eval', 'exec'), file.name
        text = file.read_text(encoding='utf-8')
        assert 'allow_pickle' not in text and 'StaticFiles' not in text and 'FileResponse' not in text, file.name


async def received(*messages: dict[str, Any], body_seconds: float = 60.0) -> bytes:
    """What `read_body` makes of messages."""
    pending = list(messages)

    async def receive() -> dict[str, Any]:
        if not pending:
            await asyncio.sleep(10)
        return pending.pop(0)

    return await security.read_body(receive, ServerSettings(max_body=100, body_seconds=body_seconds))


def test_bodies_are_limited_while_they_are_read(monkeypatch: Any) -> None:
    monkeypatch.setattr(security, 'MAX_PIECES', 50)
    more = {'type': 'http.request', 'body': b'x' * 40, 'more_body': True}
    assert asyncio.run(received(more, {**more, 'more_body': False})) == b'x' * 80
    with pytest.raises(RequestError, match='larger than the limit') as caught:
        asyncio.run(received(more, more, more, more))
    assert caught.value.status == 413
    with pytest.raises(RequestError, match='too slowly') as caught:
        asyncio.run(received(more, body_seconds=0.05))
    assert caught.value.status == 408
    with pytest.raises(security.Gone):
        asyncio.run(received(more, {'type': 'http.disconnect'}))
    with pytest.raises(RequestError, match='pieces'):
        asyncio.run(received(*[{**more, 'body': b''}] * 60))


def test_limits_of_values() -> None:
    inputs = {'text': Input('text', limit=10), 'free': Input('text'), 'array': Input('array')}
    assert limits.check_fields(inputs, {'text': 'a' * 10, 'free': '中' * 20_000}) == 0
    for raw in ({'text': 'a' * 11}, {'free': 'a ' * 150_000}, {'array': np.zeros(limits.MAX_NUMBERS + 1)}):
        with pytest.raises(RequestError) as caught:
            limits.check_fields(inputs, raw)
        assert caught.value.status == 413 and caught.value.field.startswith('inputs.')


def test_errors_have_the_shape_of_their_path() -> None:
    error = RequestError(404, 'no such model', 'model', 'model_not_found')
    assert content(error, '/models/x') == {
        'error': {'message': 'no such model', 'field': 'model', 'code': 'model_not_found'}
    }
    assert content(error, '/v2/models/x/infer') == {'error': 'no such model'}
    assert content(error, '/v1/models/x') == {'error': 'no such model'}
    assert content(error, '/v1/chat/completions') == {
        'error': {'message': 'no such model', 'type': 'not_found_error', 'param': 'model', 'code': 'model_not_found'}
    }
