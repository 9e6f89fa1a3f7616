"""Answers of the OpenAI dialect from generated pieces of text: whole, or as a stream of events.

A piece is what one dispatch of the engine adds to one text, so a stream has one event per dispatch.
"""

import codecs
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import orjson

from research.inference.text_requests import Piece, Ticket
from research.serve.errors import RequestError, content

DONE = b'data: [DONE]\n\n'


class Head(NamedTuple):
    """What all events of an answer have in common."""

    id: str
    object: str  # 'text_completion', 'chat.completion' or 'chat.completion.chunk'
    created: int  # seconds since 1970
    model: str
    system_fingerprint: str


def head_of(kind: str, prefix: str, model: str, fingerprint: str) -> Head:
    """The head of a new answer."""
    return Head(f'{prefix}-{secrets.token_hex(12)}', kind, int(time.time()), model, fingerprint)


@dataclasses.dataclass
class Written:
    """One text as far as it is written."""

    text: str = ''
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    top: list[Any] = dataclasses.field(default_factory=list)
    finish: str | None = None

    def add(self, piece: Piece) -> None:
        """Appends a piece."""
        self.text += piece.text
        self.tokens += piece.tokens
        self.logprobs += piece.logprobs
        self.top += piece.top
        self.finish = piece.finish.value if piece.finish else self.finish


class Shape(NamedTuple):
    """How an endpoint renders texts: the functions below make one for completions and one for chats."""

    whole: Callable[[int, Written], dict[str, Any]]  # (index, text) -> a choice
    event: Callable[[int, Piece], dict[str, Any]]  # (index, piece) -> a choice of an event
    first: Callable[[int], dict[str, Any] | None]  # (index) -> a choice of the events before all pieces


class Part(NamedTuple):
    """A piece of one of the texts of an answer."""

    index: int  # of the text
    piece: Piece
    ticket: Ticket  # of its prompt


class Usage:
    """Counts the tokens of an answer."""

    def __init__(self):
        self.tickets: dict[int, Ticket] = {}
        self.completion_tokens = 0

    def add(self, part: Part) -> None:
        """Counts a piece, and its prompt once."""
        self.tickets[id(part.ticket)] = part.ticket
        self.completion_tokens += len(part.piece.tokens)

    def counts(self) -> dict[str, Any]:
        """The usage as an answer reports it."""
        prompt_tokens = sum(ticket.prompt_tokens for ticket in self.tickets.values())
        cached_tokens = sum(ticket.cached_tokens for ticket in self.tickets.values())
        return {
            'prompt_tokens': prompt_tokens,
            'completion_tokens': self.completion_tokens,
            'total_tokens': prompt_tokens + self.completion_tokens,
            'prompt_tokens_details': {'cached_tokens': cached_tokens},
        }


async def whole_answer(head: Head, shape: Shape, count: int, parts: AsyncIterator[Part]) -> bytes:
    """The answer with all texts, as JSON; `count` is the number of texts."""
    texts, usage = [Written() for _ in range(count)], Usage()
    async for part in parts:
        texts[part.index].add(part.piece)
        usage.add(part)
    choices = [shape.whole(index, text) for index, text in enumerate(texts)]
    return orjson.dumps({**head._asdict(), 'choices': choices, 'usage': usage.counts()})


async def events(
    head: Head, shape: Shape, count: int, parts: AsyncIterator[Part], last: bool = False, always: bool = False
) -> AsyncIterator[bytes]:
    """The answer as server-sent events; an error is the last event.

    Args:
      head: of all events.
      shape: renders the texts.
      count: the number of texts.
      parts: their pieces.
      last: one more event reports the usage.
      always: every event reports it.
    """
    usage, counted = Usage(), last or always

    def event(choices: Sequence[Any], shown: bool = always) -> bytes:
        body: dict[str, Any] = {**head._asdict(), 'choices': choices}
        if counted:
            body['usage'] = usage.counts() if shown else None
        return b'data: ' + orjson.dumps(body) + b'\n\n'

    for index in range(count):
        if (choice := shape.first(index)) is not None:
            yield event([choice])
    try:
        async for part in parts:
            usage.add(part)
            if part.piece.text or part.piece.tokens or part.piece.finish:
                yield event([shape.event(part.index, part.piece)])
    except RequestError as error:
        yield b'data: ' + orjson.dumps(content(error, '/v1/completions')) + b'\n\n'
        return
    if counted:
        yield event([], True)
    yield DONE


