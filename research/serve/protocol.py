"""Connections: limits on their number, on slow heads, on tiny pieces, and on clients that do not read.

uvicorn's h11 protocol limits the size of a head, but neither its time nor the number of connections of an address.
"""

import asyncio
import collections
from typing import Any

import h11
import orjson
from uvicorn.protocols.http.h11_impl import H11Protocol

from research.serve.settings import ServerSettings

HEAD_BYTES = 16_384
FREE_PIECES, PIECE_BYTES = 4096, 16  # of a body: from this number on, pieces must have this size on average
MESSAGE = 'too many connections from this address'
BUSY = orjson.dumps({'error': {'message': MESSAGE, 'field': '', 'code': 'unavailable'}})
REFUSED = (
    b'HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n'
    b'Content-Length: %d\r\n\r\n%s' % (len(BUSY), BUSY)
)


class Connection(h11.Connection):
    """An HTTP/1.1 parser that refuses bodies in tiny pieces, each of which costs as much as a large one."""

    pieces = body_bytes = 0

    def next_event(self) -> Any:
        """The next event; raises `h11.RemoteProtocolError` for an invalid request."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.pieces = self.body_bytes = 0
        elif isinstance(event, h11.Data):
            self.pieces += 1
            self.body_bytes += len(event.data)
            if self.pieces > FREE_PIECES and self.body_bytes < PIECE_BYTES * self.pieces:
                raise h11.RemoteProtocolError('the pieces of the body are too small')
        return event


def limited(server: ServerSettings) -> type[H11Protocol]:
    """A protocol class with the limits of a server; it counts its connections for each address."""
    counts: collections.Counter[str] = collections.Counter()

    class Limited(H11Protocol):
        """One connection."""

        def __init__(self, *arguments: Any, **named: Any):
            super().__init__(*arguments, **named)
            self.conn = Connection(h11.SERVER, HEAD_BYTES)
            self.address = ''  # that the connection is counted for
            self.head_timer: asyncio.TimerHandle | None = None
            self.stall_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            address = self.client[0] if self.client else 'local'
            if counts[address] >= server.connections:
                transport.write(REFUSED)
                transport.close()
                return
            counts[address] += 1
            self.address = address
            self.expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self.address:
                counts[self.address] -= 1
            for timer in (self.head_timer, self.stall_timer):
                if timer is not None:
                    timer.cancel()

        def expect_head(self) -> None:
            """Starts the time for the head of a request, unless it runs."""
            if self.head_timer is None:
                self.head_timer = self.loop.call_later(server.head_seconds, self.head_is_late)

        def head_is_late(self) -> None:
            self.head_timer = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.abort()

        def data_received(self, data: bytes) -> None:
            if not self.address:  # refused
                return
            try:
                super().data_received(data)
            except h11.LocalProtocolError:  # an answer had begun, so there is no way to send an error
                self.transport.abort()
                return
            if self.cycle is None or self.cycle.response_complete:
                self.expect_head()
            elif self.head_timer is not None:
                self.head_timer.cancel()
                self.head_timer = None

        def pause_writing(self) -> None:
            super().pause_writing()
            if self.stall_timer is None:
                self.stall_timer = self.loop.call_later(server.stalled_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self.stall_timer is not None:
                self.stall_timer.cancel()
                self.stall_timer = None

    return Limited
