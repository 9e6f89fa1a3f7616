"""Watching the other processes of a run: a dead one ends the rest within a stated time, by name.

Every process counts up its own key in jax's coordination service, a few times per `timeout`, and reads those
of the others. A key that stands still for `timeout` seconds belongs to a dead process; one that holds a reason
belongs to a process that failed and said so. Where the service itself is gone, process 0 is.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax

from research.errors import UserError

FOLDER = 'tessera/alive/'
DONE, FAILED = 'done', 'failed: '


class HeartbeatTable:
    """When each process was last heard of, by the clock of this one."""

    def __init__(self, count: int, own: int, timeout: float, now: float):
        self.values = {number: '' for number in range(count) if number != own}
        self.heard = dict.fromkeys(self.values, now)
        self.timeout = timeout

    def update(self, values: dict[int, str], now: float) -> str:
        """Takes the present values; returns a sentence about a process that is dead or failed, '' for none."""
        for number in self.values:
            value = values.get(number, '')
            if value.startswith(FAILED):
                return f'process {number} ended with an error: {value.removeprefix(FAILED)}'
            if value != self.values[number] or value == DONE:
                self.values[number], self.heard[number] = value, now
            elif now - self.heard[number] > self.timeout:
                return (
                    f'process {number} was not heard of for {self.timeout:g} s: it was killed, hangs, or its '
                    'host is gone. Start all processes again: the run goes on from its last checkpoint'
                )
        return ''


class Watch:
    """A thread that beats for this process and ends it when another is dead."""

    def __init__(self, client: Any, count: int, own: int, timeout: float, end: Callable[[str], None]):
        self.client, self.own, self.timeout, self.end = client, own, timeout, end
        self.beats = HeartbeatTable(count, own, timeout, time.monotonic())
        self.interval = min(timeout / 4, 5.0)
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True, name='watch')

    def run(self) -> None:
        """HeartbeatTable and looks until closed."""
        beat, answered = 0, time.monotonic()
        while not self.closed.wait(self.interval):
            beat, now = beat + 1, time.monotonic()
            try:
                self.say(str(beat))
                values = self.read()
                answered = now
            except jax.errors.JaxRuntimeError:
                values = None
            problem = ''
            if values is not None:
                problem = self.beats.update(values, now)
            elif now - answered > self.timeout / 2 and self.own:
                problem = (
                    'process 0 is gone: its coordination service does not answer. Start all processes again: '
                    'the run goes on from its last checkpoint'
                )
            if problem and not self.closed.is_set():
                self.end(problem)
                return

    def say(self, value: str) -> None:
        """Stores this process' own value."""
        self.client.key_value_set(f'{FOLDER}{self.own}', value, allow_overwrite=True)

    def read(self) -> dict[int, str]:
        """Returns the value of every process that stored one."""
        return {int(key.rsplit('/', 1)[-1]): value for key, value in self.client.key_value_dir_get(FOLDER)}

    def close(self, value: str) -> None:
        """Ends the thread and leaves a last word for the others."""
        self.closed.set()
        try:
            self.say(value)
        except jax.errors.JaxRuntimeError:
            pass  # the service went first: nobody is left to read it


def end_process(problem: str) -> None:
    """Prints why and ends this process at once: its devices may wait for ever in a collective."""
    print(f'error: {problem}', file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def failure(error: BaseException) -> str:
    """Returns what the other processes are told about an error of this one, in one line."""
    text = str(error).strip().splitlines() or ['']
    kind = '' if isinstance(error, UserError) else f'{type(error).__name__}: '
    return f'{kind}{text[0][:300]}'
