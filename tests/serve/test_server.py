"""A real server around a toy model: its own routes, batching, deadlines, fairness, health and metrics."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('fastapi', reason='needs the extra serve')
pytest.importorskip('uvicorn', reason='needs the extra serve')

from serve_toy import Running, running, toy_model, toy_task  # noqa: E402

from research.serve.samples import silence  # noqa: E402


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the tests of this module."""
    with running({'toy': toy_model(tmp_path_factory.mktemp('toy'))}) as server:
        yield server


def png(width: int = 8, height: int = 8, value: int = 51) -> bytes:
    """A grey picture."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width), value, np.uint8)).save(buffer, 'PNG')
    return buffer.getvalue()


def text64(content: bytes) -> str:
    """Base64."""
    return base64.b64encode(content).decode()


def predict(served: Running, inputs: Any, **more: Any) -> httpx.Response:
    """Asks for one answer."""
    return served.client.post('/models/toy/predict', json={'inputs': inputs, **more})


def test_every_kind_of_field_reaches_the_model_and_every_kind_of_output_comes_back(served: Running) -> None:
    inputs = {
        'text': 'four', 'image': text64(png()), 'audio': {'base64': text64(silence(0.5))}, 'count': 7, 'letter': 'c',
        'events': [{'time': 1, 'name': 'x'}, {'time': 2}], 'features': [1, 2, 3.5],
    }  # fmt: skip
    answer = predict(served, inputs, seed=3).json()
    np.testing.assert_allclose(answer['answer']['scores'], [4, 0.2, 8000, 7, 2, 2, 6.5, 0], rtol=1e-6)
    picture, sound = answer['answer']['picture'], answer['answer']['sound']
    assert (picture['type'], picture['media_type'], picture['width'], picture['height']) == ('image', 'image/png', 3, 2)
    assert Image.open(io.BytesIO(base64.b64decode(picture['base64']))).size == (3, 2)
    assert (sound['type'], sound['seconds']) == ('audio', 0.1)
    assert answer['answer']['missing'] is None  # JSON has no NaN
    assert answer['model'] == 'toy' and answer['fingerprint'] == served.hosted.fingerprint
    assert set(answer['milliseconds']) == {'queue', 'compute'}


def test_the_seed_decides_and_equals_the_offline_prediction(served: Running) -> None:
    first, again, other = (predict(served, {'text': 'a'}, seed=seed).json()['answer']['noise'] for seed in (5, 5, 6))
    offline = served.hosted.model.predict([{'text': 'a'}], seed=5)[0]['noise']
    assert first == again == offline
    assert other != first


def test_a_batch_answers_in_order_and_reports_each_error_in_its_place(served: Running) -> None:
    requests = [{'inputs': {'text': 'a' * n}} for n in range(1, 12)] + [{'inputs': {'letter': 'z'}}]
    answers = served.client.post('/models/toy/predict:batch', json={'requests': requests}).json()['answers']
    assert [answer['answer']['scores'][0] for answer in answers[:-1]] == list(range(1, 12))
    assert "'z'" in answers[-1]['error']['message']


def test_the_card_says_what_the_model_is(served: Running) -> None:
    card = served.client.get('/models/toy').json()
    assert served.client.get('/models').json() == {'models': [card]}
    assert card['inputs']['text'] == {'kind': 'text', 'shape': [], 'limit': 2000, 'about': 'a text'}
    assert card['inputs']['events']['items']['name']['kind'] == 'text'
    assert card['examples'] == [{'text': 'abc', 'count': 3}]
    assert card['parameters'] == 64 and card['about'] == 'A toy.'
    assert predict(served, card['examples'][0]).status_code == 200


@pytest.mark.parametrize(
    ('inputs', 'status', 'words'),
    [
        ({'texd': 'a'}, 422, 'texd'),
        ({'text': 5}, 422, 'text'),
        ({'letter': 'z'}, 400, 'letter must be a, b or c'),
        ({'count': 1e9}, 400, 'count must be a whole number'),
        ({'image': '/etc/passwd'}, 400, 'not base64'),
        ({'image': text64(b'no picture')}, 400, 'not a picture'),
        ({'audio': text64(b'no sound at all')}, 400, 'cannot be read as sound'),
        ({'features': [[1], [2, 3]]}, 400, 'lists of equal lengths'),
        ({'text': 'x' * 2001}, 422, 'text'),
        ({'events': [{'tome': 1}]}, 422, 'tome'),
    ],
)
def test_mistakes_are_named(served: Running, inputs: Any, status: int, words: str) -> None:
    response = predict(served, inputs)
    assert response.status_code == status
    error = response.json()['error']
    assert set(error) == {'message', 'field', 'code'} and words in error['message']


def test_unknown_addresses_and_models_are_404(served: Running) -> None:
    assert served.client.get('/models/toi').json()['error']['message'].endswith("did you mean 'toy'?")
    assert served.client.post('/models/toi/predict', json={}).json()['error']['code'] == 'model_not_found'
    assert served.client.get('/nothing').status_code == 404
    assert served.client.get('/models/toy/predict').status_code in (404, 405)
    assert served.client.get('/docs').status_code == 404  # it would need files of other servers


def test_health_metrics_and_log(served: Running) -> None:
    assert served.client.get('/health').json() == {'ready': True, 'phase': 'ready'}
    predict(served, {'text': 'a secret'})
    text = served.client.get('/metrics').text
    assert 'tessera_requests_total{code="200",model="toy",route="/models/toy/predict"}' in text
    assert 'tessera_batch_fill_ratio_count{model="toy"}' in text and 'tessera_compilations_total' in text
    line = json.loads(served.lines[-1])
    assert (line['model'], line['code'], line['route']) == ('toy', 200, '/models/toy/predict')
    assert line['compute'] > 0 and not any('secret' in line for line in served.lines)


def test_nothing_is_compiled_after_ready(served: Running) -> None:
    def compilations() -> float:
        lines = served.client.get('/metrics').text.splitlines()
        return float(next(line for line in lines if line.startswith('tessera_compilations_total')).split()[1])

    before = compilations()
    for count in (1, 2, 3, 4, 7):
        requests = [{'inputs': {'text': 'a', 'count': n}, 'seed': n} for n in range(count)]
        assert served.client.post('/models/toy/predict:batch', json={'requests': requests}).status_code == 200
    assert compilations() == before


def test_openapi_types_the_inputs(served: Running) -> None:
    schema = served.client.get('/openapi.json').json()
    assert '/models/toy/predict' in schema['paths']
    properties = schema['components']['schemas']['toy_inputs']['properties']
    assert set(properties) == set(toy_task().inputs)
    assert 'base64' in json.dumps(properties['image']) and 'maxLength' in json.dumps(properties['text'])
