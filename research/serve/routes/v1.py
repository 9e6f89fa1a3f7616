"""TensorFlow Serving's and KServe's v1 REST protocol, and the contracts of SageMaker and Vertex AI containers.

    GET  /v1/models/NAME[/versions/V][/metadata]      also a model of OpenAI's `client.models.retrieve`
    POST /v1/models/NAME[/versions/V]:predict         also :classify, :regress
    GET  /ping                POST /invocations       SageMaker: the Hugging Face form, or {"instances"}
    GET  $AIP_HEALTH_ROUTE    POST $AIP_PREDICT_ROUTE Vertex AI: {"instances"}

A row of "instances" is an object of fields, or the value of the only field; "inputs" has a list for each field instead.
Predictions are decoded answers; the signature "outputs" gives the arrays of the task's `predict`. A file is
{"b64": base64} in both directions.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from research.core.task import Input
from research.serve.answers import Answered, kind_of, ranked, with_files
from research.serve.errors import RequestError
from research.serve.hosted import Answer, Hosted
from research.serve.routes.tasks import answer_body, object_of, reply
from research.serve.settings import ServerSettings
from research.serve.task_answers import request_of
from research.serve.values import plain, read_inputs

VERSION = '1'
DECODED, OUTPUTS = 'serving_default', 'outputs'  # signatures
MAX_ROWS = 256
ROW_FIELDS = ('signature_name', 'instances', 'inputs', 'parameters')


def routes(
    models: Mapping[str, Hosted], server: ServerSettings, environment: Mapping[str, str] = os.environ
) -> APIRouter:
    """The routes of these protocols for the models of a server; `environment` has the AIP_* variables of Vertex AI."""
    router = APIRouter(include_in_schema=False)

    @router.get('/v1/models/{name}')
    @router.get('/v1/models/{name}/versions/{version}')
    def status(name: str, version: str = VERSION) -> dict[str, Any]:
        return model_status(model_of(models, name, version), server.ready)

    @router.get('/v1/models/{name}/metadata')
    @router.get('/v1/models/{name}/versions/{version}/metadata')
    def metadata(name: str, version: str = VERSION) -> dict[str, Any]:
        return model_metadata(model_of(models, name, version))

    @router.post('/v1/models/{address:path}')
    async def call(request: Request, address: str) -> Response:
        name, version, verb = parts_of(address)
        body = object_of(await request.body())
        return reply(await called(model_of(models, name, version), verb, body))

    @router.get('/ping')
    def ping() -> Response:
        return reply({'ready': server.ready}, 200 if server.ready else 503)

    @router.post('/invocations')
    async def invocations(request: Request) -> Response:
        body, content_type = await request.body(), request.headers.get('content-type', '')
        hosted = only_model(models)
        if content_type.startswith('application/json') and 'instances' in object_of(body):
            return reply(await called(hosted, 'predict', object_of(body)))
        return await answer_body(hosted, body, content_type)

    health, predict = environment.get('AIP_HEALTH_ROUTE'), environment.get('AIP_PREDICT_ROUTE')
    if health:
        router.add_api_route(health, ping, methods=['GET'])
    if predict:

        async def vertex(request: Request) -> Response:
            return reply(await called(only_model(models), 'predict', object_of(await request.body())))

        router.add_api_route(predict, vertex, methods=['POST'])
    return router


def model_of(models: Mapping[str, Hosted], name: str, version: str = VERSION) -> Hosted:
    """The model with a name and version; raises RequestError 404 for unknown ones."""
    if name not in models:
        raise RequestError(
            404, f'there is no model {name!r:.80}; models: {", ".join(models)}', 'model', 'model_not_found'
        )
    if version != VERSION:
        raise RequestError(404, f'model {name!r} has version {VERSION}, not {version!r:.80}', 'version')
    return models[name]


def only_model(models: Mapping[str, Hosted]) -> Hosted:
    """The model of an address that names none."""
    if len(models) != 1:
        raise RequestError(400, f'this server has {len(models)} models ({", ".join(models)}): use /hf/NAME')
    return next(iter(models.values()))


def parts_of(address: str) -> tuple[str, str, str]:
    """Name, version and verb of 'NAME:predict' or 'NAME/versions/1:predict'."""
    path, _, verb = address.rpartition(':')
    name, slash, version = path.partition('/versions/')
    if verb not in ('predict', 'classify', 'regress') or '/' in name:
        raise RequestError(404, f'/v1/models/{address:.80} is not served: end with :predict, :classify or :regress')
    return name, version if slash else VERSION, verb


def model_status(hosted: Hosted, ready: bool) -> dict[str, Any]:
    """One object that the clients of OpenAI, KServe and TensorFlow Serving read."""
    state = {'version': VERSION, 'state': 'AVAILABLE' if ready else 'LOADING'}
    return {
        'id': hosted.name,
        'object': 'model',
        'created': hosted.created,
        'owned_by': 'tessera',
        'name': hosted.name,
        'ready': ready,
        'model_version_status': [{**state, 'status': {'error_code': 'OK', 'error_message': ''}}],
    }


def model_metadata(hosted: Hosted) -> dict[str, Any]:
    """The signatures of a model: every input is a list with one element for each row."""

    def tensor(name: str, dtype: str) -> dict[str, Any]:
        return {
            'dtype': dtype,
            'tensor_shape': {'dim': [{'size': '-1', 'name': ''}], 'unknown_rank': False},
            'name': name,
        }

    inputs = {
        name: tensor(name, 'DT_FLOAT' if field.kind in ('number', 'array') else 'DT_STRING')
        for name, field in hosted.model.task.inputs.items()
    }
    outputs = {'answer': tensor('answer', 'DT_STRING')}
    signature = {'inputs': inputs, 'outputs': outputs, 'method_name': 'tensorflow/serving/predict'}
    return {
        'model_spec': {'name': hosted.name, 'signature_name': '', 'version': VERSION},
        'metadata': {'signature_def': {'signature_def': {DECODED: signature}}},
    }


async def called(hosted: Hosted, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a body by its verb."""
    if verb == 'predict':
        return await predictions(hosted, body)
    inputs, examples = hosted.model.task.inputs, body.get('examples')
    shared = read_inputs(inputs, body.get('context') or {}, 'context')
    raws = [{**shared, **raw} for raw in rows_of(inputs, examples, 'examples')]
    answers = [answer.decoded for answer in await hosted.answer(raws)]
    kind = kind_of(answers[0])
    if verb == 'classify' and kind in (Answered.LABEL, Answered.LABELS):
        return {'results': [[[str(label), score] for label, score in ranked(answer)] for answer in answers]}
    if verb == 'regress' and kind is Answered.NUMBER:
        return {'results': [plain(answer['value']) for answer in answers]}
    raise RequestError(400, f':{verb} does not fit this model, whose answer is of kind {kind.value}: use :predict')


