"""The typed routes of this server: a model's inputs are the fields of its requests.

GET  /models, /models/NAME
POST /models/NAME/predict, /models/NAME/predict:batch, /models/NAME/generate
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Annotated, Any, Literal

import fastapi
import orjson
import pydantic
from fastapi.responses import Response, StreamingResponse

from research.core.task import Input
from research.errors import nearest
from research.inference.text_requests import Piece, TextRequest
from research.serve.errors import RequestError
from research.serve.hosted import Answer, Hosted
from research.serve.settings import ServerSettings
from research.serve.values import read_inputs, to_json

MAX_REQUESTS = 256  # of a batch
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**31, description='Seed of sampled answers.', strict=True)]


class Strict(pydantic.BaseModel):
    """A part of a request without unknown fields."""

    model_config = pydantic.ConfigDict(extra='forbid', protected_namespaces=())


class File(Strict):
    """The content of a file."""

    base64: str = pydantic.Field(json_schema_extra={'contentEncoding': 'base64'})
    media_type: str = ''


class ErrorDetail(pydantic.BaseModel):
    """What is wrong, and where."""

    message: str
    field: str = ''
    code: str = ''


class Error(pydantic.BaseModel):
    """The answer to a request that was refused."""

    error: ErrorDetail


REFUSALS = {
    status: {'model': Error, 'description': about}
    for status, about in {
        400: 'Invalid request', 401: 'No token', 404: 'No such model', 408: 'The body came too slowly',
        413: 'Too large', 415: 'Content type not read', 422: 'Invalid field', 429: 'Too many requests; see Retry-After',
        503: 'Not ready, or too long in the queue', 504: 'The deadline passed',
    }.items()
}  # fmt: skip


def annotation(field: Input, name: str) -> Any:
    """The type of a field of a request, with what a client should know of it."""
    about = pydantic.Field(description=field.about or field.kind)
    if field.kind in ('image', 'audio'):
        base64 = Annotated[str, pydantic.Field(json_schema_extra={'contentEncoding': 'base64'})]
        return Annotated[base64 | File, about]
    if field.kind in ('text', 'sequence'):
        text = pydantic.Field(description=field.about or field.kind, max_length=field.limit or None)
        return Annotated[str, text]
    if field.kind == 'number':
        number = Annotated[float, pydantic.Field(strict=True)]  # not a boolean
        return Annotated[number | str | None, about]
    if field.kind == 'category':
        return Annotated[str | int | float | bool | None, about]
    if field.kind == 'array':
        return Annotated[list[Any], about]
    items = inputs_model(field.items, f'{name}_item')
    limited = pydantic.Field(description=field.about, max_length=field.limit or None)
    return Annotated[list[items], limited]  # pyright: ignore[reportInvalidTypeForm]


def inputs_model(inputs: Mapping[str, Input], name: str) -> type[pydantic.BaseModel]:
    """A Pydantic model of the fields of a task; all may be missing, because the task itself says which it needs."""
    fields: dict[str, Any] = {
        f'field_{number}': (annotation(field, f'{name}_{number}') | None, pydantic.Field(None, alias=key))
        for number, (key, field) in enumerate(inputs.items())
    }
    return pydantic.create_model(name, __base__=Strict, **fields)


class Settings(Strict):
    """Settings of generation; those of the task where they are left out."""

    max_tokens: Annotated[int, pydantic.Field(ge=1, le=1_000_000, strict=True)] | None = None
    temperature: Annotated[float, pydantic.Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, pydantic.Field(ge=0, lt=2**31, strict=True)] | None = None
    top_p: Annotated[float, pydantic.Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    stop: list[Annotated[str, pydantic.Field(min_length=1, max_length=64)]] = pydantic.Field(default=[], max_length=4)

    def given(self) -> dict[str, Any]:
        """The fields of a `TextRequest` that the request sets."""
        values = {name: getattr(self, name) for name in Settings.model_fields}
        return {name: tuple(v) if name == 'stop' else v for name, v in values.items() if v not in (None, [])}


def request_models(name: str, inputs: Mapping[str, Input], generates: bool) -> dict[str, Any]:
    """The bodies of the routes of one model."""
    fields = inputs_model(inputs, f'{name}_inputs')
    required = ... if inputs else pydantic.Field(default_factory=fields)
    settings: dict[str, Any] = (
        {'settings': (Settings, pydantic.Field(default_factory=lambda: Settings()))} if generates else {}
    )
    one = pydantic.create_model(
        f'{name}_request', __base__=Strict, inputs=(fields, required), seed=(Seed, 0), **settings
    )  # pyright: ignore[reportCallIssue]
    requests: Any = Annotated[list[one], pydantic.Field(min_length=1, max_length=MAX_REQUESTS)]
    models = {
        'predict': one,
        'batch': pydantic.create_model(f'{name}_requests', __base__=Strict, requests=(requests, ...)),
    }
    if generates:
        models['generate'] = pydantic.create_model(
            f'{name}_generation', __base__=Settings, inputs=(fields, ...), seed=(Seed, 0),
            top_logprobs=(Annotated[int, pydantic.Field(ge=0, le=20, strict=True)], 0), stream=(bool, True),
        )  # fmt: skip
    return models


def raw_of(hosted: Hosted, body: Any) -> dict[str, Any]:
    """The request of a validated body."""
    return read_inputs(hosted.model.task.inputs, body.inputs.model_dump(by_alias=True, exclude_unset=True))


def answer_json(hosted: Hosted, answer: Answer) -> dict[str, Any]:
    """The JSON of an answer."""
    times = {'queue': answer.queue_seconds, 'compute': answer.compute_seconds}
    return {
        'answer': to_json(answer.decoded),
        'model': hosted.name,
        'fingerprint': hosted.fingerprint,
        'milliseconds': {name: round(seconds * 1000, 3) for name, seconds in times.items()},
    }


async def predicted(hosted: Hosted, body: Any) -> dict[str, Any]:
    """The answer to one validated request."""
    settings = body.settings.given() if hosted.generates else {}
    answers = await hosted.answer([raw_of(hosted, body)], body.seed, settings=settings)
    return answer_json(hosted, answers[0])


async def predicted_or_error(hosted: Hosted, body: Any) -> dict[str, Any]:
    """The answer to one request of a batch, or its error."""
    try:
        return await predicted(hosted, body)
    except RequestError as error:
        return {'error': {'message': error.message, 'field': error.field, 'code': error.code}}


def text_request(hosted: Hosted, body: Any) -> TextRequest:
    """The request for a text of a validated body."""
    return TextRequest(
        raw=raw_of(hosted, body), seed=body.seed, top_logprobs=body.top_logprobs, **body.given()
    )  # fmt: skip


def piece_json(hosted: Hosted, piece: Piece) -> dict[str, Any]:
    """An event of a stream: some tokens, and the text that they complete."""
    assert hosted.engine is not None
    name = hosted.engine.texts.token_text
    tops = piece.top or [()] * len(piece.tokens)
    tokens = [
        {
            'text': name(token),
            'logprob': logprob,
            'top': [{'text': name(each), 'logprob': value} for each, value in top],
        }
        for token, logprob, top in zip(piece.tokens, piece.logprobs, tops, strict=True)
    ]
    return {'text': piece.text, 'tokens': tokens, 'finish': piece.finish.value if piece.finish else None}


async def events(hosted: Hosted, first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncIterator[bytes]:
    """The pieces of a text as server-sent events; an error after the first is an event."""
    try:
        yield event(piece_json(hosted, first))
        async for piece in rest:
            yield event(piece_json(hosted, piece))
        yield b'data: [DONE]\n\n'
    except RequestError as error:
        yield event({'error': {'message': error.message, 'field': error.field, 'code': error.code}})
    finally:
        await rest.aclose()


def event(value: Any) -> bytes:
    return b'data: ' + orjson.dumps(value) + b'\n\n'


async def generated(hosted: Hosted, body: Any) -> Response:
    """The text of a validated request, as a stream of events or at once."""
    pieces = hosted.generate(text_request(hosted, body))
    if body.stream:
        first = await anext(pieces)  # a refusal before the first token is an ordinary error
        headers = {'X-Accel-Buffering': 'no'}  # for nginx
        return StreamingResponse(events(hosted, first, pieces), headers=headers, media_type='text/event-stream')
    parts = [piece_json(hosted, piece) async for piece in pieces]
    return json_response(
        {
            'text': ''.join(part['text'] for part in parts),
            'tokens': [token for part in parts for token in part['tokens']],
            'finish': parts[-1]['finish'],
            'model': hosted.name,
            'fingerprint': hosted.fingerprint,
        }
    )


def json_response(value: Any) -> Response:
    """An answer of JSON values."""
    return Response(orjson.dumps(value), media_type='application/json')


def add_model(router: fastapi.APIRouter, hosted: Hosted) -> None:
    """Adds the routes of one model."""
    bodies = request_models(hosted.name, hosted.model.task.inputs, hosted.generates)
    address, tag = f'/models/{hosted.name}', [hosted.name]
    Predict, Batch = bodies['predict'], bodies['batch']

    async def predict(body: Predict) -> Response:  # pyright: ignore[reportInvalidTypeForm]
        return json_response(await predicted(hosted, body))

    async def predict_batch(body: Batch) -> Response:  # pyright: ignore[reportInvalidTypeForm]
        answers = await asyncio.gather(*(predicted_or_error(hosted, each) for each in body.requests))  # pyright: ignore[reportAttributeAccessIssue]
        return json_response({'answers': answers})

    async def card() -> Response:
        return json_response(hosted.card)

    options: dict[str, Any] = {'tags': tag, 'responses': REFUSALS}
    if hosted.generates:
        Generate = bodies['generate']

        async def generate(body: Generate) -> Response:  # pyright: ignore[reportInvalidTypeForm]
            return await generated(hosted, body)

        router.add_api_route(
            f'{address}/generate', generate, methods=['POST'], summary='Generate a text', **options
        )

    router.add_api_route(address, card, methods=['GET'], summary='What the model is', tags=options['tags'])
    router.add_api_route(f'{address}/predict', predict, methods=['POST'], summary='Answer one request', **options)
    router.add_api_route(
        f'{address}/predict:batch', predict_batch, methods=['POST'], summary='Answer several requests', **options
    )


def routes(models: Mapping[str, Hosted], server: ServerSettings) -> fastapi.APIRouter:
    """The routes of all models."""
    del server
    router = fastapi.APIRouter()

    @router.get('/models', tags=['models'])
    async def listed() -> Response:
        return json_response({'models': [hosted.card for hosted in models.values()]})

    for hosted in models.values():
        add_model(router, hosted)

    @router.api_route('/models/{name}/{rest:path}', methods=['GET', 'POST'], include_in_schema=False)
    @router.get('/models/{name}', include_in_schema=False)
    async def unknown(name: str, rest: Literal['predict', 'predict:batch', 'generate', ''] | str = '') -> Response:
        if name in models:
            reason = 'it does not generate text' if rest == 'generate' else f'there is no address {rest[:40]!r}'
            raise RequestError(404, f'the model {name!r} is served, but {reason}', code='not_found')
        reason = f'no model {name[:64]!r} is served; {nearest(name[:64], models)}'
        raise RequestError(404, reason, code='model_not_found')

    return router
