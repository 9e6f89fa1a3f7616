"""The Open Inference Protocol v2 (KServe, Triton) over HTTP, with binary tensors and the classification extension.

    GET  /v2   /v2/health/live   /v2/health/ready   /v2/models/NAME[/versions/V][/ready]
    POST /v2/models/NAME[/versions/V]/infer   /v2/repository/index

A model has two signatures, see `research/serve/signatures.py`: `raw`, version "1", and `encoded`, version "encoded" or
the request parameter {"signature": "encoded"}. Outputs are those of the task's `predict` and, of `raw`, `decoded`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from fastapi import APIRouter, Request, Response

from research.serve import signatures
from research.serve.errors import RequestError
from research.serve.hosted import Answer, Hosted
from research.serve.limits import parse_json
from research.serve.samples import sample_requests
from research.serve.settings import ServerSettings
from research.serve.signatures import DECODED
from research.serve.tensors import HEADER, TensorRequest, read_body, write_body

RAW, ENCODED = '1', 'encoded'  # versions of a model
EXTENSIONS = ['binary_tensor_data', 'classification', 'model_repository']
PARAMETERS = ('signature', 'seed', 'timeout', 'binary_data_output')
SHOWN = 'tessera'  # the name of the server


def routes(models: Mapping[str, Hosted], server: ServerSettings) -> APIRouter:
    """The routes of the protocol for the models of a server."""
    router = APIRouter(prefix='/v2', include_in_schema=False)

    @router.get('')
    @router.get('/')
    def server_metadata() -> dict[str, Any]:
        from importlib.metadata import version

        return {'name': SHOWN, 'version': version('tessera'), 'extensions': EXTENSIONS}

    @router.get('/health/live')
    def live() -> dict[str, bool]:
        return {'live': True}

    @router.get('/health/ready')
    def all_ready() -> Response:
        return reply({'ready': server.ready}, 200 if server.ready else 503)

    @router.post('/repository/index')
    def index() -> list[dict[str, str]]:
        state = 'READY' if server.ready else 'UNAVAILABLE'
        reason = '' if server.ready else f'the server is {server.status.phase.value}'
        return [{'name': name, 'version': RAW, 'state': state, 'reason': reason} for name in models]

    @router.get('/models/{name}/ready')
    @router.get('/models/{name}/versions/{version}/ready')
    def ready(name: str, version: str = RAW) -> Response:
        model_of(models, name, version)
        return reply({'name': name, 'ready': server.ready}, 200 if server.ready else 503)

    @router.get('/models/{name}')
    @router.get('/models/{name}/versions/{version}')
    async def model_metadata(name: str, version: str = RAW) -> dict[str, Any]:
        hosted = model_of(models, name, version)
        return {'name': name, 'versions': [RAW, ENCODED], 'platform': 'jax', **await tensors_of(hosted, version)}

    @router.post('/models/{name}/infer')
    @router.post('/models/{name}/versions/{version}/infer')
    async def infer(request: Request, name: str, version: str = '') -> Response:
        hosted = model_of(models, name, version or RAW)
        body, length = await request.body(), request.headers.get(HEADER)
        asked = await hosted.work(lambda: read_body(body, length, object_of))
        version = version_of(asked, version)
        answers = await answers_of(hosted, asked, version)
        head = {'model_name': name, 'model_version': version, **({'id': asked.id} if asked.id else {})}
        answer, size = await hosted.work(lambda: write_body(head, *chosen_outputs(asked, answers, version)))
        if size is None:
            return Response(answer, media_type='application/json')
        return Response(answer, media_type='application/octet-stream', headers={HEADER: str(size)})

    @router.api_route('/{path:path}', methods=['GET', 'POST'])
    def elsewhere(path: str) -> None:
        raise RequestError(404, f'/v2/{path:.80} is not served; extensions: {", ".join(EXTENSIONS)}')

    return router


def reply(value: Any, status: int) -> Response:
    return Response(json.dumps(value), status, media_type='application/json')


def object_of(body: bytes) -> Mapping[str, Any]:
    """The JSON object of a body."""
    value = parse_json(body)
    if not isinstance(value, dict):
        raise RequestError(400, 'the body must be a JSON object')
    return value


def model_of(models: Mapping[str, Hosted], name: str, version: str) -> Hosted:
    """The model with a name and version; raises RequestError 404 for unknown ones."""
    if name not in models:
        raise RequestError(404, f'there is no model {name!r:.80}; models: {", ".join(models)}', 'model_name')
    if version not in (RAW, ENCODED):
        raise RequestError(404, f'model {name!r} has the versions {RAW} and {ENCODED}, not {version!r:.80}', 'version')
    return models[name]


def version_of(asked: TensorRequest, version: str) -> str:
    """The version that a request wants, by its path or its parameter 'signature'."""
    signature = asked.parameters.get('signature', ENCODED if version == ENCODED else 'raw')
    if signature not in ('raw', ENCODED):
        raise RequestError(400, f'signature must be raw or {ENCODED}, got {signature!r:.40}', 'parameters.signature')
    return ENCODED if signature == ENCODED else RAW


async def answers_of(hosted: Hosted, asked: TensorRequest, version: str) -> Sequence[Answer]:
    """The answers to the rows of a request."""
    for name in asked.parameters:
        if name not in PARAMETERS:
            known = ', '.join(PARAMETERS)
            raise RequestError(400, f'parameter {name!r:.80} is unknown; known: {known}', f'parameters.{name:.80}')
    seed, timeout = whole(asked.parameters, 'seed'), whole(asked.parameters, 'timeout')
    seconds = timeout / 1e6 if timeout else None  # the clients give microseconds
    if version == ENCODED:
        count = signatures.row_count(asked.inputs)
        rows = [{name: values[row] for name, values in asked.inputs.items()} for row in range(count)]
        return await hosted.answer_encoded(rows, seed, seconds)
    raws = await hosted.work(lambda: signatures.raw_rows(hosted.model.task.inputs, asked.inputs))
    return await hosted.answer(raws, seed, seconds)


def whole(parameters: Mapping[str, Any], name: str) -> int:
    """A whole number among the parameters, 0 by default."""
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise RequestError(400, f'{name} must be a whole number from 0 to {2**31 - 1}', f'parameters.{name}')
    return value


def chosen_outputs(
    asked: TensorRequest, answers: Sequence[Answer], version: str
) -> tuple[dict[str, np.ndarray], Callable[[str], bool]]:
    """The tensors that a request wants, and whether each is wanted in binary form.

    Raises:
      RequestError: 400, for an output that the model does not have.
    """
    decoded = [DECODED] if version == RAW else []
    names, rows = [*answers[0].outputs, *decoded], [answer.outputs for answer in answers]
    wanted = {output.name: output for output in asked.outputs}
    for name in wanted:
        if name not in names:
            raise RequestError(400, f'output {name!r:.80} is unknown; outputs: {", ".join(names)}', 'outputs')
    outputs = {}
    for name in wanted or names:
        if name == DECODED:
            outputs[name] = signatures.decoded_tensor([answer.decoded for answer in answers])
        else:
            outputs[name] = signatures.stacked(rows, name)
        if name in wanted and wanted[name].classes:
            outputs[name] = signatures.best_classes(outputs[name], wanted[name].classes, name)
    return outputs, lambda name: wanted[name].binary if name in wanted else asked.binary


async def tensors_of(hosted: Hosted, version: str) -> dict[str, Any]:
    """Inputs and outputs of a model for its metadata."""
    task, examples = hosted.model.task, list(hosted.programs.shapes.values())
    varies = bool(task.split or task.buckets or len(examples) > 1)
    if version == RAW and task.join:  # outputs of whole requests, which only an answer shows
        outputs = (await hosted.answer(sample_requests(task)))[0].outputs
    else:
        outputs = output_shapes(hosted, examples[0])
    described = signatures.output_tensors(outputs, varies)
    if version == RAW:
        described.append({'name': DECODED, 'datatype': 'BYTES', 'shape': [-1]})
        return {'inputs': signatures.input_tensors(task.inputs), 'outputs': described}
    return {'inputs': signatures.output_tensors(examples[0], varies), 'outputs': described}


def output_shapes(hosted: Hosted, example: Mapping[str, np.ndarray]) -> dict[str, jax.ShapeDtypeStruct]:
    """The outputs of one encoded example, without computing them."""
    batch = {name: np.asarray(value)[None] for name, value in example.items()}
    batch |= {'index': np.zeros(1, np.int32), 'mask': np.ones(1, np.float32)}
    model = hosted.model
    shapes = jax.eval_shape(model.measure.predict, model.variables, batch, 0)
    return {name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for name, value in shapes.items()}
