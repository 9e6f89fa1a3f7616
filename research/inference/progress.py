"""A progress bar with the remaining time, for work that takes more than two seconds."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TextIO

DELAY = 2.0  # seconds without a bar
WIDTH = 24  # characters of the bar
ERASE = '\r\x1b[K'  # to the start of the line of a terminal, which is then cleared


def progress_text(done: int, total: int, seconds: float) -> str:
    """'[####----] 1,200/5,000, 240/s, 0:16 left'; the remaining time assumes the mean speed so far."""
    filled = WIDTH * done // total if total else WIDTH
    bar = f'[{"#" * filled}{"-" * (WIDTH - filled)}] {done:,}/{total:,}'
    if not done or seconds <= 0:
        return f'{bar}, {clock(seconds)}'
    rate = done / seconds
    speed = f'{rate:,.0f}/s' if rate >= 10 else f'{rate:.2g}/s'
    return f'{bar}, {speed}, {clock((total - done) / rate)} left'


def clock(seconds: float) -> str:
    """A duration as minutes:seconds or hours:minutes:seconds."""
    whole = round(seconds)
    minutes = f'{whole // 60 % 60:02d}:{whole % 60:02d}' if whole >= 3600 else f'{whole // 60}:{whole % 60:02d}'
    return f'{whole // 3600}:{minutes}' if whole >= 3600 else minutes


class Progress:
    """Shows progress on a stream from the third second on: a bar on a terminal, else a line every five seconds.

    A thread draws it, so that the time advances during a long batch or compilation.

        with Progress(100, sys.stderr) as progress:
            for answer in answers:
                with progress.hidden():
                    print(answer)
                progress.advance()
    """

    def __init__(self, total: int, stream: TextIO, delay: float = DELAY, interval: float | None = None):
        self._total, self._stream, self._delay = total, stream, delay
        self._terminal = stream.isatty()
        self._interval = interval or (0.2 if self._terminal else 5.0)
        self._done, self._drawn, self._started = 0, False, time.monotonic()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> 'Progress':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with self._lock:
            self._erase()

    def advance(self) -> None:
        """Counts one more answer."""
        self._done += 1

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Takes the bar away while something else is printed on the same terminal."""
        with self._lock:
            self._erase()
            yield

    def _erase(self) -> None:
        if self._drawn:
            self._write(ERASE)
        self._drawn = False

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the stream is closed: no reason to lose the answers
            self._stream.write(text)
            self._stream.flush()

    def _run(self) -> None:
        if self._ended.wait(self._delay):
            return
        while True:
            with self._lock:
                text = progress_text(self._done, self._total, time.monotonic() - self._started)
                self._write(f'{ERASE}{text}' if self._terminal else f'{text}\n')
                self._drawn = self._terminal
            if self._ended.wait(self._interval):
                return
