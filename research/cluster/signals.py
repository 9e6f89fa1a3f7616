"""Handles signals that stop a program: with one message, and in training after saving a checkpoint."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# SIGHUP is sent when a terminal or connection closes; Windows lacks it.
STOPPING = [getattr(signal, name) for name in ('SIGTERM', 'SIGINT', 'SIGHUP') if hasattr(signal, name)]
received: list[int] = []  # by this process; handlers are per process


class Interrupted(BaseException):
    """The program was stopped by a signal; not caught by `except Exception`."""

    def __init__(self, number: int):
        super().__init__(f'stopped by {signal.Signals(number).name}')
        self.number = number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Makes signals raise `Interrupted` in the main thread of a program.

    An ignored SIGHUP (nohup) stays ignored.
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


def set_handlers(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Sets the handler of all stopping signals; returns the previous handlers, {} outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    previous = {}
    for number in STOPPING:
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            previous[number] = signal.signal(number, handler)
    return previous


def restore_handlers(previous: dict[int, Any]) -> None:
    """Restores the handlers that `set_handlers` replaced."""
    for number, handler in previous.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def stop_requested() -> Iterator[Callable[[bool], int]]:
    """Yields `requested(agree)`: the signal that requested a stop, 0 for none.

    Includes earlier signals whose exception was suppressed. With `agree`, several processes synchronize the answer, so
    that all stop at the same step and none waits in a collective for one that has exited. A second Ctrl-C ends the
    program immediately.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    def requested(agree: bool) -> int:
        import jax

        number = received[0] if received else 0
        if jax.process_count() == 1:
            return number
        if not agree:
            return 0
        import numpy as np
        from jax.experimental import multihost_utils

        return int(np.max(multihost_utils.process_allgather(np.array(number))))

    previous = set_handlers(handle)
    try:
        yield requested
    finally:
        restore_handlers(previous)
        received.clear()
