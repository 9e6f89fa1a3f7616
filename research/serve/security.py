"""The guard in front of all routes: who may ask, what is read, and what every answer carries.

One ASGI application around the other: it checks Host, Origin, token and content type, reads the body within limits,
parses JSON strictly, cancels the work of clients that have gone, and writes the log and the metrics. It runs before any
route, so no route can forget a check.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import orjson

from research.serve import context, limits, log
from research.serve.errors import RequestError, content
from research.serve.metrics import Metrics
from research.serve.settings import ServerSettings

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ('localhost', '127.0.0.1', '::1')
OPEN = ('/health', '/health/live', '/v2/health/live', '/v2/health/ready', '/ping')  # without a token
UNCOUNTED = (*OPEN, '/metrics')  # answered while the server stops
MAX_HEADERS, MAX_HEADER_BYTES, MAX_PATH = 100, 16_384, 2048
SLOW_AFTER, SLOWEST = 5.0, 1000  # seconds, after which a body must have come at this number of bytes a second
MAX_PIECES = 20_000  # chunks of a body
BARE = ('/v2/', '/hf/')  # the clients of these send bytes without a content type
MEDIA = re.compile(r'application/(json|octet-stream)|(image|audio)/[\w.+-]+')
REQUEST_ID = re.compile(r'[A-Za-z0-9_.-]{1,64}')
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src blob:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    b'content-security-policy': POLICY.encode(), b'x-content-type-options': b'nosniff',
    b'referrer-policy': b'no-referrer', b'cross-origin-resource-policy': b'same-origin', b'cache-control': b'no-store',
}  # fmt: skip


class Gone(Exception):
    """The client has closed the connection."""


class Head(NamedTuple):
    """The head of a request."""

    method: str
    path: str
    headers: dict[bytes, bytes]  # the first value of each

    def text(self, name: bytes) -> str:
        """A header, '' without it."""
        return self.headers.get(name, b'').decode('latin-1').strip()


def head_of(scope: Scope) -> Head:
    """The head of a request; raises `RequestError` for too many or ambiguous headers."""
    fields = scope['headers']
    if len(fields) > MAX_HEADERS:
        raise RequestError(431, f'the request has {len(fields)} headers; at most {MAX_HEADERS} are read')
    if sum(len(name) + len(value) for name, value in fields) > MAX_HEADER_BYTES:
        raise RequestError(431, f'the headers have more than {MAX_HEADER_BYTES:,} bytes')
    names = [name for name, _ in fields]
    for name in (b'content-length', b'content-type', b'host', b'authorization', b'transfer-encoding'):
        if names.count(name) > 1:
            raise RequestError(400, f'the header {name.decode()} appears more than once')
    if b'content-length' in names and b'transfer-encoding' in names:
        raise RequestError(400, 'the request has both Content-Length and Transfer-Encoding')
    if len(scope['path']) > MAX_PATH or len(scope.get('query_string', b'')) > MAX_PATH:
        raise RequestError(400, f'the address is longer than {MAX_PATH} characters')
    return Head(scope['method'], scope['path'], dict(fields))


def host_of(value: str) -> str:
    """The name in a Host header without its port."""
    if value.startswith('['):
        return value[1:].partition(']')[0]
    return value.partition(':')[0].lower().rstrip('.')


def check_host(head: Head, server: ServerSettings) -> None:
    """Refuses names that are not this server's: a web page could have pointed its own name here (DNS rebinding)."""
    host = host_of(head.text(b'host'))
    if host not in (*LOOPBACK, *server.allowed_hosts):
        raise RequestError(421, 'this server does not answer to that Host; see --allowed_hosts')
    origin = head.text(b'origin')
    if origin and origin != 'null' and host_of(origin.partition('://')[2]) not in (*LOOPBACK, *server.allowed_hosts):
        raise RequestError(403, 'requests from pages of other sites are refused')
    if head.method != 'GET' and (origin == 'null' or head.text(b'sec-fetch-site') == 'cross-site'):
        raise RequestError(403, 'requests from pages of other sites are refused')


