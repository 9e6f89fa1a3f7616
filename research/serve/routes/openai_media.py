"""The OpenAI dialect beside text: embeddings, generated pictures, and transcriptions."""

import base64
import time
from collections.abc import Mapping, Sequence
from typing import Any

import fastapi
import numpy as np
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from jaxtyping import Float
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from research.core.task import Task
from research.data.audio.sounds import seconds_of
from research.data.outputs import Picture, png
from research.inference.features import only_text
from research.serve.errors import RequestError
from research.serve.hosted import Hosted
from research.serve.routes.openai_schema import MAX_SEED, EmbeddingRequest, ImageRequest, parsed

FORMATS = ('json', 'text', 'verbose_json')  # of transcriptions
NEUTRAL = {  # further fields of a transcription request, at the only values that are supported
    'prompt': ('',), 'temperature': ('0', '0.0'), 'stream': ('false',),
}  # fmt: skip
MAX_FIELDS, MAX_FIELD_BYTES = 16, 4096  # of a form, besides its file


def named(models: Mapping[str, Hosted], name: str | None) -> Hosted:
    """The model of a request; without a name, the only one.

    Raises:
      RequestError: 404 for an unknown name.
    """
    if name is None and len(models) == 1:
        return next(iter(models.values()))
    if name is None or name not in models:
        known = ', '.join(models)
        message = (
            f'the model {name!r:.80} does not exist; this server has {known}' if name else f'name a model: {known}'
        )
        raise RequestError(404, message, 'model', 'model_not_found')
    return models[name]


def unsuitable(hosted: Hosted, problem: str) -> RequestError:
    """The refusal of a model that cannot answer at this address."""
    return RequestError(400, f'the model {hosted.name!r} {problem}', 'model', 'unsupported_model')


async def embeddings(models: Mapping[str, Hosted], body: bytes) -> Response:
    """POST /v1/embeddings: the activations before a model's head, as vectors of length 1."""
    asked = parsed(EmbeddingRequest, body)
    hosted = named(models, asked.model)
    if not hosted.embeds:
        raise unsuitable(hosted, 'has no embeddings of texts')
    field = only_text(hosted.model.task)
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    vectors = unit(np.stack(await hosted.embed([{field: text} for text in texts])))
    if asked.dimensions not in (None, vectors.shape[1]):
        raise RequestError(400, f'dimensions: this model has {vectors.shape[1]}', 'dimensions')
    data = [
        {'object': 'embedding', 'index': index, 'embedding': encoded(vector, asked.encoding_format or 'float')}
        for index, vector in enumerate(vectors)
    ]
    tokens = await hosted.work(lambda: sum(prompt_length(hosted.model.task, {field: text}) for text in texts))
    usage = {'prompt_tokens': tokens, 'total_tokens': tokens}
    return JSONResponse({'object': 'list', 'data': data, 'model': hosted.name, 'usage': usage})


def prompt_length(task: Task, raw: Mapping[str, Any]) -> int:
    """The number of tokens of a request's text, 0 for a task without tokens."""
    parts = task.split(raw) if task.split else [raw]
    rows = [task.encode(part) for part in parts]
    return sum(int(row.get('source_length', row.get('length', 0))) for row in rows)


