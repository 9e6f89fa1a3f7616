"""Times functions against each other."""

import statistics
import time
from collections.abc import Callable

ROUNDS, SECONDS = 40, 0.005  # each at least five milliseconds


def alternate(*functions: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """The median seconds of one call of each function, measured in turn."""
    repeats = []
    for function in functions:
        function()
        started = time.perf_counter()
        function()
        repeats.append(max(1, round(SECONDS / max(time.perf_counter() - started, 1e-6))))
    times = [[] for _ in functions]
    for _ in range(rounds):
        for function, count, taken in zip(functions, repeats, times, strict=True):
            started = time.perf_counter()
            for _ in range(count):
                function()
            taken.append((time.perf_counter() - started) / count)
    return [statistics.median(taken) for taken in times]
