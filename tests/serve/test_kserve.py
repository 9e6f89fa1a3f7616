"""kserve's REST client over a real server, by its v1 and v2 protocols. It needs an environment of its own: it brings
kubernetes, grpc and pandas, and a version of protobuf that is older than ours.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip('fastapi', reason='needs the extra serve')
pytest.importorskip('uvicorn', reason='needs the extra serve')
kserve: Any = pytest.importorskip('kserve', reason='kserve is not installed: pip install kserve')

from serve_toy import Running, running, toy_model  # noqa: E402


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the tests of this module."""
    with running({'toy': toy_model(tmp_path_factory.mktemp('toy'))}) as server:
        yield server


def ask(protocol: str, call: Any) -> Any:
    """The result of `call(client)` with a client of a protocol."""

    async def once() -> Any:
        async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol=protocol)) as client:
            return await call(client)

    return asyncio.run(once())


def infer_request(binary: bool) -> Any:
    text = kserve.InferInput('text', [1, 1], 'BYTES')
    text.set_data_from_numpy(np.array([[b'four']], object), binary_data=binary)
    count = kserve.InferInput('count', [1, 1], 'FP64')
    count.set_data_from_numpy(np.array([[7.0]]), binary_data=binary)
    return kserve.InferRequest(
        model_name='toy', infer_inputs=[text, count], request_id='42', parameters={'binary_data_output': binary}
    )


@pytest.mark.parametrize('binary', [True, False])
def test_v2(served: Running, binary: bool) -> None:
    answer = ask('v2', lambda client: client.infer(served.url, infer_request(binary), model_name='toy'))
    assert answer.id == '42' and answer.model_name == 'toy'
    outputs = {output.name: output.as_numpy() for output in answer.outputs}
    np.testing.assert_allclose(outputs['scores'], [[4, 0, 0, 7, 0, 0, 0, 0]])
    assert json.loads(outputs['decoded'][0])['scores'][0] == 4


def test_v2_health(served: Running) -> None:
    assert ask('v2', lambda client: client.is_server_ready(served.url))
    assert ask('v2', lambda client: client.is_server_live(served.url))
    assert ask('v2', lambda client: client.is_model_ready(served.url, 'toy'))
    assert not ask('v2', lambda client: client.is_model_ready(served.url, 'other'))


def test_v1(served: Running) -> None:
    body = {'instances': [{'text': 'four', 'count': 7}]}
    answer = ask('v1', lambda client: client.infer(served.url, body, model_name='toy'))
    assert answer['predictions'][0]['scores'][:4] == [4, 0, 0, 7]
    assert ask('v1', lambda client: client.is_model_ready(served.url, 'toy'))


def test_mistakes_are_messages(served: Running) -> None:
    import httpx

    with pytest.raises(httpx.HTTPStatusError, match='txt'):
        ask('v1', lambda client: client.infer(served.url, {'instances': [{'txt': 'a'}]}, model_name='toy'))