def check_token(head: Head, server: ServerSettings) -> str:
    """Checks the token; returns a name for the client that does not reveal it, '' without a token."""
    if not server.token:
        return ''
    scheme, _, token = head.text(b'authorization').partition(' ')
    right = scheme.lower() == 'bearer' and hmac.compare_digest(token.strip().encode('latin-1'), server.token)
    page = head.path == '/' or head.path.startswith('/page/')  # the page asks for the token
    if not right and not page and head.path not in OPEN:
        raise RequestError(401, 'a token is needed: send the header "Authorization: Bearer TOKEN"')
    return 'token-' + hashlib.sha256(token.encode('latin-1')).hexdigest()[:12] if right else ''


def check_media(head: Head, length: int) -> None:
    """Accepts only types that a form of a foreign page cannot send."""
    if head.method in ('GET', 'HEAD', 'OPTIONS') or (not length and b'transfer-encoding' not in head.headers):
        return
    if head.text(b'content-encoding').strip().lower() not in ('', 'identity'):
        raise RequestError(415, 'compressed bodies are not read')
    media = head.text(b'content-type').partition(';')[0].strip().lower()
    multipart = media == 'multipart/form-data' and head.path.startswith('/v1/')
    if MEDIA.fullmatch(media) or multipart or (not media and head.path.startswith(BARE)):
        return
    raise RequestError(
        415, f'the content type {media[:60] or "(none)"} is not read; send JSON with "Content-Type: application/json"'
    )


def length_of(head: Head, server: ServerSettings) -> int:
    """The length that the client states; raises `RequestError` 413 if it is too large. 0 if it states none."""
    text = head.text(b'content-length') or '0'
    if not re.fullmatch(r'\d{1,18}', text):
        raise RequestError(400, 'Content-Length is not a number')
    if int(text) > server.max_body:
        raise too_large(server)
    return int(text)


def too_large(server: ServerSettings) -> RequestError:
    return RequestError(413, f'the body is larger than the limit of {server.max_body / 2**20:g} MB')


async def read_body(receive: Receive, server: ServerSettings) -> bytes:
    """Reads a body; counts its size, its pieces and its speed while reading.

    Raises:
      RequestError: 413 if it is too large, 408 if it comes too slowly, 400 if it comes in too many pieces.
      Gone: if the client leaves.
    """
    body, pieces, started = bytearray(), 0, time.monotonic()
    while True:
        spent = time.monotonic() - started
        patience = min(server.body_seconds - spent, SLOW_AFTER + len(body) / SLOWEST - spent)
        try:
            message = await asyncio.wait_for(receive(), max(0.0, patience))
        except TimeoutError:
            raise RequestError(408, f'the body came too slowly: {len(body):,} bytes in {spent:.0f} s') from None
        if message['type'] == 'http.disconnect':
            raise Gone
        body += message.get('body', b'')
        pieces += 1
        if len(body) > server.max_body:
            raise too_large(server)
        if pieces > MAX_PIECES:
            raise RequestError(400, f'the body came in more than {MAX_PIECES:,} pieces')
        if not message.get('more_body', False):
            return bytes(body)


def is_json(head: Head) -> bool:
    """Whether the whole body is JSON (of the binary protocol, only its head is; files may come without a type)."""
    media = head.text(b'content-type').partition(';')[0].strip().lower()
    stated = media == 'application/json' or (not media and not head.path.startswith(BARE))
    return stated and b'inference-header-content-length' not in head.headers


def deadline_of(head: Head, server: ServerSettings) -> float:
    """The time when the answer is no longer wanted, by the header X-Timeout-Ms."""
    text = head.text(b'x-timeout-ms')
    if text and not re.fullmatch(r'[1-9]\d{0,8}', text):
        raise RequestError(400, 'X-Timeout-Ms must be a whole number of milliseconds, 1 or more')
    seconds = int(text) / 1000 if text else server.timeout
    return time.monotonic() + min(seconds, server.timeout)


def internal_error(request_id: str) -> RequestError:
    """What a client sees of a bug."""
    return RequestError(500, f'an internal error; its number in the log is {request_id}')


