"""Requests of the OpenAI dialect: the fields that are read, their bounds, and fields accepted only at their defaults.

An unknown field, or one whose value would change the answer in a way that this server cannot, is an error that names
the field: a setting is never silently ignored. Fields without effect on an answer ('user', 'metadata') are accepted.
`top_k`, `min_p`, `repetition_penalty`, `ignore_eos` and `continuous_usage_stats` are named as in vLLM.
"""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from research.serve.errors import RequestError

MAX_PROMPTS, MAX_CHOICES, MAX_TEXTS = 64, 16, 64  # of a request: prompts, choices of each, and their product
MAX_STOPS, MAX_STOP_LENGTH = 4, 64
MAX_COMPLETION_LOGPROBS, MAX_LOGPROBS = 5, 20
MAX_SEED = 2**31 - 1
MAX_TOKENS = 1_000_000  # the model's own limit is lower
MAX_MESSAGES, MAX_CHARACTERS = 1024, 1_000_000
MAX_INPUTS = 256  # of an embeddings request

STRICT = pydantic.ConfigDict(extra='forbid', strict=True, allow_inf_nan=False)

Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]
Id = Annotated[int, Field(ge=0, le=2**31 - 1)]
Ids = Annotated[list[Id], Field(min_length=1, max_length=MAX_TOKENS)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None
ModelName = Annotated[str, Field(max_length=256)]
Label = Annotated[str, Field(max_length=512)]  # a text without effect on the answer
Metadata = dict[Annotated[str, Field(max_length=64)], Label]
Zero = Annotated[float, Field(ge=0, le=0)]


class StreamOptions(pydantic.BaseModel):
    """What a stream reports besides the text."""

    model_config = STRICT
    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: Literal[False] | None = None


class Sampling(pydantic.BaseModel):
    """Fields that completions and chats share; None takes the setting of the task."""

    model_config = STRICT
    model: ModelName
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = 1
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None = None  # -1 and 0: all tokens
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    ignore_eos: bool | None = False
    # Without effect on the answer:
    user: Label | None = None
    metadata: Annotated[Metadata, Field(max_length=16)] | None = None
    service_tier: Literal['auto', 'default'] | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    # Supported only at these values:
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None


class CompletionRequest(Sampling):
    """POST /v1/completions."""

    prompt: Text | Ids | Annotated[list[Text] | list[Ids], Field(min_length=1, max_length=MAX_PROMPTS)]
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_COMPLETION_LOGPROBS)] | None = None
    echo: bool | None = False
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    suffix: Literal[''] | None = None


class TextPart(pydantic.BaseModel):
    """A part of a message."""

    model_config = STRICT
    type: Literal['text']
    text: Text


class Message(pydantic.BaseModel):
    """A message of a conversation."""

    model_config = STRICT
    role: Literal['system', 'developer', 'user', 'assistant']
    content: Text | Annotated[list[TextPart], Field(max_length=64)]
    name: Label | None = None  # without effect
    refusal: None = None  # clients send back the message that they received
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: None = None
    audio: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None


class TextFormat(pydantic.BaseModel):
    """The only format of answers."""

    model_config = STRICT
    type: Literal['text']


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Tokens = None
    max_completion_tokens: Tokens = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    store: Literal[False] | None = None
    response_format: TextFormat | None = None
    modalities: list[Literal['text']] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal['none', 'auto'] | None = None
    parallel_tool_calls: bool | None = None  # without effect where there are no tools


class EmbeddingRequest(pydantic.BaseModel):
    """POST /v1/embeddings."""

    model_config = STRICT
    model: ModelName
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
    encoding_format: Literal['float', 'base64'] | None = 'float'
    dimensions: Annotated[int, Field(ge=1, le=1_000_000)] | None = None  # must be the width of the model
    user: Label | None = None


class ImageRequest(pydantic.BaseModel):
    """POST /v1/images/generations."""

    model_config = STRICT
    model: ModelName | None = None
    prompt: Annotated[str, Field(max_length=1000)] = ''
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = 1
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    size: Annotated[str, Field(max_length=20)] | None = None
    response_format: Literal['b64_json'] | None = None
    output_format: Literal['png'] | None = None
    background: Literal['auto', 'opaque'] | None = None
    quality: Literal['auto', 'standard'] | None = None
    moderation: Literal['auto', 'low'] | None = None
    user: Label | None = None


REQUESTS = (
    CompletionRequest,
    ChatRequest,
    Message,
    TextPart,
    TextFormat,
    StreamOptions,
    EmbeddingRequest,
    ImageRequest,
)
FIELDS = frozenset(name for kind in REQUESTS for name in kind.model_fields)
EXPECTED = {  # of fields with several types, for which pydantic reports only the first
    'prompt': f'a text, a list of token ids, or a list of at most {MAX_PROMPTS} of either',
    'stop': f'a text of at most {MAX_STOP_LENGTH} characters, or a list of at most {MAX_STOPS}',
    'content': 'a text, or a list of {"type": "text", "text": ...}',
    'frequency_penalty': '0, the only value that this server supports',
    'presence_penalty': '0, the only value that this server supports (repetition_penalty is supported)',
    'logit_bias': 'no biases: this server does not support them',
    'tools': 'no tools: this server does not support them',
    'suffix': 'no suffix: this server does not support it',
    'input': f'a text, or a list of at most {MAX_INPUTS} texts',
}
CODES = {'extra_forbidden': 'unsupported_parameter', 'missing': 'missing_required_parameter'}


def parsed(kind: type[pydantic.BaseModel], body: bytes) -> Any:
    """A request from the JSON of its body.

    Raises:
      RequestError: 400; names the first wrong field.
    """
    try:
        return kind.model_validate_json(body)
    except pydantic.ValidationError as error:
        raise refusal(error) from None


def refusal(error: pydantic.ValidationError) -> RequestError:
    """The first problem of a request as an error that names its field, without repeating values of the request."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first['type'] == 'json_invalid':
        return RequestError(400, 'the body is not valid JSON', code='invalid_json')
    path, problem = first['loc'], first['type']
    known = [part for part in path if isinstance(part, int) or part in FIELDS]  # others name the members of a union
    if problem == 'extra_forbidden':
        known = [*known, path[-1]] if path[-1] not in FIELDS else known
    field = '.'.join(map(str, known))[:64]
    expected = EXPECTED.get(next((part for part in reversed(known) if isinstance(part, str)), ''))
    texts = {'extra_forbidden': 'this server does not support it', 'missing': 'it is missing'}
    text = texts.get(problem) or (f'expected {expected}' if expected else first['msg'])
    return RequestError(
        400, f'{field or "the body"}: {text[0].lower()}{text[1:]}', field, CODES.get(problem, 'invalid_value')
    )
