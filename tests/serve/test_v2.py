"""The Open Inference Protocol with the standard client, over a real server: a model with a field of every kind."""

import asyncio
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
http: Any = pytest.importorskip('tritonclient.http', reason='needs launch/foreign.txt')

from serve_toy import Running, running, toy_model  # noqa: E402

from research.serve.samples import silence  # noqa: E402


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the tests of this module."""
    with running({'toy': toy_model(tmp_path_factory.mktemp('toy'))}) as server:
        yield server


@pytest.fixture(scope='module')
def client(served: Running) -> Iterator[Any]:
    """The standard client."""
    with http.InferenceServerClient(f'127.0.0.1:{served.port}') as opened:
        yield opened


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 51, np.uint8)).save(buffer, 'PNG')
    return buffer.getvalue()


def tensor(name: str, values: Any, binary: bool = True, module: Any = http) -> Any:
    """An input of the client."""
    from research.serve.tensors import datatype_of

    array = np.asarray(values)
    given = module.InferInput(name, list(array.shape), datatype_of(array.dtype))
    return given.set_data_from_numpy(array, binary_data=binary)


def objects(*values: Any) -> np.ndarray:
    return np.array([[value] for value in values] + [[None]], object)[:-1]


def every_kind(module: Any = http) -> list[Any]:
    """Two requests with a field of every kind; the expected scores are below."""
    events = json.dumps([{'time': 1, 'name': 'x'}, {'time': 2}]).encode()
    return [
        tensor('text', objects(b'four', '\u4f60'.encode()), module=module),
        tensor('image', objects(png(), png()), module=module),
        tensor('audio', objects(silence(0.5), silence(0.5)), module=module),
        tensor('count', np.array([[7], [8]], np.float64), module=module),
        tensor('letter', objects(b'c', b'a'), module=module),
        tensor('events', objects(events, events), module=module),
        tensor('features', np.float32([[1, 2, 3.5], [0, 0, 1]]), module=module),
    ]


SCORES = [[4, 0.2, 8000, 7, 2, 2, 6.5, 0], [1, 0.2, 8000, 8, 0, 2, 1, 0]]


def test_the_server_and_its_models_describe_themselves(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready('toy')
    assert client.is_model_ready('toy', 'encoded') and not client.is_model_ready('other')
    assert client.get_server_metadata()['extensions'] == ['binary_tensor_data', 'classification', 'model_repository']
    assert client.get_model_repository_index() == [{'name': 'toy', 'version': '1', 'state': 'READY', 'reason': ''}]
    described = client.get_model_metadata('toy')
    inputs = {row['name']: (row['datatype'], row['shape']) for row in described['inputs']}
    assert inputs['text'] == inputs['image'] == inputs['events'] == ('BYTES', [-1, 1])
    assert inputs['count'] == ('FP64', [-1, 1]) and inputs['features'] == ('FP32', [-1, 3])
    outputs = {row['name']: (row['datatype'], row['shape']) for row in described['outputs']}
    assert outputs == {'scores': ('FP32', [-1, 8]), 'noise': ('FP32', [-1]), 'decoded': ('BYTES', [-1])}
    encoded = client.get_model_metadata('toy', 'encoded')
    assert encoded['inputs'] == [{'name': 'values', 'datatype': 'FP32', 'shape': [-1, 8]}]


def test_a_field_of_every_kind_arrives_in_binary_form(client: Any) -> None:
    result = client.infer('toy', every_kind(), request_id='42', parameters={'seed': 3})
    np.testing.assert_allclose(result.as_numpy('scores'), SCORES, rtol=1e-6)
    answer = result.get_response()
    assert (answer['id'], answer['model_name'], answer['model_version']) == ('42', 'toy', '1')
    first = json.loads(result.as_numpy('decoded')[0])
    assert first['picture']['b64'] and first['missing'] is None
    again = client.infer('toy', every_kind(), parameters={'seed': 3}).as_numpy('noise')
    np.testing.assert_array_equal(again, result.as_numpy('noise'))
    assert (client.infer('toy', every_kind(), parameters={'seed': 4}).as_numpy('noise') != again).all()


def test_the_answer_equals_that_of_the_own_route(client: Any, served: Running) -> None:
    body = {'inputs': {'text': 'four', 'count': 7}, 'seed': 3}
    want = served.client.post('/models/toy/predict', json=body).json()['answer']
    given = [tensor('text', objects(b'four')), tensor('count', np.array([7], np.int64))]
    result = client.infer('toy', given, parameters={'seed': 3})
    assert result.as_numpy('noise')[0] == np.float32(want['noise'])
    assert json.loads(result.as_numpy('decoded')[0])['scores'] == want['scores']


def test_json_form_and_outputs_by_name(client: Any) -> None:
    given = [tensor('text', objects('abc'), binary=False), tensor('features', np.float32([[1, 2, 3]]), binary=False)]
    wanted = [
        http.InferRequestedOutput('noise', binary_data=False), http.InferRequestedOutput('scores', class_count=2),
    ]  # fmt: skip
    result = client.infer('toy', given, outputs=wanted)
    assert [row['name'] for row in result.get_response()['outputs']] == ['noise', 'scores']
    assert result.as_numpy('noise').shape == (1,)
    assert result.as_numpy('scores').tolist() == [[b'6.000000:6', b'3.000000:0']]


def test_encoded_arrays_skip_encode(client: Any) -> None:
    values = np.arange(16, dtype=np.float32).reshape(2, 8)
    by_version = client.infer('toy', [tensor('values', values)], model_version='encoded')
    by_parameter = client.infer('toy', [tensor('values', values)], parameters={'signature': 'encoded'})
    for result in (by_version, by_parameter):
        np.testing.assert_array_equal(result.as_numpy('scores'), values)
        assert result.as_numpy('decoded') is None and result.get_response()['model_version'] == 'encoded'


def test_pictures_as_numbers(client: Any) -> None:
    given = [tensor('image', np.full((1, 8, 8), 51, np.uint8))]
    np.testing.assert_allclose(client.infer('toy', given).as_numpy('scores')[0, 1], 0.2, rtol=1e-6)


def test_the_asynchronous_client(served: Running) -> None:
    aio = pytest.importorskip('tritonclient.http.aio', reason='needs aiohttp')

    async def both() -> list[Any]:
        async with aio.InferenceServerClient(f'127.0.0.1:{served.port}') as opened:
            assert await opened.is_server_ready()
            calls = (opened.infer('toy', every_kind(aio), request_id=str(number)) for number in range(4))
            return await asyncio.gather(*calls)

    for result in asyncio.run(both()):
        np.testing.assert_allclose(result.as_numpy('scores'), SCORES, rtol=1e-6)


@pytest.mark.parametrize(
    'given, more, message',
    [
        ([('txt', objects(b'a'))], {}, "'txt' is unknown"),
        ([('text', objects(b'\xff'))], {}, 'UTF-8'),
        ([('image', objects(b'no picture'))], {}, 'picture'),
        ([('count', np.array([[np.nan]]))], {}, 'finite'),
        ([('count', objects(b'3'))], {}, 'FP64'),
        ([('text', np.float32([[1]]))], {}, 'BYTES'),
        ([('text', objects(b'a', b'b')), ('count', np.array([[1]]))], {}, 'equal for all'),
        ([('text', np.zeros((0, 1), object))], {}, '1 to 256'),
        ([('text', np.array([[b'a', b'b']], object))], {}, 'one element'),
        ([('events', objects(b'{'))], {}, 'JSON'),
        ([('events', objects(b'[3]'))], {}, 'list of objects'),
        ([('text', objects(b'a'))], {'parameters': {'seed': -1}}, 'seed'),
        ([('text', objects(b'a'))], {'parameters': {'colour': 1}}, 'colour'),
        ([('text', objects(b'a'))], {'sequence_id': 3}, 'sequence_id'),
        ([('text', objects(b'a'))], {'parameters': {'signature': 'x'}}, 'signature'),
        ([('text', objects(b'a'))], {'outputs': [http.InferRequestedOutput('y')]}, "'y' is unknown"),
        ([('text', objects(b'a'))], {'outputs': [http.InferRequestedOutput('noise', class_count=2)]}, 'no scores'),
        ([('values', np.zeros((1, 7), np.float32))], {'model_version': 'encoded'}, 'encoded arrays'),
        ([('text', objects(b'a'))], {'model_version': '2'}, 'versions'),
    ],
)  # fmt: skip
def test_mistakes_are_messages_of_the_client(client: Any, given: Any, more: Any, message: str) -> None:
    """The client shows the message of the server, and the connection goes on."""
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match=message) as refused:
        client.infer('toy', [tensor(*one) for one in given], **more)
    assert refused.value.status() in ('400', '404', '413')
    assert client.is_server_live()


@pytest.mark.parametrize(
    'call',
    [
        lambda client: client.get_model_metadata('other'), lambda client: client.load_model('toy'),
        lambda client: client.unload_model('toy'), lambda client: client.get_model_config('toy'),
        lambda client: client.register_system_shared_memory('r', '/r', 8), lambda client: client.get_log_settings(),
        lambda client: client.get_inference_statistics('toy'),
    ],
)  # fmt: skip
def test_what_is_not_served_is_404(client: Any, call: Any) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException) as refused:
        call(client)
    assert refused.value.status() == '404'


def kserve_request(served: Running) -> httpx.Response:
    """The request of kserve 0.21's InferenceRESTClient: lower-case header, application/octet-stream."""
    element = len(b'four').to_bytes(4, 'little') + b'four'
    item = {'name': 'text', 'shape': [1, 1], 'datatype': 'BYTES', 'parameters': {'binary_data_size': len(element)}}
    text = json.dumps({'id': '7', 'inputs': [item], 'parameters': {'binary_data_output': True}}).encode()
    headers = {'inference-header-content-length': str(len(text)), 'content-type': 'application/octet-stream'}
    return served.client.post('/v2/models/toy/infer', content=text + element, headers=headers)


def test_requests_as_kserve_sends_them(served: Running) -> None:
    answer = kserve_request(served)
    assert answer.status_code == 200 and answer.headers['content-type'] == 'application/octet-stream'
    head = json.loads(answer.content[: int(answer.headers['inference-header-content-length'])])
    sizes = {row['name']: row['parameters']['binary_data_size'] for row in head['outputs']}
    assert head['id'] == '7' and sizes['scores'] == 32 and sizes['noise'] == 4
    assert served.client.get('/v2/health/ready').json() == {'ready': True}
    assert served.client.get('/v2/health/live').json() == {'live': True}
    assert served.client.get('/v2/models/toy/ready').json() == {'name': 'toy', 'ready': True}


def test_a_truncated_body_is_refused(served: Running) -> None:
    body = b'{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 9}}]}'
    headers = {'Inference-Header-Content-Length': str(len(body))}
    for length, rest in ((len(body), b''), (len(body), b'\xff' * 9), (len(body) + 1, b''), (-1, b'')):
        headers['Inference-Header-Content-Length'] = str(length)
        answer = served.client.post('/v2/models/toy/infer', content=body + rest, headers=headers)
        assert answer.status_code == 400 and isinstance(answer.json()['error'], str)
