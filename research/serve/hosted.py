"""One served model: answers to one-shot requests in batches, and texts from the generation engine."""

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.core.predictions import part_index
from research.core.task import Raw
from research.errors import UserError
from research.inference.engine import Engine
from research.inference.model import Model, check_request
from research.inference.text_requests import Piece, TextRequest, Ticket
from research.serve.batcher import Admission, Batcher, FairLock, Job, Outputs
from research.serve.context import RequestNotes, notes
from research.serve.errors import RequestError
from research.serve.generation import Gate, check_text_request, pieces_of, place
from research.serve.limits import LARGE_PIXELS, check_fields
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
    turn: FairLock  # one device program at a time


class Hosted:
    """A model behind a queue.

    Attributes:
      name: [a-z0-9_-]{1,64}.
      model: the loaded run.
      fingerprint: a hash of the weights and of what determines the program.
      card: what `GET /models/NAME` answers.
      created: the time of its start, in seconds since 1970.
      generates: whether `generate` works.
      embeds: whether `embed` works.
    """

    def __init__(
        self, name: str, model: Model, shared: Shared, card: dict[str, Any], engine: Engine | None = None,
        features: Model | None = None,
    ):  # fmt: skip
        self.name, self.model, self.card = name, model, card
        self.fingerprint: str = card['fingerprint']
        self.created = int(time.time())
        self.shared, self.server, self.engine = shared, shared.server, engine
        self.generates, self.embeds = engine is not None, features is not None
        self.card['generates'] = self.generates
        self.large = threading.Lock()  # held while a large picture is decoded
        self.admission = Admission(self.server.queue)
        self.gate = Gate(engine.slots if engine else 1)
        self.programs = Programs(model, self.server.max_batch, self.server.exact)
        self.batchers = {'predict': self.batcher(self.programs)}
        self.feature_programs = Programs(features, self.server.max_batch, self.server.exact) if features else None
        if self.feature_programs:
            self.batchers['features'] = self.batcher(self.feature_programs)

    def batcher(self, programs: Programs) -> Batcher:
        """A batcher of some programs that counts its batches."""
        fill = self.shared.metrics.batch_fill.labels(self.name)
        return Batcher(
            programs.run, max(programs.sizes), self.shared.turn,
            lambda count, seconds: fill.observe(count / programs.size(count)),
        )  # fmt: skip

    def start(self) -> None:
        """Compiles everything, then accepts requests; takes long, so call it on a thread."""
        if self.engine is not None:
            self.engine.warm_up()
            threading.Thread(target=self.engine.run, name=f'engine-{self.name}', daemon=True).start()
        self.programs.collect()
        if not self.generates:
            self.programs.compile()
        if self.feature_programs:
            self.feature_programs.collect()
            self.feature_programs.compile()
        for batcher in self.batchers.values():
            batcher.start()

    def close(self) -> None:
        """Ends the threads."""
        if self.engine is not None:
            self.engine.stop()
        for batcher in self.batchers.values():
            batcher.close()

    async def answer(
        self, raws: Sequence[Raw], seed: int = 0, timeout: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> list[Answer]:  # fmt: skip
        """The answers to requests, in order; equal to an offline prediction of these requests with this seed.

        Args:
          raws: requests: dicts of fields; pictures and sounds as the bytes of a file, never as a path.
          seed: of sampled answers.
          timeout: seconds; None: the deadline of the HTTP request.
          settings: fields of a `TextRequest` that replace those of the task, if the model generates.

        Raises:
          RequestError: 400 for an invalid request, 429 if too many wait, 503 or 504 at the deadline.
        """
        check_seed(seed)
        if self.generates or settings:
            asks = [TextRequest(raw=raw, seed=seed, index=index, **(settings or {})) for index, raw in enumerate(raws)]
            return noted(await asyncio.gather(*(self.text_answer(ask, timeout) for ask in asks)))
        with self.admitted():
            async with self.deadline(timeout) as jobs:
                parts = await self.work(lambda: [self.encode(raw) for raw in raws])
                jobs += self.jobs_of(self.programs, parts, seed)
                outputs = await self.batchers['predict'].outputs(jobs)
                return noted(await self.work(lambda: self.finish(self.model, raws, parts, jobs, outputs)))

    async def answer_encoded(
        self, examples: Sequence[Example], seed: int = 0, timeout: float | None = None
    ) -> list[Answer]:
        """The answers to arrays as `task.encode` makes them, without batch axis; they are not decoded.

        Raises:
          RequestError: as `answer`; 400 for other names, shapes or types.
        """
        check_seed(seed)
        with self.admitted():
            async with self.deadline(timeout) as jobs:

                def prepare() -> list[list[Example]]:
                    made = [shaped(self.model.task, example) for example in examples]
                    for example in made:
                        self.programs.check(example)
                    return [[example] for example in made]

                parts = await self.work(prepare)
                if self.generates:
                    asks = [(part[0], TextRequest(seed=seed, index=index)) for index, part in enumerate(parts)]
                    answers = (self.text_of(example, ask, timeout) for example, ask in asks)
                    return noted(await asyncio.gather(*answers))
                jobs += self.jobs_of(self.programs, parts, seed)
                outputs = await self.batchers['predict'].outputs(jobs)
                return noted(await self.work(lambda: self.finish(self.model, [], parts, jobs, outputs)))

    async def embed(self, raws: Sequence[Raw], timeout: float | None = None) -> list[np.ndarray]:
        """The feature vectors of requests, float32 [width]; for a model that `embeds`."""
        assert self.feature_programs is not None
        programs = self.feature_programs
        with self.admitted():
            async with self.deadline(timeout) as jobs:
                parts = await self.work(lambda: [self.encode(raw) for raw in raws])
                jobs += self.jobs_of(programs, parts, 0)
                outputs = await self.batchers['features'].outputs(jobs)
                answers = await self.work(lambda: self.finish(programs.model, raws, parts, jobs, outputs))
                return [np.asarray(answer.outputs['features'], np.float32) for answer in noted(answers)]

    async def generate(self, request: TextRequest, timeout: float | None = None) -> AsyncGenerator[Piece, None]:
        """Yields the pieces of the texts of a request; closing the iterator frees its slots within one dispatch.

        Raises:
          RequestError: as `answer`; 504 also after some pieces.
        """
        async for piece, _ in self.pieces(request, timeout):
            yield piece

    async def pieces(
        self, request: TextRequest, timeout: float | None = None, example: Example | None = None
    ) -> AsyncGenerator[tuple[Piece, Ticket], None]:
        """Yields the pieces of a request with its ticket.

        Args:
          request: the request.
          timeout: seconds; None: the deadline of the HTTP request.
          example: the encoded prompt, if `request` has neither fields nor tokens.
        """
        engine = self.engine
        if engine is None:
            raise RequestError(400, f'the model {self.name!r} does not generate text', code='unsupported')
        check_text_request(request, engine.slots)
        watch, queue, loop = notes(), asyncio.Queue(), asyncio.get_running_loop()
        until, texts = self.until(timeout), max(request.n, request.beams)
        with self.admitted() if example is None else contextlib.nullcontext():
            prompt = example
            if prompt is None and request.raw:
                prompt = (await self.within(until, self.work(lambda: self.encode(request.raw))))[0]
            entered = time.monotonic()
            async with place(self.gate, watch.client, min(texts, engine.slots), until):

                def tell(piece: Piece | BaseException) -> None:
                    loop.call_soon_threadsafe(queue.put_nowait, piece)

                def submit() -> Ticket:
                    if prompt is None:
                        return engine.submit(request, tell)
                    return engine.submit_encoded(prompt, request, tell)

                ticket = await self.submitted(submit)
                watch.cleanup.append(ticket.cancel)
                try:
                    async for piece in pieces_of(queue, request.n, until):
                        self.measure(watch, ticket, piece, entered)
                        yield piece, ticket
                except UserError:  # a mistake of the request is raised by `submit`
                    raise RequestError(503, 'the server is stopping', retry_after=2) from None
                finally:
                    ticket.cancel()

    async def submitted(self, submit: Callable[[], Ticket]) -> Ticket:
        """Submits on a thread; if the caller is cancelled meanwhile, the ticket is cancelled too."""
        work = asyncio.ensure_future(self.work(submit))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(lambda work: work.exception() or work.result().cancel())
            raise

    def measure(self, watch: RequestNotes, ticket: Ticket, piece: Piece, entered: float) -> None:
        """Counts the tokens of a piece, and its time."""
        metrics, now = self.shared.metrics, time.monotonic()
        if not watch.first_token_seconds:
            watch.first_token_seconds = now - watch.started
            watch.queue_seconds, watch.last_piece = entered - watch.started, now
            watch.prompt_tokens += ticket.prompt_tokens
            metrics.first_token.labels(self.name).observe(watch.first_token_seconds)
            metrics.tokens.labels(self.name, 'prompt').inc(ticket.prompt_tokens)
            metrics.tokens.labels(self.name, 'cached').inc(ticket.cached_tokens)
        elif piece.tokens:
            metrics.per_token.labels(self.name).observe((now - watch.last_piece) / len(piece.tokens))
            watch.last_piece = now
        watch.tokens += len(piece.tokens)
        watch.compute_seconds = now - entered
        metrics.tokens.labels(self.name, 'generated').inc(len(piece.tokens))

    async def text_answer(self, request: TextRequest, timeout: float | None) -> Answer:
        """The answer of a sampled text, as of one row of an offline prediction."""
        return await self.text_of(None, request, timeout)

    async def text_of(self, example: Example | None, request: TextRequest, timeout: float | None) -> Answer:
        """The answer to an encoded prompt, or to the fields of a request."""
        started, first, ticket = time.monotonic(), 0.0, None
        async with contextlib.aclosing(self.pieces(request, timeout, example)) as pieces:
            async for _piece, ticket in pieces:  # noqa: B007
                first = first or time.monotonic()
        assert ticket is not None and self.engine is not None
        decode = self.model.task.decode
        outputs = ticket.outputs(self.engine.generate)
        return Answer(outputs, await self.work(lambda: decode(outputs)), first - started, time.monotonic() - first)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request while it waits and runs; refuses it while the server starts or stops."""
        if not self.server.ready:
            raise RequestError(503, f'the server is {self.server.status.phase.value}', retry_after=2)
        request = notes()
        request.model = self.name
        leave = self.admission.enter(request.client)
        request.cleanup.append(leave)  # also if a suspended generator is never closed
        try:
            yield
        finally:
            leave()

    def until(self, timeout: float | None) -> float:
        """The deadline of the current request, on the monotonic clock."""
        return min(notes().deadline, time.monotonic() + min(timeout or self.server.timeout, self.server.timeout))

    async def within(self, until: float, waiting: Any) -> Any:
        """Waits for something before its slots are asked for; 503 at the deadline."""
        try:
            return await asyncio.wait_for(waiting, max(0.0, until - time.monotonic()))
        except TimeoutError:
            raise RequestError(503, 'the deadline passed in the queue', retry_after=1) from None

    @contextlib.asynccontextmanager
    async def deadline(self, timeout: float | None) -> AsyncIterator[list[Job]]:
        """Ends its block at the deadline: 504 if a job of the yielded list runs or ran, 503 if all wait."""
        jobs: list[Job] = []
        try:
            async with asyncio.timeout(max(0.0, self.until(timeout) - time.monotonic())):
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
        pixels = check_fields(task.inputs, raw)
        with self.large if pixels > LARGE_PIXELS else contextlib.nullcontext():
            parts = list(task.split(raw)) if task.split else [raw]
            if len(parts) > MAX_PARTS:
                raise RequestError(413, f'the request has {len(parts):,} parts; at most {MAX_PARTS:,} are read')
            return [shaped(task, task.encode(part)) for part in parts]

    def jobs_of(self, programs: Programs, parts: Sequence[Sequence[Example]], seed: int) -> list[Job]:
        """Examples as jobs of the current client; their randomness is that of an offline prediction."""
        client = notes().client
        return [
            Job(example, programs.key(example, seed), part_index(number, part), seed, client)
            for number, group in enumerate(parts)
            for part, example in enumerate(group)
        ]

    def finish(
        self, model: Model, raws: Sequence[Raw], parts: Sequence[Sequence[Any]], jobs: Sequence[Job],
        outputs: Sequence[Outputs],
    ) -> list[Answer]:  # fmt: skip
        """Joins the parts of each request, and decodes."""
        task, answers, start = model.task, [], 0
        for number, group in enumerate(parts):
            chunk = slice(start, start + len(group))
            start += len(group)
            joined = dict(task.join(raws[number], outputs[chunk])) if task.join and raws else outputs[start - 1]
            queue = max(job.started - job.submitted for job in jobs[chunk])
            compute = max(job.finished - job.started for job in jobs[chunk])
            decoded = task.decode(joined) if raws else None  # outputs of made-up arrays need not be decodable
            answers.append(Answer(joined, decoded, queue, compute))
        return answers


def check_seed(seed: int) -> None:
    """Raises `RequestError` for a seed that is not a whole number of 31 bits."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise RequestError(400, f'seed must be a whole number from 0 to {2**31 - 1}', 'seed')


def noted(answers: list[Answer]) -> list[Answer]:
    """Records the times of answers for the log."""
    request = notes()
    request.queue_seconds = max((answer.queue_seconds for answer in answers), default=0.0)
    request.compute_seconds = max((answer.compute_seconds for answer in answers), default=0.0)
    return answers
