"""The access log: one line of JSON for each request, without any content of requests or answers."""

import time
import traceback
from collections.abc import Callable
from typing import Any

import orjson

from research.serve.context import RequestNotes


def line(scope: dict[str, Any], notes: RequestNotes, route: str, code: int, seconds: float) -> str:
    """The line of a request; the path is that of the route, so a client cannot write into the log."""
    entry: dict[str, Any] = {
        'time': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        'id': notes.request_id,
        'client': notes.client,
        'method': scope['method'] if scope['method'].isalpha() else '?',
        'route': route,
        'model': notes.model,
        'code': code,
        'milliseconds': milliseconds(seconds),
        'queue': milliseconds(notes.queue_seconds),
        'compute': milliseconds(notes.compute_seconds),
    }
    if notes.tokens or notes.prompt_tokens:
        entry |= {'prompt_tokens': notes.prompt_tokens, 'tokens': notes.tokens}
    return orjson.dumps(entry).decode()


def bug(write: Callable[[str], None], request_id: str, error: BaseException) -> None:
    """Writes the stack trace of an unexpected error, which the client does not see."""
    trace = ''.join(traceback.format_exception(error))
    write(orjson.dumps({'id': request_id, 'error': trace}).decode())


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
