"""SIGTERM and Ctrl-C as a request: save, say so, and end cleanly."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np


@contextlib.contextmanager
def stop_requested() -> Iterator[Callable[[bool], bool]]:
    """Yields `asked(agree)`: whether this run was asked to stop.

    With several processes the answer is agreed upon when `agree` is set, so that all stop at the same step
    and none waits in a collective for one that is gone. A second Ctrl-C ends the program at once.
    """
    flag = threading.Event()
    previous = {}

    def handle(number, frame):
        if flag.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.set()

    if threading.current_thread() is threading.main_thread():  # handlers can be set nowhere else
        previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}

    def asked(agree: bool) -> bool:
        if jax.process_count() == 1:
            return flag.is_set()
        if not agree:
            return False
        from jax.experimental import multihost_utils

        return bool(np.any(multihost_utils.process_allgather(np.array(flag.is_set()))))

    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
