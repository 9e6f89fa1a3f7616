"""The life of a server: it opens its port, compiles, answers, and stops at a signal."""

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import uvicorn

from research.errors import UserError
from research.serve.app import make_app
from research.serve.hosted import Hosted
from research.serve.metrics import Metrics
from research.serve.protocol import HEAD_BYTES, limited
from research.serve.settings import Phase, ServerSettings

CONNECTIONS = 1024
DRAIN_SECONDS = 30.0  # for running requests after the first signal
WORKERS = 2  # threads that decode pictures, sounds and texts


class Server(uvicorn.Server):
    """A uvicorn server that keeps answering health checks while running requests finish."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to `on_signals`."""
        yield


def open_socket(host: str, port: int) -> socket.socket:
    """Binds the address of a server; raises UserError if it is in use or not of this machine."""
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    # With the protocol named, asyncio sends small packets at once; else each answer waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, 'strerror', None) or str(error)
        raise UserError(f'cannot listen on {host}:{port} ({reason}); choose another --port or --host') from None
    return listener


def make_pool() -> concurrent.futures.ThreadPoolExecutor:
    """The threads that decode requests, so that the event loop never does."""
    return concurrent.futures.ThreadPoolExecutor(WORKERS, thread_name_prefix='decode')


def make_server(
    models: Mapping[str, Hosted], server: ServerSettings, metrics: Metrics, write: Callable[[str], None],
    on_ready: Callable[[], None] = lambda: None, say: Callable[[str], None] = lambda text: None,
) -> Server:  # fmt: skip
    """A server of models; `run_server` runs it.

    Args:
      models: by name.
      server: settings.
      metrics: where requests are counted.
      write: writes a line of the access log.
      on_ready: called once when all models are compiled.
      say: prints a sentence for the person who started it.
    """
    failures: list[Exception] = []

    def compile_all() -> None:
        try:
            for hosted in models.values():
                hosted.start()
        except Exception as error:
            failures.append(error)
            made.should_exit = True
            return
        if server.status.phase is Phase.STARTING:
            server.status.phase = Phase.READY
            on_ready()

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        thread = threading.Thread(target=compile_all, name='compile', daemon=True)
        thread.start()
        undo = on_signals(made, server, say)
        try:
            yield
        finally:
            undo()
            server.status.phase = Phase.STOPPING
            for hosted in models.values():
                hosted.close()

    config = uvicorn.Config(
        make_app(models, server, metrics, write, lifespan), http=limited(server), ws='none', loop='asyncio',
        log_config=None, access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=5,
        limit_concurrency=CONNECTIONS, h11_max_incomplete_event_size=HEAD_BYTES, timeout_graceful_shutdown=5,
        log_level='critical', lifespan='on',
    )  # fmt: skip
    made = Server(config)
    made.failures = failures  # pyright: ignore[reportAttributeAccessIssue]
    return made


def on_signals(made: Server, server: ServerSettings, say: Callable[[str], None]) -> Callable[[], None]:
    """Stops after running requests at the first SIGTERM or SIGINT, at once at the second; returns what undoes it."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    loop, previous, tasks = asyncio.get_running_loop(), {}, set()

    def handle(number: int, frame: Any) -> None:
        del frame
        if server.status.phase is Phase.STOPPING:
            os._exit(128 + number)
        server.status.phase = Phase.STOPPING
        running = server.status.running
        if running:
            say(f'\nstopping when {running} running requests have finished; again to stop at once')
        loop.call_soon_threadsafe(lambda: tasks.add(loop.create_task(drain(made, server))))

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, handle)

    def undo() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    return undo


async def drain(made: Server, server: ServerSettings, seconds: float = DRAIN_SECONDS) -> None:
    """Waits for running requests, then ends the server."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while server.status.running:
                await asyncio.sleep(0.02)
    made.should_exit = True


def run_server(made: Server, listener: socket.socket) -> None:
    """Runs a server until it is stopped.

    Raises:
      UserError: if a model could not be compiled.
    """
    listener.listen(256)
    asyncio.run(made.serve(sockets=[listener]))
    failures = made.failures  # pyright: ignore[reportAttributeAccessIssue]
    if failures:
        raise failures[0]
    print('stopped', file=sys.stderr)
