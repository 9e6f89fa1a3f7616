"""One served model: answers to one-shot requests in batches, and texts from the generation engine."""

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, NamedTuple

from research.core.task import Raw
from research.errors import UserError
from research.inference.model import Model, check_request
from research.serve.batcher import Admission, Batcher, Job, Outputs
from research.serve.context import notes
from research.serve.errors import RequestError
from research.serve.limits import check_fields
from research.serve.metrics import Metrics
from research.serve.programs import Example, Programs, shaped
from research.serve.settings import ServerSettings

MAX_PARTS = 1024  # model inputs of one request: tiles of a picture, windows of a text


class Answer(NamedTuple):
    """The outputs of one request as host arrays, and decoded for a person (None for encoded arrays)."""

    outputs: Outputs
    decoded: Any
    queue_seconds: float
    compute_seconds: float


class Shared(NamedTuple):
    """What all models of a server share."""

    server: ServerSettings
    metrics: Metrics
    pool: concurrent.futures.Executor  # decodes pictures, sounds and texts
    turn: threading.Lock  # one device program at a time


class Hosted:
    """A model behind a queue.

    Attributes:
      name: [a-z0-9_-]{1,64}.
      model: the loaded run.
      fingerprint: a hash of the weights and of what determines the program.
      card: what `GET /models/NAME` answers.
      generates: whether `generate` works.
    """

    def __init__(self, name: str, model: Model, shared: Shared, card: dict[str, Any]):
        self.name, self.model, self.card = name, model, card
        self.fingerprint: str = card['fingerprint']
        self.shared, self.server = shared, shared.server
        self.generates = False
        self.created = int(time.time())
        self.admission = Admission(self.server.queue)
        self.programs = Programs(model, self.server.max_batch, self.server.exact)
        self.batcher = Batcher(self.programs.run, max(self.programs.sizes), shared.turn, self._observe)

    def start(self) -> None:
        """Compiles everything, then accepts requests; takes long, so call it on a thread."""
        self.programs.compile()
        self.batcher.start()

    def close(self) -> None:
        """Ends the threads."""
        self.batcher.close()

    def _observe(self, count: int, seconds: float) -> None:
        size = next(size for size in self.programs.sizes if size >= count)
        self.shared.metrics.batch_fill.labels(self.name).observe(count / size)

    async def answer(self, raws: Sequence[Raw], seed: int = 0, timeout: float | None = None) -> list[Answer]:
        """The answers to requests, in order; equal to an offline prediction of these requests with this seed.

        Args:
          raws: requests: dicts of fields; pictures and sounds as the bytes of a file, never as a path.
          seed: of sampled answers.
          timeout: seconds; None: the deadline of the HTTP request.

        Raises:
          RequestError: 400 for an invalid request, 429 if too many wait, 503 or 504 at the deadline.
        """
        if not 0 <= seed < 2**31:
            raise RequestError(400, f'seed must be a whole number from 0 to {2**31 - 1}, got {seed}', 'seed')
        with self.admitted():
            async with self.deadline(timeout) as jobs:
                parts = await self.work(lambda: [self.encode(raw) for raw in raws])
                jobs += self.jobs_of([example for group in parts for example in group], seed)
                outputs = await self.batcher.outputs(jobs)
                return noted(await self.work(lambda: self.finish(raws, parts, jobs, outputs)))

    async def answer_encoded(
        self, examples: Sequence[Example], seed: int = 0, timeout: float | None = None
    ) -> list[Answer]:
        """The answers to arrays as `task.encode` makes them, without batch axis; they are not decoded.

        Raises:
          RequestError: as `answer`; 400 for other names, shapes or types.
        """
        with self.admitted():
            async with self.deadline(timeout) as jobs:

                def prepare() -> list[Example]:
                    made = [shaped(self.model.task, example) for example in examples]
                    for example in made:
                        self.programs.check(example)
                    return made

                jobs += self.jobs_of(await self.work(prepare), seed)
                outputs = await self.batcher.outputs(jobs)
                groups = [[example] for example in examples]
                return noted(await self.work(lambda: self.finish([], groups, jobs, outputs)))

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request while it waits and runs; refuses it while the server starts or stops."""
        if not self.server.ready:
            raise RequestError(503, f'the server is {self.server.status.phase.value}', retry_after=2)
        request = notes()
        request.model = self.name
        self.admission.enter(request.client)
        started = time.monotonic()
        try:
            yield
        finally:
            self.admission.leave(request.client, time.monotonic() - started)

    @contextlib.asynccontextmanager
    async def deadline(self, timeout: float | None) -> AsyncIterator[list[Job]]:
        """Ends its block at the deadline: 504 if a job of the yielded list runs or ran, 503 if all wait."""
        jobs: list[Job] = []
        until = min(notes().deadline, time.monotonic() + min(timeout or self.server.timeout, self.server.timeout))
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                yield jobs
        except TimeoutError:
            if any(job.started for job in jobs):
                raise RequestError(504, 'the deadline passed while the model was computing', retry_after=1) from None
            wait = max(1, round(self.admission.seconds))
            raise RequestError(503, 'the deadline passed in the queue', retry_after=wait) from None

    async def work(self, function: Callable[[], Any]) -> Any:
        """Runs work of the host in the pool of threads; a mistake in the request becomes a `RequestError`."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.shared.pool, function)
        except UserError as error:
            raise RequestError(400, str(error), getattr(error, 'field', '')) from None

    def encode(self, raw: Raw) -> list[Example]:
        """The model inputs of one request, in compiled shapes.

        Raises:
          UserError: for fields that the task does not have, or values that it does not read.
          RequestError: for values beyond the limits of the server.
        """
        task = self.model.task
        check_request(task, raw)
        check_fields(task.inputs, raw)
        parts = list(task.split(raw)) if task.split else [raw]
        if len(parts) > MAX_PARTS:
            raise RequestError(413, f'the request consists of {len(parts):,} parts; at most {MAX_PARTS:,} are read')
        return [shaped(task, task.encode(part)) for part in parts]

    def jobs_of(self, examples: Sequence[Example], seed: int) -> list[Job]:
        """Examples as jobs of the current client; their index is their place, as in an offline prediction."""
        client = notes().client
        return [
            Job(example, self.programs.key(example, seed), index, seed, client)
            for index, example in enumerate(examples)
        ]

    def finish(
        self, raws: Sequence[Raw], parts: Sequence[Sequence[Any]], jobs: Sequence[Job], outputs: Sequence[Outputs]
    ) -> list[Answer]:
        """Joins the parts of each request, and decodes."""
        task, answers, start = self.model.task, [], 0
        for number, group in enumerate(parts):
            chunk = slice(start, start + len(group))
            start += len(group)
            joined = dict(task.join(raws[number], outputs[chunk])) if task.join and raws else outputs[start - 1]
            queue = max(job.started - job.submitted for job in jobs[chunk])
            compute = max(job.finished - job.started for job in jobs[chunk])
            decoded = task.decode(joined) if raws else None  # outputs of made-up arrays need not be decodable
            answers.append(Answer(joined, decoded, queue, compute))
        return answers


def noted(answers: list[Answer]) -> list[Answer]:
    """Records the times of answers for the log."""
    request = notes()
    request.queue_seconds = max((answer.queue_seconds for answer in answers), default=0.0)
    request.compute_seconds = max((answer.compute_seconds for answer in answers), default=0.0)
    return answers
