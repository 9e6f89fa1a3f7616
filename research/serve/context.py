"""The request that the current task of the event loop answers: its client, its deadline, and notes for the log."""

import contextvars
import dataclasses
import time
from collections.abc import Callable

NOBODY = 'local'


@dataclasses.dataclass
class RequestNotes:
    """Who asks, until when, and what the log and the metrics record about the answer; never its content."""

    request_id: str = ''
    client: str = NOBODY  # a hash of the token, or the address
    deadline: float = float('inf')  # on the clock of `time.monotonic`
    started: float = dataclasses.field(default_factory=time.monotonic)
    model: str = ''
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    first_token_seconds: float = 0.0
    last_piece: float = 0.0
    prompt_tokens: int = 0
    tokens: int = 0
    cleanup: list[Callable[[], None]] = dataclasses.field(default_factory=list)  # called when the request ends


current: contextvars.ContextVar[RequestNotes | None] = contextvars.ContextVar('tessera_request', default=None)


def notes() -> RequestNotes:
    """The notes of the current request; new ones outside of a request."""
    return current.get() or RequestNotes()
