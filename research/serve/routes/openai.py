"""The OpenAI dialect: models, completions, chat completions; `openai_media` has embeddings, pictures and sounds.

    GET  /v1/models                 POST /v1/completions         POST /v1/chat/completions
    POST /v1/embeddings             POST /v1/images/generations  POST /v1/audio/transcriptions

A sampling setting that a request leaves out is that of the task, and `seed` is then 0: the same request has the same
answer, that of `launch.predict` with the same seed. Fields outside `openai_schema` are refused by name.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import fastapi
from fastapi.responses import JSONResponse, Response, StreamingResponse

from research.inference.text_requests import Piece, TextRequest, Ticket
from research.serve.chat import Chat, prompt_of, read_chat
from research.serve.errors import RequestError
from research.serve.hosted import Hosted
from research.serve.routes import openai_media
from research.serve.routes.openai_schema import (
    MAX_TEXTS,
    ChatRequest,
    CompletionRequest,
    Message,
    Sampling,
    StreamOptions,
    parsed,
)
from research.serve.routes.openai_text import (
    Part,
    Shape,
    chat_shape,
    completion_shape,
    events,
    head_of,
    whole_answer,
)
from research.serve.settings import ServerSettings

Prompt = str | tuple[int, ...]


class TextSide(NamedTuple):
    """What completions need of a model beside the engine."""

    field: str  # of a request: the prompt
    spell: Callable[[int], bytes]  # the bytes of a token
    chat: Chat | None


def text_side(hosted: Hosted) -> TextSide:
    """Reads the chat template and the tokenizer of a model that generates text."""
    task, engine = hosted.model.task, hosted.engine
    assert engine is not None  # it generates
    field = next(name for name, field in task.inputs.items() if field.kind in ('text', 'sequence'))
    return TextSide(field, engine.texts.token_bytes, read_chat(hosted.model.workdir / 'prepared'))


def routes(models: Mapping[str, Hosted], server: ServerSettings) -> fastapi.APIRouter:
    """The routes of the dialect for the hosted models."""
    del server
    router = fastapi.APIRouter(include_in_schema=False)
    texts = {name: text_side(hosted) for name, hosted in models.items() if hosted.generates}

    @router.get('/v1/models')
    async def listed() -> Response:
        return JSONResponse({'object': 'list', 'data': [model_object(hosted) for hosted in models.values()]})

    @router.post('/v1/completions')
    async def completed(request: fastapi.Request) -> Response:
        return await completions(models, texts, await request.body())

    @router.post('/v1/chat/completions')
    async def chatted(request: fastapi.Request) -> Response:
        return await chat_completions(models, texts, await request.body())

    @router.post('/hf/{name}/v1/chat/completions')  # where the Hugging Face client looks for it
    async def chatted_with(name: str, request: fastapi.Request) -> Response:
        return await chat_completions(models, texts, await request.body(), name)

    @router.post('/v1/embeddings')
    async def embedded(request: fastapi.Request) -> Response:
        return await openai_media.embeddings(models, await request.body())

    @router.post('/v1/images/generations')
    async def drawn(request: fastapi.Request) -> Response:
        return await openai_media.images(models, await request.body())

    @router.post('/v1/audio/transcriptions')
    async def transcribed(request: fastapi.Request) -> Response:
        return await openai_media.transcriptions(models, request)

    return router


def model_object(hosted: Hosted) -> dict[str, Any]:
    """A model as OpenAI lists it."""
    return {'id': hosted.name, 'object': 'model', 'created': hosted.created, 'owned_by': 'tessera'}


def generating(models: Mapping[str, Hosted], name: str) -> Hosted:
    """The model of a request for text; raises RequestError for an unknown name, or a model that writes no text."""
    hosted = openai_media.named(models, name)
    if not hosted.generates:
        raise openai_media.unsuitable(hosted, 'generates no text')
    return hosted


async def completions(models: Mapping[str, Hosted], texts: Mapping[str, TextSide], body: bytes) -> Response:
    """POST /v1/completions."""
    asked = parsed(CompletionRequest, body)
    hosted = generating(models, asked.model)
    side, prompts, choices = texts[hosted.name], prompts_of(asked.prompt), asked.n or 1
    if asked.best_of is not None and asked.best_of != choices:
        raise RequestError(400, f'best_of: this server supports only the value of n, {choices}', 'best_of')
    if asked.echo and asked.logprobs is not None:
        raise RequestError(400, 'logprobs: not supported together with echo', 'logprobs')
    if asked.max_tokens == 0:
        raise RequestError(400, 'max_tokens: at least 1 token is written', 'max_tokens')
    if len(prompts) * choices > MAX_TEXTS:
        raise RequestError(400, f'n: at most {MAX_TEXTS} texts in one request, {len(prompts)} prompts times n', 'n')
    echoed = [text_of(side, prompt) for prompt in prompts] if asked.echo else None
    asks = [
        text_request(side, asked, prompt, asked.max_tokens, asked.logprobs, row) for row, prompt in enumerate(prompts)
    ]
    shape = completion_shape(side.spell, asked.logprobs, echoed, choices)
    return await respond(hosted, asked, asks, shape, ('text_completion', 'text_completion', 'cmpl'))


async def chat_completions(
    models: Mapping[str, Hosted], texts: Mapping[str, TextSide], body: bytes, name: str = ''
) -> Response:
    """POST /v1/chat/completions; `name` is that of the model if the path has it."""
    asked = parsed(ChatRequest, body)
    hosted = generating(models, name or asked.model)
    side = texts[hosted.name]
    if side.chat is None:
        message = f'the model {hosted.name!r} has no chat template; use /v1/completions'
        raise RequestError(400, message, 'messages', 'no_chat_template')
    if asked.top_logprobs and not asked.logprobs:
        raise RequestError(400, 'top_logprobs: needs logprobs=true', 'top_logprobs')
    top = (asked.top_logprobs or 0) if asked.logprobs else None
    prompt = prompt_of(side.chat, [message_of(message) for message in asked.messages])
    ask = text_request(side, asked, prompt, asked.max_completion_tokens or asked.max_tokens, top, 0)
    names = ('chat.completion', 'chat.completion.chunk', 'chatcmpl')
    return await respond(hosted, asked, [ask], chat_shape(side.spell, top), names)


def message_of(message: Message) -> dict[str, str]:
    """A message for a template: the role 'developer' is 'system' to models, and the parts of a text are joined."""
    content = message.content if isinstance(message.content, str) else ''.join(part.text for part in message.content)
    return {'role': 'system' if message.role == 'developer' else message.role, 'content': content}


def prompts_of(prompt: Any) -> list[Prompt]:
    """The prompts of a request, each a text or token ids."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [tuple(prompt)]
    return [item if isinstance(item, str) else tuple(item) for item in prompt]


