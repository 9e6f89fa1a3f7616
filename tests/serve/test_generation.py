"""Texts of a served language model: streams, settings, cancelled clients, deadlines, and equality with `predict`."""

import concurrent.futures
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

pytest.importorskip('fastapi', reason='needs the extra serve')
pytest.importorskip('uvicorn', reason='needs the extra serve')

from serve_toy import SLOTS, Running, running, tiny_model  # noqa: E402

FREE = {'temperature': 1.0, 'top_p': 1.0, 'top_k': 0}


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One language model for the tests of this module."""
    folder: pathlib.Path = tmp_path_factory.mktemp('lm')
    with running({'lm': tiny_model('configs/python_lm.py', folder)}) as server:
        yield server


def generate(served: Running, text: str, **settings: Any) -> httpx.Response:
    """Asks for a text at once."""
    body = {'inputs': {'text': text}, 'stream': False, **settings}
    return served.client.post('/models/lm/generate', json=body)


def stream(served: Running, text: str, **settings: Any) -> list[Any]:
    """The events of a stream."""
    events = []
    with served.client.stream('POST', '/models/lm/generate', json={'inputs': {'text': text}, **settings}) as response:
        assert response.headers['content-type'].startswith('text/event-stream')
        for line in response.iter_lines():
            if line:
                assert line.startswith('data: ')
                events.append(json.loads(line[6:]) if line != 'data: [DONE]' else 'done')
    return events


def idle(served: Running, seconds: float = 5.0) -> bool:
    """Whether all slots become free soon."""
    engine, hosted = served.hosted.engine, served.hosted
    assert engine is not None
    until = time.monotonic() + seconds
    while engine.running or engine.waiting or hosted.gate.running or hosted.admission.total:
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def test_a_stream_has_the_text_and_the_tokens_of_the_whole_answer(served: Running) -> None:
    settings = {'seed': 3, 'max_tokens': 12, 'top_logprobs': 2, **FREE}
    events = stream(served, 'import os', **settings)
    whole = generate(served, 'import os', **settings).json()
    assert events[-1] == 'done' and events[-2]['finish'] == whole['finish']
    assert ''.join(event['text'] for event in events[:-1]) == whole['text']
    tokens = [token for event in events[:-1] for token in event['tokens']]
    assert tokens == whole['tokens'] and 1 <= len(tokens) <= 12
    assert all(len(token['top']) == 2 and token['logprob'] <= 0 for token in tokens)


def test_predict_is_the_offline_prediction_bit_for_bit_alone_and_in_company(served: Running) -> None:
    prompts = ['import os', 'x', 'def f(', 'class A', 'for', 'if x', 'a = ']
    offline = [served.hosted.model.predict([{'text': text}], seed=7)[0] for text in prompts]

    def ask(text: str) -> Any:
        return served.client.post('/models/lm/predict', json={'inputs': {'text': text}, 'seed': 7}).json()['answer']

    assert ask(prompts[0]) == offline[0]
    with concurrent.futures.ThreadPoolExecutor(7) as pool:
        assert list(pool.map(ask, prompts)) == offline


def test_predict_takes_settings(served: Running) -> None:
    body = {'inputs': {'text': 'import os'}, 'seed': 3, 'settings': {'max_tokens': 5, **FREE}}
    answer = served.client.post('/models/lm/predict', json=body).json()['answer']
    assert answer['text'].endswith(generate(served, 'import os', seed=3, max_tokens=5, **FREE).json()['text'])


@pytest.mark.parametrize(
    ('settings', 'field'),
    [
        ({'max_tokens': 0}, 'max_tokens'), ({'max_tokens': 2.5}, 'max_tokens'), ({'temperature': -1}, 'temperature'),
        ({'temperature': 1e9}, 'temperature'), ({'top_p': 0}, 'top_p'), ({'top_p': 1.1}, 'top_p'),
        ({'top_k': -1}, 'top_k'), ({'top_logprobs': 21}, 'top_logprobs'), ({'stop': ['a'] * 5}, 'stop'),
        ({'stop': ['']}, 'stop'), ({'stop': ['a' * 65]}, 'stop'), ({'stop': 'a'}, 'stop'),
        ({'regex': '(a+)+'}, 'regex'), ({'seed': -1}, 'seed'), ({'stream': 'maybe'}, 'stream'),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(served: Running, settings: Any, field: str) -> None:
    response = generate(served, 'a', **settings)
    assert response.status_code == 422
    assert field in response.json()['error']['field']


def test_a_stop_string_ends_the_text(served: Running) -> None:
    whole = generate(served, 'import os', seed=1, max_tokens=20, **FREE).json()['text']
    stop = whole[3:5]
    cut = generate(served, 'import os', seed=1, max_tokens=20, stop=[stop], **FREE).json()
    assert cut['finish'] == 'stop' and cut['text'] == whole[: whole.index(stop)]


def test_clients_that_leave_free_their_slots(served: Running) -> None:
    body = {'inputs': {'text': 'a'}, 'max_tokens': 10_000, **FREE}
    for streams in (True, False):
        clients = [httpx.Client(base_url=served.url, timeout=0.3) for _ in range(2 * SLOTS)]

        def leave(client: httpx.Client, streams: bool = streams) -> None:
            try:
                with client.stream('POST', '/models/lm/generate', json={**body, 'stream': streams}) as response:
                    next(response.iter_lines())
            except httpx.HTTPError:
                pass
            client.close()

        with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
            list(pool.map(leave, clients))
        assert idle(served)
    assert generate(served, 'a', max_tokens=2).status_code == 200


def test_deadlines_end_a_text_and_a_wait(served: Running) -> None:
    headers = {'X-Timeout-Ms': '1'}
    body = {'inputs': {'text': 'a'}, 'stream': False}
    response = served.client.post('/models/lm/generate', json=body, headers=headers)
    assert response.status_code in (503, 504) and response.headers['retry-after']
    assert idle(served)


def test_metrics_count_tokens(served: Running) -> None:
    count = len(generate(served, 'import os', max_tokens=6, **FREE).json()['tokens'])
    lines = [line for line in served.client.get('/metrics').text.splitlines() if not line.startswith('#')]
    values = {name: float(value) for name, _, value in (line.rpartition(' ') for line in lines)}
    assert values['tessera_tokens_total{kind="generated",model="lm"}'] >= count
    assert values['tessera_slots{model="lm",state="free"}'] == SLOTS
    assert values['tessera_time_to_first_token_seconds_count{model="lm"}'] > 0
    assert json.loads(served.lines[-1])['tokens'] == count
