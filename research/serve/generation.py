"""Texts from the generation engine: who gets the next slot, and the pieces of a text as they are made."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from research.serve.errors import RequestError

MAX_STOPS, MAX_STOP = 4, 64  # stop strings of a request, characters of each
MAX_TOP = 20  # most probable tokens reported
SPARE = 4  # requests that wait inside the engine, so that a free slot is taken at once


class Waiting(NamedTuple):
    """A request for texts that waits for its slots."""

    client: str
    texts: int
    admitted: asyncio.Future


def next_waiting(waiting: Sequence[Waiting], running: Mapping[str, int], places: int) -> Waiting | None:
    """The request that is next, None if no one may start.

    Whoever has the fewest texts running is first, and among these whoever came first. While others wait, no client gets
    more than half of the places; a request that does not fit keeps later ones from overtaking it.

    Args:
      waiting: in the order of arrival.
      running: texts of each client.
      places: texts at the same time.
    """
    clients = {request.client for request in waiting}
    share = places if len(clients) < 2 else max(1, places // 2)
    order = sorted(waiting, key=lambda request: running.get(request.client, 0))
    for request in order:
        mine = running.get(request.client, 0)
        if mine and mine + request.texts > share:
            continue
        return request if sum(running.values()) + request.texts <= places else None
    return None


class Gate:
    """Shares the slots of an engine among clients; used in the event loop only."""

    def __init__(self, slots: int):
        self.places = slots + min(SPARE, slots)
        self.running: dict[str, int] = {}
        self.waiting: list[Waiting] = []

    async def enter(self, client: str, texts: int) -> None:
        """Waits until `texts` more texts of a client may start."""
        request = Waiting(client, texts, asyncio.get_running_loop().create_future())
        self.waiting.append(request)
        self._advance()
        try:
            await request.admitted
        except asyncio.CancelledError:
            if request.admitted.done() and not request.admitted.cancelled():
                self.leave(client, texts)
            else:
                self.waiting.remove(request)
                self._advance()
            raise

    def leave(self, client: str, texts: int) -> None:
        """Gives the places of texts that have ended to the next."""
        self.running[client] -= texts
        if not self.running[client]:
            del self.running[client]
        self._advance()

    def _advance(self) -> None:
        while (request := next_waiting(self.waiting, self.running, self.places)) is not None:
            self.waiting.remove(request)
            if request.admitted.done():
                continue
            self.running[request.client] = self.running.get(request.client, 0) + request.texts
            request.admitted.set_result(None)


RANGES: dict[str, tuple[float, float]] = {
    'max_tokens': (0, 2**24), 'temperature': (0, 100), 'top_k': (0, 2**31 - 1), 'top_p': (1e-6, 1), 'min_p': (0, 1),
    'repetition_penalty': (0.01, 100), 'seed': (0, 2**31 - 1), 'top_logprobs': (0, MAX_TOP),
}  # fmt: skip


def check_text_request(request: Any, slots: int) -> None:
    """Checks every number of a request, so that its cost is bounded before it waits for a slot.

    Raises:
      RequestError: 400, names the field and its limits.
    """
    for name, (low, high) in {**RANGES, 'n': (1, slots)}.items():
        value = getattr(request, name)
        if value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not low <= value <= high:
            raise RequestError(400, f'{name} must be a number from {low:g} to {high:g}', name)
    if len(request.stop) > MAX_STOPS or not all(0 < len(stop) <= MAX_STOP for stop in request.stop):
        raise RequestError(400, f'stop must be at most {MAX_STOPS} texts of 1 to {MAX_STOP} characters', 'stop')
    if any(isinstance(token, bool) or not 0 <= token < 2**31 for token in request.tokens):
        raise RequestError(400, 'a prompt of tokens must be whole numbers, 0 or more', 'tokens')


async def pieces_of(queue: asyncio.Queue, texts: int, until: float) -> AsyncIterator[Any]:
    """Yields the pieces in a queue until each of the texts has ended.

    Raises:
      RequestError: 504 at the deadline.
      BaseException: what the engine reported.
    """
    while texts:
        try:
            piece = queue.get_nowait() if not queue.empty() else await asyncio.wait_for(queue.get(), remaining(until))
        except TimeoutError:
            raise RequestError(504, 'the deadline passed while the text was generated', retry_after=1) from None
        if isinstance(piece, BaseException):
            raise piece
        texts -= piece.finish is not None
        yield piece


def remaining(until: float) -> float:
    """Seconds until a time of the monotonic clock."""
    return max(0.0, until - time.monotonic())


@contextlib.asynccontextmanager
async def place(gate: Gate, client: str, texts: int, until: float) -> AsyncIterator[None]:
    """Holds slots for some texts.

    Raises:
      RequestError: 503 at the deadline.
    """
    try:
        await asyncio.wait_for(gate.enter(client, texts), remaining(until))
    except TimeoutError:
        raise RequestError(503, 'the deadline passed in the queue', retry_after=1) from None
    try:
        yield
    finally:
        gate.leave(client, texts)