class Guard:
    """The outermost ASGI application."""

    def __init__(self, app: App, server: ServerSettings, metrics: Metrics, write: Callable[[str], None]):
        self.app, self.server, self.metrics, self.write = app, server, metrics, write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request; passes the start and the end of the server through."""
        if scope['type'] != 'http':
            return await self.app(scope, receive, send)
        status = self.server.status
        notes = context.RequestNotes(client=(scope.get('client') or ('local',))[0])
        context.current.set(notes)
        answer = Answering(send, scope, notes)
        counted = scope['path'] not in UNCOUNTED
        status.running += counted
        try:
            await self.guarded(scope, receive, answer, notes)
        except RequestError as error:
            await answer.refuse(error)
        except Gone:
            answer.code = 499
        except Exception as error:
            log.bug(self.write, notes.request_id, error)
            if not answer.ended:  # the routes have sent `internal_error`
                await answer.refuse(internal_error(notes.request_id))
        finally:
            status.running -= counted
            for undo in notes.cleanup:
                undo()
            self.record(scope, notes, answer.code)

    async def guarded(self, scope: Scope, receive: Receive, answer: 'Answering', notes: context.RequestNotes) -> None:
        """Checks and reads a request, and passes it on."""
        notes.request_id = secrets.token_hex(8)
        head = head_of(scope)
        if REQUEST_ID.fullmatch(given := head.text(b'x-request-id')):
            notes.request_id = given
        check_host(head, self.server)
        notes.client = check_token(head, self.server) or notes.client
        length = length_of(head, self.server)
        check_media(head, length)
        notes.deadline = deadline_of(head, self.server)
        body = await read_body(receive, self.server)
        if body and is_json(head):
            limits.parse_json(body)
        await self.while_connected(scope, receive, answer, body)

    async def while_connected(self, scope: Scope, receive: Receive, answer: 'Answering', body: bytes) -> None:
        """Runs the routes; cancels them when the client closes the connection."""
        left = asyncio.Event()
        pending = [{'type': 'http.request', 'body': body, 'more_body': False}]

        async def replay() -> dict[str, Any]:
            if pending:
                return pending.pop()
            await left.wait()
            return {'type': 'http.disconnect'}

        async def watch() -> None:
            while (await receive())['type'] != 'http.disconnect':
                pass

        work = asyncio.ensure_future(self.app(scope, replay, answer))
        watcher = asyncio.ensure_future(watch())
        try:
            await asyncio.wait({work, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                left.set()
                work.cancel()
                await asyncio.wait({work})
            if work.cancelled():
                raise Gone
            work.result()
        finally:
            work.cancel()
            watcher.cancel()

    def record(self, scope: Scope, notes: context.RequestNotes, code: int) -> None:
        """Writes the log line and the metrics of a request that ended."""
        seconds = time.monotonic() - notes.started
        route = getattr(scope.get('route'), 'path', '') or ('other' if code < 400 or code in (404, 405) else 'refused')
        self.metrics.requests.labels(notes.model, route, str(code)).inc()
        self.metrics.seconds.labels(notes.model, route).observe(seconds)
        if scope['path'] not in UNCOUNTED:
            self.write(log.line(scope, notes, route, code, seconds))


class Answering:
    """Sends an answer with the headers that all answers have, and remembers its status."""

    def __init__(self, send: Send, scope: Scope, notes: context.RequestNotes):
        self.send, self.scope, self.notes, self.code = send, scope, notes, 499
        self.started = self.ended = False

    async def __call__(self, message: Mapping[str, Any]) -> None:
        """Sends a part of the answer."""
        if message['type'] == 'http.response.start':
            self.started, self.code = True, message['status']
            present = {name.lower() for name, _ in message.get('headers', ())}
            extra = [(name, value) for name, value in HEADERS.items() if name not in present]
            extra.append((b'x-request-id', self.notes.request_id.encode()))
            message = {**message, 'headers': [*message.get('headers', ()), *extra]}
        self.ended = message['type'] == 'http.response.body' and not message.get('more_body', False)
        await self.send(message)

    async def refuse(self, error: RequestError) -> None:
        """Sends an error as the whole answer; ends the connection if an answer has begun."""
        if self.started:
            raise error
        body = b'' if self.scope['method'] == 'HEAD' else orjson.dumps(content(error, self.scope['path']))
        headers = [(b'content-type', b'application/json'), (b'content-length', str(len(body)).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
        await self({'type': 'http.response.start', 'status': error.status, 'headers': headers})
        await self({'type': 'http.response.body', 'body': body})
