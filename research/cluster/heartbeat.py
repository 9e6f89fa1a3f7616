"""Heartbeats between the processes of a run: if one dies, the others exit within a timeout and name it.

Each process increments its key in jax's coordination service a few times per `timeout`, and reads the keys of the
others. A key that does not change for `timeout` seconds belongs to a dead process; a key that contains a reason
belongs to a process that failed. Process 0 hosts the service: if the service is gone, so is process 0.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax

from research.errors import UserError

KEY_PREFIX = 'tessera/alive/'
DONE = 'done'
FAILED = 'failed: '  # prefix of the reason


class HeartbeatTable:
    """The last heartbeat of each other process, by the clock of this one."""

    def __init__(self, count: int, process: int, timeout: float, now: float):
        self.values = {number: '' for number in range(count) if number != process}
        self.last_beat = dict.fromkeys(self.values, now)
        self.timeout = timeout

    def update(self, values: dict[int, str], now: float) -> str:
        """Updates the table; returns an error message if a process is dead or failed, else ''."""
        for number in self.values:
            value = values.get(number, '')
            if value.startswith(FAILED):
                return f'process {number} ended with an error: {value.removeprefix(FAILED)}'
            if value != self.values[number] or value == DONE:
                self.values[number], self.last_beat[number] = value, now
            elif now - self.last_beat[number] > self.timeout:
                return (
                    f'no heartbeat from process {number} for {self.timeout:g} s (killed, hung, or host down). '
                    'Start all processes again: the run resumes from its last checkpoint'
                )
        return ''


class Watch:
    """A thread that sends the heartbeats of this process, and ends it if another process is dead."""

    def __init__(self, client: Any, count: int, process: int, timeout: float, end: Callable[[str], None]):
        self.client, self.process, self.timeout, self.end = client, process, timeout, end
        self.table = HeartbeatTable(count, process, timeout, time.monotonic())
        self.interval = min(timeout / 4, 5.0)
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True, name='watch')

    def run(self) -> None:
        """Sends heartbeats and checks those of the others until closed."""
        beat = 0
        last_answer = time.monotonic()
        while not self.closed.wait(self.interval):
            beat, now = beat + 1, time.monotonic()
            try:
                self.publish(str(beat))
                values = self.read()
                last_answer = now
            except jax.errors.JaxRuntimeError:
                values = None
            problem = ''
            if values is not None:
                problem = self.table.update(values, now)
            elif now - last_answer > self.timeout / 2 and self.process:
                problem = (
                    'process 0 is gone: its coordination service does not answer. Start all processes again: '
                    'the run resumes from its last checkpoint'
                )
            if problem and not self.closed.is_set():
                self.end(problem)
                return

    def publish(self, value: str) -> None:
        """Stores the value of this process."""
        self.client.key_value_set(f'{KEY_PREFIX}{self.process}', value, allow_overwrite=True)

    def read(self) -> dict[int, str]:
        """Reads the values of all processes that stored one."""
        return {int(key.rsplit('/', 1)[-1]): value for key, value in self.client.key_value_dir_get(KEY_PREFIX)}

    def close(self, value: str) -> None:
        """Ends the thread and publishes a final value for the others."""
        self.closed.set()
        try:
            self.publish(value)
        except jax.errors.JaxRuntimeError:
            pass  # the service is gone, and so are its readers


def end_process(problem: str) -> None:
    """Prints the reason and exits immediately, as devices may be blocked in a collective."""
    print(f'error: {problem}', file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def failure(error: BaseException) -> str:
    """One line that describes an error to the other processes."""
    text = str(error).strip().splitlines() or ['']
    prefix = '' if isinstance(error, UserError) else f'{type(error).__name__}: '
    return f'{prefix}{text[0][:300]}'
