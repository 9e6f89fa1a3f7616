"""The task routes of Hugging Face: `huggingface_hub.InferenceClient(model='http://HOST/hf/NAME')` for every task.

    POST /hf/NAME                                the answer in the form of the client's method
    POST /hf/NAME/pipeline/feature-extraction    the embedding of a text, for models that have one
    POST /hf/NAME/pipeline/sentence-similarity   cosines of embeddings
    GET  /hf/NAME/info, /hf/NAME/health

Text generation follows text-generation-inference: parameters, details, and a stream of one event for each token.
"""

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from research.inference.text_requests import Piece
from research.serve import generated_text
from research.serve.errors import RequestError
from research.serve.hosted import Hosted
from research.serve.limits import parse_json
from research.serve.settings import ServerSettings
from research.serve.task_answers import File, TaskRequest, read_file, read_task, write_task


def routes(models: Mapping[str, Hosted], server: ServerSettings) -> APIRouter:
    """The task routes of the models of a server."""
    router = APIRouter(prefix='/hf', include_in_schema=False)

    def hosted_of(name: str) -> Hosted:
        if name not in models:
            raise RequestError(404, f'there is no model {name!r:.80}; models: {", ".join(models)}', 'name')
        return models[name]

    @router.post('/{name}')
    async def task(request: Request, name: str) -> Response:
        return await answer_body(hosted_of(name), await request.body(), request.headers.get('content-type', ''))

    @router.post('/{name}/pipeline/feature-extraction')
    async def features(request: Request, name: str) -> Response:
        body = object_of(await request.body())
        texts = body.get('inputs')
        values = await embeddings(hosted_of(name), texts if isinstance(texts, list) else [texts])
        if body.get('normalize') is True:
            values = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
        return reply(values.tolist())

    @router.post('/{name}/pipeline/sentence-similarity')
    async def similarity(request: Request, name: str) -> Response:
        pair = object_of(await request.body()).get('inputs')
        pair = pair if isinstance(pair, dict) else {}
        others = pair.get('sentences')
        values = await embeddings(
            hosted_of(name), [pair.get('source_sentence'), *(others if isinstance(others, list) else [])]
        )
        values = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
        return reply((values[1:] @ values[0]).tolist())

    @router.get('/{name}/info')
    def info(name: str) -> dict[str, Any]:
        card = hosted_of(name).card
        return {'model_id': name, 'model_sha': card['fingerprint'], 'task': card['task'], 'inputs': card['inputs']}

    @router.get('/{name}/health')
    def health(name: str) -> Response:
        hosted_of(name)
        return reply({'ready': server.ready}, 200 if server.ready else 503)

    return router


def reply(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value, ensure_ascii=False, allow_nan=False), status, media_type='application/json')


def object_of(body: bytes) -> Mapping[str, Any]:
    """The JSON object of a body."""
    value = parse_json(body)
    if not isinstance(value, dict):
        raise RequestError(400, 'the body must be a JSON object with "inputs"')
    return value


async def answer_body(hosted: Hosted, body: bytes, content_type: str) -> Response:
    """Answers a body in the form of the Hugging Face tasks.

    Args:
      hosted: the model.
      body: JSON, or the bytes of a file.
      content_type: its media type; the client sends none with bytes.
    """
    media_type = content_type.partition(';')[0].strip().lower()
    inputs = hosted.model.task.inputs
    if media_type != 'application/json' and (media_type or not body.lstrip()[:1] == b'{'):
        request = read_file(inputs, body)
    else:
        request = await hosted.work(lambda: read_task(inputs, object_of(body)))
        if hosted.generates and (request.stream or request.parameters):
            return await generate(hosted, request)
    answers = await hosted.answer(request.raws, request.seed)
    if request.stream:
        raise RequestError(400, 'this model answers at once: it has no stream', 'stream')
    decoded = [answer.decoded for answer in answers]
    answer = await hosted.work(lambda: write_task(inputs, request, decoded))  # may encode large pictures
    if isinstance(answer, File):
        return Response(answer.content, media_type=answer.media_type)
    return reply(answer)


async def generate(hosted: Hosted, request: TaskRequest) -> Response:
    """Generates one text with the parameters of text-generation-inference."""
    if len(request.raws) != 1:
        raise RequestError(400, 'one text at a time', 'inputs')
    assert hosted.engine is not None
    options = generated_text.read_options(request.parameters)
    prompt = next((value for value in request.raws[0].values() if isinstance(value, str)), '')
    ends = hosted.engine.generate.end
    writer = generated_text.Writer(options, prompt, request.seed, hosted.engine.texts.token_text, ends)
    pieces = hosted.generate(generated_text.text_request(request.raws[0], options, request.seed))
    if not request.stream:
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                writer.add(piece)
        return reply([writer.answer()])
    first = await anext(pieces)  # a mistake in the request is an answer of its own, not an event
    return StreamingResponse(events(writer, first, pieces), media_type='text/event-stream')


async def events(
    writer: generated_text.Writer, first: Piece, rest: AsyncGenerator[Piece, None]
) -> AsyncIterator[bytes]:
    """Server-sent events, one for each token; an error ends them."""
    async with contextlib.aclosing(rest):
        try:
            for event in writer.add(first):
                yield event_bytes(event)
            async for piece in rest:
                for event in writer.add(piece):
                    yield event_bytes(event)
        except RequestError as error:
            yield event_bytes({'error': error.message, 'error_type': 'generation'})


def event_bytes(value: Any) -> bytes:
    return b'data:' + json.dumps(value, ensure_ascii=False).encode() + b'\n\n'


async def embeddings(hosted: Hosted, texts: Sequence[Any]) -> np.ndarray:
    """The embeddings of texts, [texts, width]; raises RequestError for a model without."""
    if not hosted.embeds:
        raise RequestError(400, f'model {hosted.name!r} has no embeddings: it reads no text, or has no features')
    if not texts or not all(isinstance(text, str) for text in texts):
        raise RequestError(400, 'inputs must be one or more texts', 'inputs')
    inputs = hosted.model.task.inputs
    names = [name for name, field in inputs.items() if field.kind in ('text', 'sequence')]
    return np.asarray(await hosted.embed([{names[0]: text} for text in texts]), np.float64)