def text_of(side: TextSide, prompt: Prompt) -> str:
    """A prompt as text, for its echo."""
    return prompt if isinstance(prompt, str) else b''.join(map(side.spell, prompt)).decode(errors='replace')


def text_request(
    side: TextSide, asked: Sampling, prompt: Prompt, max_tokens: int | None, top: int | None, row: int
) -> TextRequest:
    """One prompt for the engine; `row` is its number in the request, as that of a row of `launch.predict`."""
    is_text = isinstance(prompt, str)
    return TextRequest(
        raw={side.field: prompt} if is_text else {},
        tokens=() if is_text else prompt,
        max_tokens=max_tokens or 0,
        temperature=asked.temperature,
        top_k=None if asked.top_k is None else max(0, asked.top_k),
        top_p=asked.top_p,
        min_p=asked.min_p or 0.0,
        repetition_penalty=1.0 if asked.repetition_penalty is None else asked.repetition_penalty,
        seed=asked.seed or 0,
        index=row,
        n=asked.n or 1,
        stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
        top_logprobs=top or 0,
        ignore_end=bool(asked.ignore_eos),
    )


async def respond(
    hosted: Hosted,
    asked: Sampling,
    asks: Sequence[TextRequest],
    shape: Shape,
    names: tuple[str, str, str],
) -> Response:
    """Generates the texts and answers, whole or as a stream.

    The first piece is awaited before a stream begins, so that a refusal has its own status. A client that goes away
    closes `parts` and with it the slots of the engine.

    Args:
      hosted: the model.
      asked: the request's settings.
      asks: the prompts.
      shape: renders the texts.
      names: the object of an answer, of an event, and the prefix of ids.
    """
    count, options = sum(ask.n for ask in asks), asked.stream_options or StreamOptions()
    if asked.stream_options and not asked.stream:
        raise RequestError(400, 'stream_options: needs stream=true', 'stream_options')
    head = head_of(names[bool(asked.stream)], names[2], hosted.name, hosted.fingerprint)
    parts = merged([hosted.pieces(ask) for ask in asks], [ask.n for ask in asks])
    if not asked.stream:
        async with contextlib.aclosing(parts):
            return Response(await whole_answer(head, shape, count, parts), media_type='application/json')
    first = await anext(parts)
    stream = events(head, shape, count, resumed(first, parts), options.include_usage, options.continuous_usage_stats)
    headers = {'X-Accel-Buffering': 'no'}  # for nginx
    return StreamingResponse(stream, headers=headers, media_type='text/event-stream')


async def merged(
    texts: Sequence[AsyncIterator[tuple[Piece, Ticket]]], counts: Sequence[int]
) -> AsyncGenerator[Part, None]:
    """Yields the pieces of several prompts as they come; closing it closes them all.

    Args:
      texts: the pieces of each prompt, which has `counts` texts.
      counts: see `texts`.
    """
    queue: asyncio.Queue[Part | Exception | None] = asyncio.Queue()

    async def read(pieces: AsyncIterator[tuple[Piece, Ticket]], start: int) -> None:
        try:
            async for piece, ticket in pieces:
                queue.put_nowait(Part(start + piece.index, piece, ticket))
            queue.put_nowait(None)
        except Exception as error:  # raised again below, in the task of the request
            queue.put_nowait(error)

    starts = itertools.accumulate(counts[:-1], initial=0)
    tasks = [asyncio.create_task(read(pieces, start)) for pieces, start in zip(texts, starts, strict=True)]
    try:
        running = len(tasks)
        while running:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pieces in texts:
            await pieces.aclose()  # pyright: ignore[reportAttributeAccessIssue]


async def resumed(first: Part, rest: AsyncGenerator[Part, None]) -> AsyncIterator[Part]:
    """A first part and the rest, which is closed with this."""
    try:
        yield first
        async for part in rest:
            yield part
    finally:
        await rest.aclose()
