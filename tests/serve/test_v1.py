"""TF Serving's documented requests, KServe v1, SageMaker and Vertex AI, over a real server: a field of every kind."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('fastapi', reason='needs the extra serve')
pytest.importorskip('uvicorn', reason='needs the extra serve')

from serve_toy import Running, running, toy_model  # noqa: E402

from research.serve.errors import RequestError  # noqa: E402
from research.serve.routes.v1 import only_model, parts_of  # noqa: E402
from research.serve.samples import silence  # noqa: E402

VERTEX = {'AIP_HEALTH_ROUTE': '/vertex/health', 'AIP_PREDICT_ROUTE': '/vertex/predict'}


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the tests of this module, started as Vertex AI starts a container."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in VERTEX.items():
            patch.setenv(name, value)
        with running({'toy': toy_model(tmp_path_factory.mktemp('toy'))}) as server:
            yield server


def b64(content: bytes) -> dict[str, str]:
    return {'b64': base64.b64encode(content).decode()}


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 51, np.uint8)).save(buffer, 'PNG')
    return buffer.getvalue()


def post(served: Running, body: Any, address: str = '/v1/models/toy:predict') -> httpx.Response:
    return served.client.post(address, json=body)


ROW = {'text': 'four', 'count': 7, 'features': [1, 2, 3.5], 'letter': 'c', 'events': [{'time': 1}]}
SCORES = [4, 0.2, 8000, 7, 2, 1, 6.5, 0]


def whole_row() -> dict[str, Any]:
    return {**ROW, 'image': b64(png()), 'audio': b64(silence(0.5))}


def test_rows(served: Running) -> None:
    answer = post(served, {'signature_name': 'serving_default', 'instances': [whole_row(), {'text': 'a'}]})
    first, second = answer.json()['predictions']
    np.testing.assert_allclose(first['scores'], SCORES, rtol=1e-6)
    assert second['scores'][0] == 1 and base64.b64decode(first['picture']['b64']).startswith(b'\x89PNG')
    one = post(served, {'instances': [{'text': 'a'}], 'parameters': {'seed': 3}}).json()['predictions'][0]
    own = served.client.post('/models/toy/predict', json={'inputs': {'text': 'a'}, 'seed': 3}).json()['answer']
    assert one['noise'] == own['noise']


def test_columns(served: Running) -> None:
    columns = {name: [value, value] for name, value in whole_row().items()}
    answer = post(served, {'inputs': columns}).json()['outputs']
    np.testing.assert_allclose(answer['scores'], [SCORES] * 2, rtol=1e-6)


def test_arrays_of_predict_and_pictures_as_numbers(served: Running) -> None:
    rows = [{'image': np.full((8, 8), 51).tolist()}, {'image': np.full((4, 4, 1), 0.2).tolist()}]
    body = {'signature_name': 'outputs', 'instances': rows}
    for row in post(served, body, '/v1/models/toy/versions/1:predict').json()['predictions']:
        assert set(row) == {'scores', 'noise'}
        np.testing.assert_allclose(row['scores'][1], 0.2, rtol=1e-6)


def test_one_object_for_the_status_of_all_clients(served: Running) -> None:
    status = served.client.get('/v1/models/toy').json()
    assert status['ready'] is True and status['name'] == status['id'] == 'toy' and status['object'] == 'model'
    state = status['model_version_status'][0]
    assert (state['version'], state['state'], state['status']['error_code']) == ('1', 'AVAILABLE', 'OK')
    assert served.client.get('/v1/models/toy/versions/1').json() == status
    described = served.client.get('/v1/models/toy/metadata').json()
    signature = described['metadata']['signature_def']['signature_def']['serving_default']
    assert signature['inputs']['text']['dtype'] == 'DT_STRING' and signature['inputs']['count']['dtype'] == 'DT_FLOAT'


@pytest.mark.slow  # the import takes seconds
def test_openai_reads_the_model(served: Running) -> None:
    openai = pytest.importorskip('openai')
    client = openai.OpenAI(base_url=f'{served.url}/v1', api_key='none', max_retries=0)
    model = client.models.retrieve('toy')
    assert (model.id, model.object, model.owned_by) == ('toy', 'model', 'tessera')
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve('other')


def test_sagemaker(served: Running) -> None:
    assert served.client.get('/ping').status_code == 200
    want = post(served, {'instances': [{'text': 'abc'}]}).json()['predictions'][0]['scores']
    answer = post(served, {'inputs': {'text': 'abc'}}, '/invocations')
    assert answer.status_code == 200, answer.text  # an answer with a picture comes as a file
    rows = post(served, {'instances': [{'text': 'abc'}]}, '/invocations').json()
    assert rows['predictions'][0]['scores'] == want


def test_vertex(served: Running) -> None:
    assert served.client.get('/vertex/health').status_code == 200
    body = {'instances': [{'text': 'abc'}], 'parameters': {'seed': 3}}
    assert post(served, body, '/vertex/predict').json() == post(served, body).json()


@pytest.mark.parametrize(
    'body',
    [
        {}, {'instances': []}, {'instances': 3}, {'instances': [3]}, {'instances': [{'txt': 'a'}]}, {'inputs': {}},
        {'inputs': {'text': 'a'}}, {'inputs': {'text': ['a'], 'count': [1, 2]}}, {'instances': ['a'] * 257},
        {'instances': [{'text': 'a'}], 'inputs': {'text': ['a']}}, {'instances': [{'text': 'a'}], 'colour': 1},
        {'instances': [{'text': 'a'}], 'signature_name': 'x'}, {'instances': [{'text': 'a'}], 'parameters': {'x': 1}},
        {'instances': [{'text': 'a'}], 'parameters': {'seed': -1}}, {'instances': [{'image': {'b64': '?'}}]},
        {'instances': [{'image': [[1, 2], [3]]}]}, {'instances': [{'features': [1, 2]}]}, [],
    ],
)  # fmt: skip
def test_a_malformed_body_is_refused_with_a_text(served: Running, body: Any) -> None:
    answer = post(served, body)
    assert answer.status_code == 400 and isinstance(answer.json()['error'], str)


@pytest.mark.parametrize(
    'address',
    [
        'other:predict',
        'toy:explain',
        'toy/versions/2:predict',
        'toy',
        'toy/x:predict',
        ':predict',
        'toy:classify:predict',
    ],
)
def test_other_addresses_are_404(served: Running, address: str) -> None:
    answer = post(served, {'instances': [{'text': 'a'}]}, f'/v1/models/{address}')
    assert answer.status_code == 404 and isinstance(answer.json()['error'], str)
    assert served.client.get('/v1/models/other').status_code == 404


def test_classify_does_not_fit_every_model(served: Running) -> None:
    answer = post(served, {'examples': [{'text': 'a'}]}, '/v1/models/toy:classify')
    assert answer.status_code == 400 and 'other' in answer.json()['error'] or 'picture' in answer.json()['error']


def test_addresses_are_read() -> None:
    assert parts_of('a:predict') == ('a', '1', 'predict') and parts_of('a/versions/7:regress') == ('a', '7', 'regress')
    with pytest.raises(RequestError, match='2 models'):
        only_model({'a': None, 'b': None})  # pyright: ignore[reportArgumentType]
