"""Heartbeats between the processes of a run: if one dies, the others exit within a timeout and name it.

Each process increments its key in jax's coordination service a few times per `timeout`, and reads the keys of the
others. A key that does not change for `timeout` seconds belongs to a dead process; a key that contains a reason
belongs to a process that failed or that found a dead one. Process 0 hosts the service: if the service is lost, so is
process 0.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax

from research.cluster.signals import Interrupted
from research.errors import UserError

KEY_PREFIX = 'tessera/alive/'
FAILED = 'failed: '  # prefix of the reason
LOST = 'lost: '  # prefix of a message about another process
ADVICE_SECONDS = 10  # the folder of the run may be on a host that is down


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
            if value.startswith(LOST):
                return value.removeprefix(LOST)
            if value != self.values[number]:
                self.values[number], self.last_beat[number] = value, now
            elif now - self.last_beat[number] > self.timeout:
                return f'no heartbeat from process {number} for {self.timeout:g} s (killed, hung, or host down)'
        return ''


class Watch:
    """Threads that send the heartbeats of this process, and end it if another process is dead.

    Args:
      client: the client of jax's coordination service.
      count: number of processes.
      process: index of this process.
      timeout: seconds without heartbeats until a process counts as dead.
      end: ends this process with a message.
      lost: set when the connection to process 0 is lost; None in process 0.
    """

    def __init__(
        self, client: Any, count: int, process: int, timeout: float, end: Callable[[str], None],
        lost: threading.Event | None = None,
    ):  # fmt: skip
        self.client, self.process, self.timeout, self.end, self.lost = client, process, timeout, end, lost
        self.last_answer = time.monotonic()
        self.table = HeartbeatTable(count, process, timeout, self.last_answer)
        self.interval = min(timeout / 4, 5.0)
        # Process 0 hosts the service in which the others read why the run ends, so it ends after them.
        self.grace = 0.0 if process else 3 * self.interval
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True, name='heartbeats')

    def start(self) -> None:
        """Starts the threads."""
        self.thread.start()
        if self.lost is not None:
            threading.Thread(target=self.await_loss, args=(self.lost,), daemon=True, name='connection').start()

    def run(self) -> None:
        """Sends heartbeats and checks those of the others until closed."""
        beat = 0
        while not self.closed.wait(self.interval):
            beat += 1
            try:
                self.publish(str(beat))
                values = self.read()
            except jax.errors.JaxRuntimeError:
                continue  # `await_loss` decides
            self.last_answer = time.monotonic()
            problem = self.table.update(values, self.last_answer)
            if problem and not self.closed.is_set():
                self.try_publish(LOST + problem)
                time.sleep(self.grace)
                self.end(problem)
                return

    def await_loss(self, lost: threading.Event) -> None:
        """Ends this process when the service of process 0 is lost; requests to a lost service never return."""
        while not lost.wait(self.interval) and time.monotonic() - self.last_answer < self.timeout:
            pass
        if not self.closed.is_set():
            self.end('process 0 is gone (killed, hung, or host down): its coordination service does not answer')

    def publish(self, value: str) -> None:
        """Stores the value of this process."""
        self.client.key_value_set(f'{KEY_PREFIX}{self.process}', value, allow_overwrite=True)

    def read(self) -> dict[int, str]:
        """Reads the values of all processes that stored one."""
        return {int(key.rsplit('/', 1)[-1]): value for key, value in self.client.key_value_dir_get(KEY_PREFIX)}

    def try_publish(self, value: str) -> None:
        """Stores the value of this process unless the service is gone, and with it the readers."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self.publish(value)

    def close(self) -> None:
        """Ends the threads."""
        self.closed.set()


def end_process(problem: str, advice: Callable[[], str] = str) -> None:
    """Prints the reason and the advice, and exits immediately, as devices may be blocked in a collective."""
    print(f'\nerror: {problem}', file=sys.stderr, flush=True)
    thread = threading.Thread(target=lambda: print(advice(), end='', file=sys.stderr, flush=True), daemon=True)
    thread.start()
    thread.join(ADVICE_SECONDS)
    with contextlib.suppress(OSError):  # the output may be a closed pipe
        sys.stdout.flush()
    os._exit(1)


def failure(error: BaseException) -> str:
    """One line that describes an error to the other processes."""
    text = str(error).strip().splitlines() or ['']
    prefix = '' if isinstance(error, (UserError, Interrupted)) else f'{type(error).__name__}: '
    return f'{prefix}{text[0][:300]}'
