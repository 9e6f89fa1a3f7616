"""Requests for generated texts, and the texts while they grow; host only."""

import enum
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from research.core.task import Decoding, Generate, Raw
from research.errors import UserError
from research.inference.programs import TOP, packed_numbers
from research.inference.texts import Texts, TextStream

MOST_COPIES = 128  # of one request
MOST_STOPS, LONGEST_STOP = 16, 256


class Finish(enum.Enum):
    """Why a text ended."""

    STOP = 'stop'  # an end token or a stop string
    LENGTH = 'length'  # max_tokens, or the model's positions are full


class TextRequest(NamedTuple):
    """A request for one or more texts; None takes the task's own setting."""

    raw: Raw = {}  # the fields of the task's request
    tokens: tuple[int, ...] = ()  # a prompt in ids, instead of `raw`, used as it is
    max_tokens: int = 0  # 0: the task's own setting
    temperature: float | None = None  # 0: greedy
    top_k: int | None = None  # 0: off
    top_p: float | None = None  # 1: off
    min_p: float = 0.0  # least probability relative to that of the most probable token
    repetition_penalty: float = 1.0  # of tokens of the prompt and the text
    seed: int = 0
    index: int = 0  # keys are folded from (seed, 'sample', index), as of row `index` of an offline prediction
    n: int = 1  # texts; the first is the one of n=1
    beams: int = 0  # above 0: beam search, the n best hypotheses
    stop: tuple[str, ...] = ()  # a text ends before the first complete one
    top_logprobs: int = 0  # most probable tokens reported for each token
    ignore_end: bool = False  # continue after end tokens


class Piece(NamedTuple):
    """What one dispatch adds to a text.

    Tokens whose characters are incomplete, or may begin a stop string, come before their text.
    """

    index: int  # of the n texts
    text: str
    tokens: tuple[int, ...] = ()  # with the end token, without the tokens after a stop string
    logprobs: tuple[float, ...] = ()  # in nats, of the raw distribution
    top: tuple[tuple[tuple[int, float], ...], ...] = ()  # (id, log-probability) of the most probable tokens
    finish: Finish | None = None  # of the last piece of a text