def completion_shape(
    bytes_of: Callable[[int], bytes], top: int | None, echoed: Sequence[str] | None, choices: int
) -> Shape:
    """The texts of /v1/completions.

    Args:
      bytes_of: (id of a token) -> the bytes that it stands for.
      top: the number of most probable tokens to report at each position; None reports no probabilities.
      echoed: the text of each prompt, which begins its answers; None leaves it out.
      choices: answers to each prompt.
    """
    positions: dict[int, Offsets] = {}

    def prompt(index: int) -> str:
        return echoed[index // choices] if echoed is not None else ''

    def logprobs(index: int, tokens: Sequence[int], values: Sequence[float], tops: Sequence[Any]) -> Any:
        if top is None:
            return None
        offsets = positions.setdefault(index, Offsets(len(prompt(index))))
        spellings = [bytes_of(token) for token in tokens]
        return {
            'tokens': [spelled(spelling) for spelling in spellings],
            'token_logprobs': list(values),
            'top_logprobs': [
                {spelled(bytes_of(token)): value for token, value in best[:top]} for best in tops
            ] if top else None,
            'text_offset': [offsets.add(spelling) for spelling in spellings],
        }  # fmt: skip

    def choice(index: int, text: str, probabilities: Any, finish: str | None) -> dict[str, Any]:
        return {'index': index, 'text': text, 'logprobs': probabilities, 'finish_reason': finish}

    def whole(index: int, written: Written) -> dict[str, Any]:
        probabilities = logprobs(index, written.tokens, written.logprobs, written.top)
        return choice(index, prompt(index) + written.text, probabilities, written.finish)

    def event(index: int, piece: Piece) -> dict[str, Any]:
        probabilities = logprobs(index, piece.tokens, piece.logprobs, piece.top)
        return choice(index, piece.text, probabilities, piece.finish.value if piece.finish else None)

    def first(index: int) -> dict[str, Any] | None:
        return choice(index, prompt(index), None, None) if echoed is not None else None

    return Shape(whole, event, first)


def chat_shape(bytes_of: Callable[[int], bytes], top: int | None) -> Shape:
    """The messages of /v1/chat/completions; arguments as of `completion_shape`."""

    def token(index: int, value: float) -> dict[str, Any]:
        spelling = bytes_of(index)
        return {'token': spelling.decode(errors='replace'), 'logprob': value, 'bytes': list(spelling)}

    def logprobs(tokens: Sequence[int], values: Sequence[float], tops: Sequence[Any]) -> Any:
        if top is None:
            return None
        rows = zip(tokens, values, tops or [()] * len(tokens), strict=True)
        content = [
            {**token(index, value), 'top_logprobs': [token(*pair) for pair in best[:top]]}
            for index, value, best in rows
        ]
        return {'content': content, 'refusal': None}

    def whole(index: int, written: Written) -> dict[str, Any]:
        message = {'role': 'assistant', 'content': written.text, 'refusal': None}
        probabilities = logprobs(written.tokens, written.logprobs, written.top)
        return {'index': index, 'message': message, 'logprobs': probabilities, 'finish_reason': written.finish}

    def event(index: int, piece: Piece) -> dict[str, Any]:
        delta = {'content': piece.text} if piece.text or piece.tokens else {}
        finish = piece.finish.value if piece.finish else None
        probabilities = logprobs(piece.tokens, piece.logprobs, piece.top)
        return {'index': index, 'delta': delta, 'logprobs': probabilities, 'finish_reason': finish}

    def first(index: int) -> dict[str, Any]:
        delta = {'role': 'assistant', 'content': '', 'refusal': None}
        return {'index': index, 'delta': delta, 'logprobs': None, 'finish_reason': None}

    return Shape(whole, event, first)


class Offsets:
    """Counts the characters of a text that is known as the bytes of its tokens."""

    def __init__(self, start: int):
        self.count = start
        self.decoder = codecs.getincrementaldecoder('utf-8')(errors='replace')

    def add(self, spelling: bytes) -> int:
        """Where a token begins: the number of whole characters before it."""
        start = self.count
        self.count += len(self.decoder.decode(spelling))
        return start


def spelled(spelling: bytes) -> str:
    """A token as text; one that is not whole characters as 'bytes:\\xe2\\x80', as OpenAI writes it."""
    try:
        return spelling.decode()
    except UnicodeDecodeError:
        return 'bytes:' + ''.join(f'\\x{byte:02x}' for byte in spelling)
