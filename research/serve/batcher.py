"""Dynamic batching of one-shot requests: what waits runs together, and while it runs the next batch gathers.

There is no timer: a single client waits for no other. A thread of its own runs the device program, so the event loop
never blocks.
"""

import asyncio
import collections
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from research.serve.errors import RequestError

Outputs = dict[str, np.ndarray]


@dataclasses.dataclass(eq=False)
class Job:
    """One encoded example in the queue. Jobs of equal `key` may share a batch."""

    example: Mapping[str, np.ndarray]
    key: Hashable
    index: int  # of the example in its request, as in an offline prediction
    seed: int
    client: str
    done: Callable[['Job'], None] = lambda job: None  # called in the event loop
    submitted: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    outputs: Outputs | None = None
    error: Exception | None = None
    cancelled: bool = False


def chosen(waiting: Sequence[Job], size: int, served: Mapping[str, int]) -> list[Job]:
    """The next batch: jobs of one key, taken from the clients in turn.

    Args:
      waiting: jobs in the order of their arrival.
      size: the largest batch.
      served: the number of the last batch with a job of each client; whoever waited longest is first.
    """
    counts: dict[str, int] = {}
    ranked = []
    for arrival, job in enumerate(waiting):
        rank = counts[job.client] = counts.get(job.client, -1) + 1  # of the job among those of its client
        ranked.append((rank, served.get(job.client, -1), arrival))
    order = [waiting[arrival] for _, _, arrival in sorted(ranked)]
    return [job for job in order if job.key == order[0].key][:size] if order else []


class Admission:
    """Counts the requests of a model that wait or run; refuses more than `limit`, or half of it for one client."""

    def __init__(self, limit: int):
        self.limit, self.total = limit, 0
        self.clients: dict[str, int] = {}
        self.seconds = 0.1  # a moving average of the time of a request

    def enter(self, client: str) -> Callable[[], None]:
        """Admits a request and returns what ends it; raises `RequestError` 429 if too many are there."""
        mine = self.clients.get(client, 0)
        share = max(1, self.limit // 2)
        if self.total >= self.limit or mine >= share:
            wait = min(60, max(1, math.ceil(self.seconds)))
            reason = f'{self.total} requests are in the queue' if mine < share else f'{mine} of them are yours'
            raise RequestError(429, f'too many requests: {reason}; try again in {wait} s', retry_after=wait)
        self.total += 1
        self.clients[client] = mine + 1
        started, left = time.monotonic(), False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                self._leave(client, time.monotonic() - started)

        return leave

    def _leave(self, client: str, seconds: float) -> None:
        self.total -= 1
        self.clients[client] -= 1
        if not self.clients[client]:
            del self.clients[client]
        self.seconds += 0.1 * (seconds - self.seconds)


class FairLock:
    """A lock that its waiters get in the order in which they came."""

    def __init__(self):
        self._lock, self._waiting, self._held = threading.Lock(), collections.deque(), False

    def __enter__(self) -> None:
        with self._lock:
            if not self._held:
                self._held = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()  # until `__exit__` of the one before hands over

    def __exit__(self, *error: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False


class Batcher:
    """Runs jobs in batches on a thread.

    Args:
      run: (jobs of one key) -> their outputs, in order.
      size: the largest batch.
      turn: a lock that the batchers of one process share, so that only one program runs at a time.
      observe: called with (number of jobs, seconds) after each batch, on the thread.
    """

    def __init__(
        self, run: Callable[[Sequence[Job]], list[Outputs]], size: int, turn: FairLock,
        observe: Callable[[int, float], None] = lambda count, seconds: None,
    ):  # fmt: skip
        self._run, self._size, self._turn, self._observe = run, size, turn, observe
        self._waiting: list[Job] = []
        self._served: dict[str, int] = {}
        self._batches = 0
        self._closed = False
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name='batcher', daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of jobs in the queue."""
        return len(self._waiting)

    def close(self) -> None:
        """Ends the thread after the batch that runs."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(10)

    async def outputs(self, jobs: Sequence[Job]) -> list[Outputs]:
        """The outputs of jobs; if the caller is cancelled, those that have not started never run.

        Raises:
          Exception: the first error of a batch.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        left = len(jobs)

        def done(job: Job) -> None:
            nonlocal left
            left -= 1
            if not future.done() and (job.error or not left):
                future.set_exception(job.error) if job.error else future.set_result(None)

        for job in jobs:
            job.done, job.submitted = done, time.monotonic()
        with self._changed:
            self._event_loop = loop
            self._waiting += jobs
            self._changed.notify()
        try:
            await future
        finally:
            for job in jobs:
                job.cancelled = True
        return [job.outputs for job in jobs]  # pyright: ignore[reportReturnType]

    def _next(self) -> list[Job]:
        """Waits for jobs and takes a batch from the queue; [] ends the thread."""
        with self._changed:
            while True:
                self._waiting = [job for job in self._waiting if not job.cancelled]
                if self._waiting or self._closed:
                    break
                self._changed.wait()
            if self._closed:
                return []
            batch = chosen(self._waiting, self._size, self._served)
            taken = set(map(id, batch))
            self._waiting = [job for job in self._waiting if id(job) not in taken]
            self._batches += 1
            clients = {job.client for job in self._waiting} | {job.client for job in batch}
            self._served = {client: self._served.get(client, -1) for client in clients}
            self._served.update({job.client: self._batches for job in batch})
            return batch

    def _loop(self) -> None:
        while batch := self._next():
            with self._turn:
                started = time.monotonic()
                for job in batch:
                    job.started = started
                self._answer(batch)
            self._observe(len(batch), batch[0].finished - started)
            self._deliver(batch)

    def _answer(self, batch: Sequence[Job]) -> None:
        """Runs a batch; an exception becomes the error of each of its jobs, and the thread continues."""
        try:
            results = self._run(batch)
            for job, outputs in zip(batch, results, strict=True):
                job.outputs = outputs
        except Exception as error:
            for job in batch:
                job.error = error
        finished = time.monotonic()
        for job in batch:
            job.finished = finished

    def _deliver(self, batch: Sequence[Job]) -> None:
        def deliver() -> None:
            for job in batch:
                job.done(job)

        try:
            assert self._event_loop
            self._event_loop.call_soon_threadsafe(deliver)
        except RuntimeError:  # the event loop is closed: no request waits any more
            pass