def unit(vectors: Float[np.ndarray, 'texts width']) -> Float[np.ndarray, 'texts width']:
    """Vectors scaled to length 1, so that a dot product is a cosine."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def encoded(vector: Float[np.ndarray, 'width'], form: str) -> Any:
    """A vector as numbers, or as base64 of little-endian float32."""
    return base64.b64encode(vector.astype('<f4').tobytes()).decode() if form == 'base64' else vector.tolist()


async def images(models: Mapping[str, Hosted], body: bytes) -> Response:
    """POST /v1/images/generations: pictures of consecutive seeds; the prompt is the name of a class, or empty."""
    asked = parsed(ImageRequest, body)
    hosted = named(models, asked.model)
    if not draws(hosted.model.task):
        raise unsuitable(hosted, 'generates no pictures')
    classes = [name for name, field in hosted.model.task.inputs.items() if field.kind == 'category']
    if asked.prompt and not classes:
        raise RequestError(400, 'prompt: this model draws without a prompt: send an empty one', 'prompt')
    seeds = [((asked.seed or 0) + number) % (MAX_SEED + 1) for number in range(asked.n or 1)]
    label = {classes[0]: int(asked.prompt) if asked.prompt.isdecimal() else asked.prompt} if asked.prompt else {}
    answers = await hosted.answer([{'seed': seed, **label} for seed in seeds])
    pictures = [picture_of(hosted, answer.decoded) for answer in answers]
    height, width = pictures[0].pixels.shape[:2]
    if asked.size not in (None, 'auto', size := f'{width}x{height}'):
        raise RequestError(400, f'size: this model draws {size}', 'size')
    data = [
        {'b64_json': base64.b64encode(png(picture.pixels)).decode(), 'seed': seed}
        for picture, seed in zip(pictures, seeds, strict=True)
    ]
    return JSONResponse({'created': int(time.time()), 'data': data, 'size': size, 'output_format': 'png'})


def draws(task: Task) -> bool:
    """Whether a task needs nothing but a seed and perhaps a class."""
    return 'seed' in task.inputs and all(field.kind in ('number', 'category') for field in task.inputs.values())


def picture_of(hosted: Hosted, answer: Any) -> Picture:
    """The picture of an answer; raises RequestError for a model that makes other things from a seed."""
    values = answer.values() if isinstance(answer, Mapping) else [answer]
    for value in values:
        if isinstance(value, Picture):
            return value
    raise unsuitable(hosted, 'generates no pictures')


async def transcriptions(models: Mapping[str, Hosted], request: fastapi.Request) -> Response:
    """POST /v1/audio/transcriptions: the text of a sound file in a multipart form."""
    fields, sound = await form_of(request)
    hosted = named(models, fields.get('model'))
    form = fields.get('response_format', 'json')
    if form not in FORMATS:
        raise RequestError(400, f'response_format: choose one of {", ".join(FORMATS)}', 'response_format')
    names = [name for name, field in hosted.model.task.inputs.items() if field.kind == 'audio']
    if len(names) != 1:
        raise unsuitable(hosted, 'transcribes no sounds')
    decoded = (await hosted.answer([{names[0]: sound}]))[0].decoded
    text = decoded.get('text') if isinstance(decoded, Mapping) else None
    if not isinstance(text, str):
        raise unsuitable(hosted, 'transcribes no sounds')
    if form == 'text':
        return PlainTextResponse(text + '\n')
    seconds = seconds_of(sound)
    if form == 'verbose_json':
        details = {'task': 'transcribe', 'language': '', 'duration': seconds, 'text': text, 'segments': []}
        return JSONResponse({**details, 'usage': {'type': 'duration', 'seconds': seconds}})
    return JSONResponse({'text': text, 'usage': {'type': 'duration', 'seconds': seconds}})


async def form_of(request: fastapi.Request) -> tuple[dict[str, str], bytes]:
    """The fields of a form, and the content of its file.

    Raises:
      RequestError: 400 for anything but a form with one file and known fields, 415 for another type of content.
    """
    if not request.headers.get('content-type', '').startswith('multipart/form-data'):
        raise RequestError(415, 'send multipart/form-data with a file', 'file')
    try:
        form = await request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
    except (MultiPartException, fastapi.HTTPException):
        raise RequestError(400, 'the form is not valid multipart/form-data with one file') from None
    sound, fields = b'', {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != 'file':
                raise RequestError(400, f"{name!r:.40}: send the sound in the field 'file'", 'file')
            sound = await value.read()
        else:
            fields[name] = value
    await form.close()
    if not sound:
        raise RequestError(400, 'file: it is missing or empty', 'file', 'missing_required_parameter')
    check_fields(fields, ('model', 'response_format'))
    return fields, sound


def check_fields(fields: Mapping[str, str], known: Sequence[str]) -> None:
    """Raises RequestError for a field that this server does not support."""
    for name, value in fields.items():
        if name not in known and value not in NEUTRAL.get(name, ()):
            only = f'supports only {NEUTRAL[name][0]!r}' if name in NEUTRAL else 'does not support it'
            raise RequestError(400, f'{name:.40}: this server {only}', name[:40], 'unsupported_parameter')
