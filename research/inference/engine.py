"""Continuous generation of texts: requests enter and leave a fixed number of slots between dispatches.

The same request gives the same tokens and log-probabilities, bit for bit, with any others beside it: on one kind of
device, with the same versions and number of slots. There is no timer: while a dispatch runs, the host makes the texts
of the one before, then takes in what arrived.
"""

import collections
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from research.core.task import Task, Variables, unchanged
from research.errors import UserError
from research.inference.compiled import Programs
from research.inference.prefixes import Prefixes
from research.inference.programs import MOST_STEPS, Found, unpacked
from research.inference.text_requests import Finish, Piece, Text, TextRequest, Ticket, settings_numbers, settings_of
from research.inference.texts import Texts

SLOTS = 32
CACHE_SHARE = 0.25  # of the memory of a device, that the slots may take
SECONDS = 0.06  # that a dispatch may take: streams and cancellations wait for it
PROMPT_TOKENS = 256  # read between two dispatches while texts grow


class Counts(NamedTuple):
    """Totals since the start."""

    prompt: int = 0  # tokens
    cached: int = 0  # of these, not read again
    generated: int = 0
    dispatches: int = 0


class Engine:
    """Generates texts with one model.

    Either a thread calls `run`, or `answers` and `finish` drive it on the thread of the caller. `submit` and
    `Ticket.cancel` may be called from any thread.

    Args:
      task: one whose `generate` is complete (`families.tokens`).
      variables: on the devices of `mesh`.
      mesh: of the model.
      slots: number of texts at once, which is part of what determines the last bits of an answer; 0: `SLOTS`, or as
        many as fit into `CACHE_SHARE` of the memory.
      prefixes: number of prompts kept on the device for requests that begin with them.
      turn: held while the device works, if several models share it; it should be fair.
    """

    def __init__(
        self, task: Task, variables: Variables, mesh: jax.sharding.Mesh, slots: int = 0, turn: Any = None,
        prefixes: int = 8,
    ):  # fmt: skip
        generate = task.generate
        if not generates(task):
            raise UserError('this task does not generate texts')
        assert generate is not None
        self.task, self.generate, self.mesh = task, generate, mesh
        self.turn = turn or contextlib.nullcontext()
        self.texts = Texts(generate.tokenizer, generate.hidden)
        self.counts = Counts()
        with jax.set_mesh(mesh):
            self.variables = variables if task.view is unchanged else jax.jit(task.view)(variables)
        self.programs = Programs(generate, self.variables, mesh, slots or SLOTS, 0 if slots else CACHE_SHARE)
        self.slots = slots = self.programs.slots
        self.prefixes = Prefixes(prefixes)
        self._state: Any = None
        self._slots: list[Text | None] = [None] * slots
        self._waiting: collections.deque[Text] = collections.deque()
        self._searches: collections.deque[Ticket] = collections.deque()
        self._news: list[tuple[Text, Any]] = []  # results that are not yet text
        self._step_seconds = 0.0
        self._changed, self._stepping = threading.Condition(), threading.Lock()
        self._stopping, self._thread = False, None

    @property
    def running(self) -> int:
        """Texts in slots."""
        return sum(text is not None for text in self._slots)

    @property
    def waiting(self) -> int:
        """Texts that wait for a slot, and beam searches."""
        return len(self._waiting) + len(self._searches)

    def warm_up(self) -> None:
        """Compiles every program; nothing compiles afterwards."""
        with jax.set_mesh(self.mesh):
            self.programs.compile()
            if self._state is None:
                self._state = self.programs.zeros()
        self.finish(self.submit(TextRequest(tokens=(0,), max_tokens=1)))
        self.counts = Counts()

    def submit(self, request: TextRequest, on_piece: Callable[[Piece | BaseException], None] | None = None) -> Ticket:
        """Adds a request; its prompt is encoded on the calling thread.

        Args:
          request: the request.
          on_piece: called on the engine's thread with each `Piece`, the last of each text with its `finish`, or once
            with the exception that ended the request. It must return quickly.

        Raises:
          UserError: for an invalid request.
        """
        if bool(request.tokens) == bool(request.raw):
            raise UserError('a request has either fields or tokens')
        if request.raw:
            return self.submit_encoded(self.task.encode(request.raw), request, on_piece)
        assert self.generate.encode_tokens is not None
        return self.submit_encoded(self.generate.encode_tokens(request.tokens), request, on_piece)

    def submit_encoded(
        self, example: Mapping[str, np.ndarray], request: TextRequest, on_piece: Callable | None = None
    ) -> Ticket:
        """Adds a request whose prompt is `task.encode(raw)`; see `submit`."""
        assert self.generate.prompts is not None and self.generate.decoding is not None
        settings = settings_of(request, self.generate.decoding)
        prompts = self.generate.prompts({name: np.asarray(value)[None] for name, value in example.items()})
        prompts = self.programs.check({name: np.asarray(value) for name, value in prompts.items()})
        if request.beams and (request.beams != self.programs.beams or request.stop or request.top_logprobs):
            raise UserError(f'beams must be 0 or {self.programs.beams} for this model, without stop and top_logprobs')
        room = min(settings.max_tokens, self.programs.capacity - int(prompts['length'][0]))
        if room < 1:
            raise UserError(f'the prompt leaves no room: prompt and text have {self.programs.capacity} tokens together')
        ticket = Ticket(request, settings, prompts, room, on_piece, self.texts if on_piece else None)
        ticket.wake = self._wake
        with self._changed:
            if self._stopping:
                raise UserError('the engine has stopped')
            if request.beams:
                self._searches.append(ticket)
            else:
                self._waiting.extend(ticket.texts)
            self._changed.notify_all()
        return ticket

    def answers(self, requests: Iterable[Any], keep_errors: bool = False) -> Iterator[Any]:
        """Yields the outputs of requests in their order, as of one example of `predict` each.

        Args:
          requests: (encoded example, `TextRequest`), or an error that is yielded in its place.
          keep_errors: yield the `UserError` of an invalid request and go on, instead of raising it.
        """
        begun: collections.deque[Ticket | UserError] = collections.deque()
        try:
            for request in requests:
                try:
                    begun.append(request if isinstance(request, UserError) else self.submit_encoded(*request))
                except UserError as error:
                    if not keep_errors:
                        raise
                    begun.append(error)
                if len(begun) >= 2 * self.slots:
                    yield self.outcome(begun.popleft())
            while begun:
                yield self.outcome(begun.popleft())
        finally:  # also if the caller stops early
            for ticket in begun:
                if isinstance(ticket, Ticket):
                    ticket.cancel()

    def outcome(self, begun: Ticket | UserError) -> Any:
        return begun if isinstance(begun, UserError) else self.finish(begun)

    def finish(self, ticket: Ticket) -> dict[str, Any]:
        """Waits for a request and returns the outputs of its first text; raises what ended it."""
        while not ticket.ended.is_set():
            if self._thread is not None:
                ticket.ended.wait(1.0)
            else:
                self.step()
        if ticket.error is not None:
            raise ticket.error
        return ticket.outputs(self.generate)

    def run(self) -> None:
        """Works on this thread until `stop`."""
        self._thread = threading.current_thread()
        while True:
            with self._changed:
                while not (self._stopping or self.waiting or self._news or self.running):
                    self._changed.wait()
                if self._stopping:
                    break
            self.step()
        self._thread = None
        self._fail(UserError('the engine has stopped'))

    def stop(self) -> None:
        """Ends `run` after its dispatch; open requests end with an error."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def step(self) -> None:
        """Takes requests into free slots, dispatches up to `MOST_STEPS` tokens, and tells the results before them."""
        with self._stepping:
            try:
                with self.turn, jax.set_mesh(self.mesh):
                    self._free()
                    self._admit()
                    result, steps, started = self._dispatch()
                    self._tell()
                    if result is not None:
                        found = unpacked(np.asarray(result))
                        self._measure((time.perf_counter() - started) / steps)
                        self._take(found)
                    self._search()
            except Exception as error:  # the state was donated to a program that failed
                self._state = None
                self._fail(error)
            if not self.running:
                self._tell()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _free(self) -> None:
        """Empties the slots of texts that are done, and drops waiting ones."""
        for slot, text in enumerate(self._slots):
            if text is not None and text.done:
                self._slots[slot] = None
                if text.ticket.cancelled:
                    text.ticket.close()
        with self._changed:
            gone = [text for text in self._waiting if text.ticket.cancelled]
            if gone:
                self._waiting = collections.deque(text for text in self._waiting if not text.ticket.cancelled)
        for text in gone:
            text.ticket.close()

    def _admit(self) -> None:
        """Puts waiting texts into free slots; while others grow, only as many as read few tokens."""
        free = [slot for slot, text in enumerate(self._slots) if text is None]
        budget = PROMPT_TOKENS if len(free) < self.slots else math.inf
        if self._state is None:
            self._state = self.programs.zeros()
        while free and self._waiting and budget > 0:
            with self._changed:
                text = self._waiting.popleft()
            ticket = text.ticket
            if text.done:  # cancelled since `_free`, or ended with another of its texts
                ticket.close()
                continue
            try:
                budget -= self._read(ticket, budget)
            except Exception as error:  # of this request alone
                ticket.close(error)
                continue
            if ticket.known < ticket.prompt_tokens:  # the next part comes after the next dispatch
                with self._changed:
                    self._waiting.appendleft(text)
                break
            slot = free.pop(0)
            numbers = settings_numbers(ticket, slot, text.copy)
            self._state = self.programs.insert(self._state, ticket.row, numbers)
            self._slots[slot] = text
            if text is ticket.texts[-1]:
                ticket.row = None

    def _read(self, ticket: Ticket, budget: float) -> int:
        """Reads a prompt, or as many of its parts as use up the budget; returns the number of tokens."""
        before = ticket.known
        if ticket.row is None:
            ticket.row, ticket.known = self.prefixes.find(ticket.prompts)
            ticket.cached_tokens = before = ticket.known
            self.counts = self.counts._replace(
                prompt=self.counts.prompt + ticket.prompt_tokens, cached=self.counts.cached + ticket.known
            )
        while ticket.known < ticket.prompt_tokens and ticket.known - before < budget:
            ticket.row, ticket.known = self.programs.next_part(ticket.prompts, ticket.row, ticket.known)
            self.prefixes.keep(ticket.prompts, ticket.known, ticket.row)
        return ticket.known - before

    def _search(self) -> None:
        """Runs the next beam search; texts in slots wait for it."""
        with self._changed:
            ticket = self._searches.popleft() if self._searches else None
        if ticket is None:
            return
        try:
            found = [] if ticket.cancelled else self.programs.search(ticket.prompts, ticket.room)
        except Exception as error:  # of this request alone
            ticket.close(error)
            return
        for text, (*tokens, length, ended) in zip(ticket.texts, map(list, found), strict=False):
            finish = Finish.STOP if ended else Finish.LENGTH
            self._news.append((text, ([int(token) for token in tokens[:length]], [], None, finish)))
        if ticket.cancelled:
            ticket.close()

    def _dispatch(self) -> tuple[Any, int, float]:
        """Starts the next tokens of all open slots; returns the result on the device, or None if all are closed."""
        open_texts = [text for text in self._slots if text is not None]
        if not open_texts:
            return None, 0, 0.0
        left = [text.ticket.room - text.taken for text in open_texts]
        fitting = int(SECONDS / self._step_seconds) if self._step_seconds else 1
        steps = max(1, min(fitting, MOST_STEPS, min(left) if self._waiting else max(left)))
        control = np.array([*(text is not None for text in self._slots), steps], np.int32)
        started = time.perf_counter()
        self._state, result = self.programs.decode(self._state, control)
        result.copy_to_host_async()
        self.counts = self.counts._replace(dispatches=self.counts.dispatches + 1)
        return result, steps, started

    def _measure(self, seconds: float) -> None:
        self._step_seconds = 0.8 * self._step_seconds + 0.2 * seconds if self._step_seconds else seconds

    def _take(self, found: Found) -> None:
        """Notes what a dispatch has made, and frees the slots that it closed; the texts are made later."""
        counts = (found.tokens >= 0).sum(axis=1)
        for slot, text in enumerate(self._slots):
            if text is None:
                continue
            count = int(counts[slot])
            tokens = found.tokens[slot, :count].tolist()
            text.taken += count
            ended = None
            if tokens and tokens[-1] in self.generate.end and not text.ticket.request.ignore_end:
                ended = Finish.STOP
            elif text.taken >= text.ticket.room:
                ended = Finish.LENGTH
            top = found.top[slot, :count], found.top_logprobs[slot, :count]
            self._news.append((text, (tokens, found.logprobs[slot, :count].tolist(), top, ended)))
            if ended:
                self._slots[slot] = None
        self.counts = self.counts._replace(generated=self.counts.generated + int(counts.sum()))

    def _tell(self) -> None:
        """Makes texts of results, and hands the pieces over."""
        news, self._news = self._news, []
        for text, result in news:
            try:
                text.add(*result)
            except Exception as error:  # of this request alone
                text.ticket.close(error)
            if text.ticket.cancelled:
                text.ticket.close()

    def _fail(self, error: BaseException) -> None:
        """Ends every request that has begun, and with `stop` those that wait."""
        begun = [text for text in self._slots if text is not None]
        self._slots = [None] * self.slots
        if self._stopping:
            with self._changed:
                begun += self._waiting
                self._waiting.clear()
                searches, self._searches = self._searches, collections.deque()
            for ticket in searches:
                ticket.close(error)
        for text in begun:
            text.ticket.close(error)


def generates(task: Task) -> bool:
    """Whether an engine can generate the task's texts."""
    parts = ('prompts', 'outputs', 'encode_tokens', 'decoding', 'tokenizer')
    return task.generate is not None and all(getattr(task.generate, name) is not None for name in parts)


def samples_texts(task: Task) -> bool:
    """Whether the task's own answers are sampled texts of an engine; beam search is not."""
    return generates(task) and not task.split and not task.generate.decoding.beams  # pyright: ignore[reportOptionalMemberAccess]