async def predictions(hosted: Hosted, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to `:predict`, in the row or the column format."""
    inputs, by_row = hosted.model.task.inputs, 'instances' in body
    for name in body:
        if name not in ROW_FIELDS:
            raise RequestError(400, f'field {name!r:.80} is unknown; known: {", ".join(ROW_FIELDS)}', name[:80])
    if by_row == ('inputs' in body):
        raise RequestError(
            400, 'give either instances (one element for each request) or inputs (one list for each field)'
        )
    signature = body.get('signature_name') or DECODED
    if signature not in (DECODED, OUTPUTS):
        raise RequestError(
            400, f'signature_name must be {DECODED} or {OUTPUTS}, got {signature!r:.40}', 'signature_name'
        )
    field = 'instances' if by_row else 'inputs'
    raws = await hosted.work(lambda: rows_of(inputs, body[field] if by_row else rows_of_columns(body[field]), field))
    answers = await hosted.answer(raws, seed_of(body.get('parameters')))
    rows = await hosted.work(lambda: [prediction(answer, signature) for answer in answers])
    return {'predictions': rows} if by_row else {'outputs': columns_of(rows)}


def prediction(answer: Answer, signature: str) -> Any:
    """One answer as JSON values."""
    if signature == OUTPUTS:
        return {name: plain(np.asarray(value)) for name, value in answer.outputs.items()}
    return with_files(answer.decoded)


def seed_of(parameters: Any) -> int:
    """The seed among the parameters of a request."""
    values = {} if parameters is None else parameters
    if not isinstance(values, dict) or {*values} - {'seed'}:
        raise RequestError(400, 'parameters must be an object with at most "seed"', 'parameters')
    seed = values.get('seed', 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise RequestError(400, f'seed must be a whole number from 0 to {2**31 - 1}', 'parameters.seed')
    return seed


def rows_of(inputs: Mapping[str, Input], rows: Any, where: str) -> list[dict[str, Any]]:
    """The requests of a list of rows."""
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_ROWS:
        raise RequestError(400, f'{where} must be a list of 1 to {MAX_ROWS} rows', where)
    return [request_of(inputs, row, f'{where}[{number}]') for number, row in enumerate(rows)]


def rows_of_columns(columns: Any) -> Any:
    """The rows of {field: list}; a list is the column of the only field."""
    if not isinstance(columns, dict) or {*columns} & {'b64', 'base64'}:
        return columns
    lengths = {len(values) if isinstance(values, list) else -1 for values in columns.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise RequestError(
            400, 'inputs must be {field: [one value for each request]} with lists of one length', 'inputs'
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def columns_of(rows: Sequence[Any]) -> Any:
    """{name: one value for each row} if all rows are objects with the same names, else the rows."""
    if not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        return rows
    return {name: [row[name] for row in rows] for name in rows[0]}
