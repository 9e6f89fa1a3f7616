"""SIGTERM and Ctrl-C as a request: save, say so, and end cleanly."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np


@contextlib.contextmanager
def stop_requested() -> Iterator[Callable[[bool], int]]:
    """Yields `asked(agree)`: the signal by which this run was asked to stop, 0 for none.

    With several processes the answer is agreed upon when `agree` is set, so that all stop at the same step
    and none waits in a collective for one that is gone. A second Ctrl-C ends the program at once.
    """
    received = []
    previous = {}

    def handle(number, frame):
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is threading.main_thread():  # handlers can be set nowhere else
        previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}

    def asked(agree: bool) -> int:
        own = received[0] if received else 0
        if jax.process_count() == 1:
            return own
        if not agree:
            return 0
        from jax.experimental import multihost_utils

        return int(np.max(multihost_utils.process_allgather(np.array(own))))

    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