class Settings(NamedTuple):
    """A request's settings after the task's own are filled in."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float


LIMITS: Mapping[str, tuple[float, float]] = {  # inclusive
    'max_tokens': (1, 2**24), 'temperature': (0, 100), 'top_k': (0, 2**31 - 1), 'top_p': (1e-6, 1), 'min_p': (0, 1),
    'repetition_penalty': (0.01, 100), 'seed': (0, 2**31 - 1), 'index': (0, 2**31 - 1), 'n': (1, MOST_COPIES),
    'top_logprobs': (0, TOP), 'beams': (0, 64),
}  # fmt: skip


def settings_of(request: TextRequest, decoding: Decoding) -> Settings:
    """The settings of a request.

    Raises:
      UserError: for a value that is out of range, naming its field.
    """
    own = {'max_tokens': decoding.max_new_tokens} if not request.max_tokens else {}
    optional = ('temperature', 'top_k', 'top_p')
    own |= {name: getattr(decoding, name) for name in optional if getattr(request, name) is None}
    values = {**request._asdict(), **own}
    for name, (least, most) in LIMITS.items():
        value = values[name]
        if not math.isfinite(value) or not least <= value <= most:
            raise UserError(f'{name} must be from {least:g} to {most:g}, got {value!r:.40}')
    if len(request.stop) > MOST_STOPS or not all(0 < len(stop) <= LONGEST_STOP for stop in request.stop):
        raise UserError(f'stop: at most {MOST_STOPS} strings of 1 to {LONGEST_STOP} characters')
    if request.beams and request.n > request.beams:
        raise UserError(f'n={request.n} must be at most beams={request.beams}')
    return Settings(**{name: values[name] for name in Settings._fields})


def settings_numbers(ticket: 'Ticket', slot: int, copy: int) -> np.ndarray:
    """What `programs.insert` reads of a request."""
    request, settings = ticket.request, ticket.settings
    tokens, length = ticket.prompts['tokens'], ticket.prompt_tokens
    return packed_numbers(
        slot=slot, last=tokens[0, length - 1], room=ticket.room, seed=request.seed, index=request.index, copy=copy,
        top_k=settings.top_k, ignore_end=request.ignore_end, wants_top=request.top_logprobs > 0,
        temperature=settings.temperature, top_p=settings.top_p, min_p=settings.min_p,
        repetition_penalty=settings.repetition_penalty,
    )  # fmt: skip


class Ticket:
    """A submitted request; its texts are `texts`, and `error` is what ended it, or None."""

    def __init__(
        self, request: TextRequest, settings: Settings, prompts: Mapping[str, np.ndarray], room: int,
        on_piece: Callable[[Piece | BaseException], None] | None, streams: Texts | None,
    ):  # fmt: skip
        self.request, self.settings, self.prompts, self.room, self.on_piece = request, settings, prompts, room, on_piece
        self.prompt_tokens = int(prompts['length'][0])
        self.cached_tokens = 0  # of the prompt, that were not read again
        self.texts = [Text(self, copy, streams and streams.stream(request.stop)) for copy in range(request.n)]
        self.row: Any = None  # the prompt on the device, until all copies have it
        self.known = 0  # tokens of the prompt in `row`
        self.error: BaseException | None = None
        self.ended = threading.Event()
        self.cancelled = False
        self.wake: Callable[[], None] = lambda: None  # of the engine

    def cancel(self) -> None:
        """Ends the request; its slots are free after the dispatch that runs. From any thread, also repeatedly."""
        self.cancelled = True
        self.wake()

    def close(self, error: BaseException | None = None) -> None:
        """Ends the request on the engine's thread."""
        if self.ended.is_set():
            return
        self.error, self.row = error, None
        self.ended.set()
        if error is not None:
            self.tell(error)

    def tell(self, piece: Piece | BaseException) -> None:
        """Calls `on_piece`; if that fails, the request ends."""
        if self.on_piece is None or self.cancelled:
            return
        try:
            self.on_piece(piece)
        except Exception as error:
            self.cancelled, self.error = True, error

    def outputs(self, generate: Generate) -> dict[str, np.ndarray]:
        """The outputs of the first text as of one example of `predict`, for `task.decode`."""
        tokens = self.texts[0].tokens
        padded = np.zeros((1, max(self.settings.max_tokens, len(tokens))), np.int32)
        padded[0, : len(tokens)] = tokens
        assert generate.outputs is not None
        batch = generate.outputs(self.prompts, padded, np.array([len(tokens)], np.int32))
        return {name: np.asarray(value)[0] for name, value in batch.items()}


class Text:
    """One of the texts of a request.

    `taken` counts the tokens that the device has made, `tokens` those that belong to the text.
    """

    def __init__(self, ticket: Ticket, copy: int, stream: TextStream | None):
        self.ticket, self.copy, self.stream = ticket, copy, stream
        self.taken, self.tokens, self.logprobs = 0, [], []
        self.finish: Finish | None = None

    @property
    def done(self) -> bool:
        """Whether the text needs its slot no longer."""
        return self.finish is not None or self.ticket.cancelled or self.ticket.ended.is_set()

    def add(self, tokens: list[int], logprobs: list[float], top: Any, ended: Finish | None) -> None:
        """Adds the tokens of a dispatch and tells the piece; `ended` is why the device closed the text.

        Args:
          tokens, logprobs: of the dispatch.
          top: (ids, log-probabilities) [tokens, top].
          ended: None while the text continues.
        """
        if self.done:
            return
        text, count, stream = '', len(tokens), self.stream
        if stream is not None:
            for number, token in enumerate(tokens):
                text += stream.push(token)
                if stream.stopped:
                    count, ended = number + 1, Finish.STOP
                    break
            text += stream.finish() if ended else ''
        self.tokens += tokens[:count]
        self.logprobs += logprobs[:count]
        self.finish = ended
        if self.ticket.on_piece is not None and (count or ended):
            most, shown = self.ticket.request.top_logprobs, ()
            if most:
                ids, values = (array[:count, :most].tolist() for array in top)
                shown = tuple(tuple(zip(*row, strict=True)) for row in zip(ids, values, strict=True))
            self.ticket.tell(Piece(self.copy, text, tuple(tokens[:count]), tuple(logprobs[:count]), shown, ended))
        if ended and all(other.finish for other in self.ticket.texts):
            self.ticket.close()
