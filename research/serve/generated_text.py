"""Generated texts as text-generation-inference writes them: details of every token, and events of a stream."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from research.inference.text_requests import Finish, Piece, TextRequest
from research.serve.errors import RequestError

NUMBERS = {  # parameter: its smallest and largest value, and whether it is a whole number
    'max_new_tokens': (1, 10**6, True),
    'temperature': (0, 100, False),
    'top_k': (1, 2**31 - 1, True),
    'top_p': (0, 1, False),
    'repetition_penalty': (0.01, 100, False),
    'top_n_tokens': (0, 20, True),
}
FLAGS = ('details', 'return_full_text', 'do_sample')
WITHOUT_EFFECT = {  # parameters with the values that ask for nothing
    'best_of': (1,), 'decoder_input_details': (False,), 'frequency_penalty': (0, 0.0), 'typical_p': (1, 1.0),
    'watermark': (False,),
}  # fmt: skip
MAX_STOPS, MAX_STOP = 4, 64


class Options(NamedTuple):
    """The parameters of a request; None: the task's own setting."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    top_n_tokens: int = 0
    details: bool = False
    return_full_text: bool = False
    do_sample: bool | None = None
    stop: tuple[str, ...] = ()


def read_options(parameters: Mapping[str, Any]) -> Options:
    """Checks the parameters of a request.

    Raises:
      RequestError: 400, for a parameter that is unknown, not supported, or out of range.
    """
    values: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in NUMBERS:
            values[name] = number_of(name, value)
        elif name in FLAGS and isinstance(value, bool):
            values[name] = value
        elif name in ('stop', 'stop_sequences'):
            values['stop'] = stops_of(name, value)
        elif name not in WITHOUT_EFFECT or value not in WITHOUT_EFFECT[name]:
            raise RequestError(400, f'parameter {name:.40}={value!r:.40} is not supported', f'parameters.{name:.40}')
    return Options(**values)


def number_of(name: str, value: Any) -> Any:
    """A number within its range."""
    low, high, whole = NUMBERS[name]
    fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or not low <= value <= high:
        about = 'a whole number' if whole else 'a number'
        raise RequestError(
            400, f'{name} must be {about} from {low} to {high:,}, got {value!r:.40}', f'parameters.{name}'
        )
    return value


def stops_of(name: str, value: Any) -> tuple[str, ...]:
    """The strings that end a text."""
    texts = value if isinstance(value, list) else [value]
    if len(texts) > MAX_STOPS or not all(isinstance(text, str) and 0 < len(text) <= MAX_STOP for text in texts):
        raise RequestError(
            400, f'{name} must be at most {MAX_STOPS} texts of 1 to {MAX_STOP} characters', f'parameters.{name}'
        )
    return tuple(texts)


def text_request(raw: Mapping[str, Any], options: Options, seed: int) -> TextRequest:
    """The request of the engine."""
    given = {
        name: getattr(options, name)
        for name in ('temperature', 'top_k', 'top_p', 'repetition_penalty')
        if getattr(options, name) is not None
    }
    if options.do_sample is False:
        given['temperature'] = 0.0
    return TextRequest(
        raw, max_tokens=options.max_new_tokens or 0, seed=seed, stop=options.stop, top_logprobs=options.top_n_tokens,
        **given,
    )  # fmt: skip


def shared_out(text: str, names: Sequence[str]) -> list[str]:
    """Divides the text of several tokens among them: to each its own text where that comes next, and the rest to the
    last, so that together they are the whole text.
    """
    parts, rest = [], text
    for name in names[:-1]:
        parts.append(name if name and rest.startswith(name) else '')
        rest = rest[len(parts[-1]) :]
    return [*parts, rest] if names else []


class Writer:
    """Writes one text as its pieces arrive.

    Args:
      options: the parameters of the request.
      prompt: the text that is continued, put before the whole answer if the request wants that.
      seed: the seed of the request.
      token_text: (id) -> the text of a token.
      ends: the ids of the tokens that end a text.
    """

    def __init__(self, options: Options, prompt: str, seed: int, token_text: Callable[[int], str], ends: Sequence[int]):
        self.options, self.prompt, self.seed = options, prompt, seed
        self.token_text, self.ends = token_text, frozenset(ends)
        self.text, self.tokens, self.top, self.finish = '', [], [], 'length'

    def add(self, piece: Piece) -> list[dict[str, Any]]:
        """The events of a piece, one for each token; the last event of a text has all of it."""
        texts = shared_out(piece.text, [self.token_text(token) for token in piece.tokens])
        new = [self.token(*row) for row in zip(piece.tokens, piece.logprobs, texts, strict=True)]
        tops = [[self.token(index, value, self.token_text(index)) for index, value in row] for row in piece.top]
        self.tokens += new
        self.top += tops
        self.text += piece.text
        if not new and (piece.text or piece.finish):  # the rest of a text, without a token of its own
            new = [{'id': -1, 'text': piece.text, 'logprob': 0.0, 'special': True}]
        count = len(self.tokens) - len(new)
        events: list[dict[str, Any]] = [
            {'index': count + number + 1, 'token': token, 'generated_text': None, 'details': None}
            for number, token in enumerate(new)
        ]
        if self.options.top_n_tokens:
            for event, top in zip(events, tops, strict=False):
                event['top_tokens'] = top[: self.options.top_n_tokens]
        if piece.finish:
            ended = self.tokens and self.tokens[-1]['id'] in self.ends
            self.finish = 'length' if piece.finish is Finish.LENGTH else 'eos_token' if ended else 'stop_sequence'
            events[-1] |= {'generated_text': self.whole_text, 'details': self.summary}
        return events

    def token(self, index: int, logprob: float, text: str) -> dict[str, Any]:
        """One token."""
        return {'id': index, 'text': text, 'logprob': logprob, 'special': index in self.ends}

    @property
    def whole_text(self) -> str:
        """The text, after its prompt if the request wants that."""
        return self.prompt + self.text if self.options.return_full_text else self.text

    @property
    def summary(self) -> dict[str, Any]:
        """How the text ended."""
        return {'finish_reason': self.finish, 'generated_tokens': len(self.tokens), 'seed': self.seed}

    def answer(self) -> dict[str, Any]:
        """The answer of a request without a stream."""
        answer: dict[str, Any] = {'generated_text': self.whole_text}
        if self.options.details:
            answer['details'] = {**self.summary, 'prefill': [], 'tokens': self.tokens}
            if self.options.top_n_tokens:
                answer['details']['top_tokens'] = [row[: self.options.top_n_tokens] for row in self.top]
        return answer
