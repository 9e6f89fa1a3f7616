"""Signals that ask a program to stop: one message at any time, and while training a checkpoint first."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# SIGHUP comes when a terminal or connection is closed; Windows has none.
STOPPING = [getattr(signal, name) for name in ('SIGTERM', 'SIGINT', 'SIGHUP') if hasattr(signal, name)]
received: list[int] = []  # by this process, which has one set of handlers


class Interrupted(BaseException):
    """A signal asked the program to stop; no `except Exception` takes it for an error."""

    def __init__(self, number: int):
        super().__init__(f'stopped by {signal.Signals(number).name}')
        self.number = number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Makes signals raise `Interrupted` in the main thread, for a whole program.

    Where SIGHUP is ignored (nohup) it stays ignored.
    """
    previous = set_handlers(raise_interrupted)
    try:
        yield
    finally:
        restore_handlers(previous)


def raise_interrupted(number: int, frame: FrameType | None) -> None:
    """Handles a signal outside the training loop."""
    received.append(number)
    raise Interrupted(number)


def set_handlers(handler: Callable[[int, FrameType | None], None]) -> dict[int, object]:
    """Sets the handler of all signals that stop a program and returns the previous ones, {} in other threads."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    previous = {}
    for number in STOPPING:
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            previous[number] = signal.signal(number, handler)
    return previous


def restore_handlers(previous: dict[int, object]) -> None:
    """Sets the handlers that `set_handlers` replaced."""
    for number, handler in previous.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def stop_requested() -> Iterator[Callable[[bool], int]]:
    """Yields `asked(agree)`: the signal by which this run was asked to stop, 0 for none.

    A signal that came before, and whose exception something swallowed, counts. With several processes the answer
    is agreed upon when `agree` is set, so that all stop at the same step and none waits in a collective for one that
    is gone. A second Ctrl-C ends the program at once.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    def asked(agree: bool) -> int:
        import jax

        own = received[0] if received else 0
        if jax.process_count() == 1:
            return own
        if not agree:
            return 0
        import numpy as np
        from jax.experimental import multihost_utils

        return int(np.max(multihost_utils.process_allgather(np.array(own))))

    previous = set_handlers(handle)
    try:
        yield asked
    finally:
        restore_handlers(previous)
        received.clear()
