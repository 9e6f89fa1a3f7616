"""Output of a run during training: progress bar or lines, metric records on disk, stage times."""

import contextlib
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from absl import logging
from etils import epath

from research.units import time_text

METRICS_FILE = 'metrics.jsonl'
MIN_REWRITE_SECONDS = 30.0  # between two writes to a store that cannot append


def is_local(path: epath.PathLike) -> bool:
    """Whether `path` is in a file system of this machine rather than in an object store such as gs://."""
    return '://' not in os.fspath(path)


def write_text(path: epath.Path, text: str) -> None:
    """Writes a file atomically: a reader, or a restart after a kill, finds the old or the new content.

    Object stores write atomically; a local file is written under another name and renamed.
    """
    # Model output may contain lone surrogates, which UTF-8 cannot encode.
    data = text.encode('utf-8', 'replace')
    if not is_local(path):
        path.write_bytes(data)
        return
    part = path.with_name(path.name + '.part')
    part.write_bytes(data)
    part.replace(path)


def read_records(path: epath.PathLike) -> list[dict[str, Any]]:
    """Reads the records of a metrics.jsonl in file order; each has 'step', 'kind', 'time' and 'values'.

    Skips lines torn by a kill. Values that were not finite are NaN. A missing file gives an empty list.
    """
    path = epath.Path(path)
    records = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
            values = {name: math.nan if value is None else value for name, value in record['values'].items()}
            records.append({**record, 'step': int(record['step']), 'values': values})
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return records


class MetricsWriter:
    """Writes metrics.jsonl and, in a local folder, TensorBoard event files.

    A run that resumes from `step` first drops the records of later steps, which it will repeat. In a store that cannot
    append, lines are buffered and the whole file is rewritten at most every `MIN_REWRITE_SECONDS`.
    """

    def __init__(self, folder: epath.PathLike, step: int = 0, write: bool = True, tensorboard: bool = True):
        """Opens the files.

        Args:
          folder: of the run.
          step: the restored step; -1 for a new run, which drops the records of a run killed before its first
            checkpoint.
          write: False on all processes but the first, which then read and write nothing.
          tensorboard: whether to write event files.
        """
        self._write, self._events, self._file, self._lines = write, None, None, []
        self._written: set[tuple[int, str]] = set()
        if not write:
            return
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._saved = folder / METRICS_FILE, time.monotonic()
        kept = [record for record in read_records(self._path) if record['step'] <= step]
        kept = list({(record['step'], record['kind']): record for record in kept}.values())  # the later one wins
        self._written = {(record['step'], record['kind']) for record in kept}
        self._lines = [_line(record) for record in kept]
        write_text(self._path, ''.join(self._lines))
        if is_local(folder):
            self._file = self._path.open('ab')
        if tensorboard and is_local(folder):
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(
                os.fspath(folder / 'tensorboard'), purge_step=step + 1 if step else None
            )

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Adds one record; `kind` is 'train' or the name of the evaluated split.

        Keeps one record per step and kind: a resumed run repeats an evaluation with the same values.
        """
        if not self._write or (int(step), kind) in self._written:
            return
        self._written.add((int(step), kind))
        values = {name: float(value) for name, value in values.items()}
        line = _line({'step': int(step), 'kind': kind, 'time': time.time(), 'values': values})
        if self._file:
            self._file.write(line.encode())
            self._file.flush()
        else:
            self._lines.append(line)
            # The interval grows with the file, so that a long run does not spend its time on rewriting it.
            if time.monotonic() - self._saved > max(MIN_REWRITE_SECONDS, len(self._lines) / 1000):
                self.flush()
        if self._events:
            for name, value in values.items():
                if math.isfinite(value):  # the writer warns about others
                    self._events.add_scalar(f'{kind}/{name}', value, int(step))

    def flush(self) -> None:
        """Writes all records to disk; called with every checkpoint."""
        if self._write and not self._file:
            write_text(self._path, ''.join(self._lines))
            self._saved = time.monotonic()
        if self._events:
            self._events.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        self.flush()
        if self._file:
            self._file.close()
        if self._events:
            self._events.close()
        self._write, self._file, self._events = False, None, None

    def __enter__(self) -> 'MetricsWriter':
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _line(record: Mapping[str, Any]) -> str:
    # JSON has no NaN: values that are not finite become null.
    values = {name: value if math.isfinite(value) else None for name, value in record['values'].items()}
    return json.dumps({**record, 'values': values}) + '\n'


class Meter:
    """Weighted means of step logs, (sum, weight) each, over several steps; a skipped update has weight 0."""

    def __init__(self, sums: Mapping[str, tuple[float, float]] | None = None):
        """Starts from the result of `sums`, as stored in a checkpoint, or from zero."""
        self._sums = {name: total for name, (total, _) in (sums or {}).items()}
        self._weights = {name: weight for name, (_, weight) in (sums or {}).items()}

    def add(self, logs: Mapping[str, tuple[Any, Any]]) -> None:
        """Adds one step's {name: (sum, weight)}; entries with weight 0 are ignored."""
        for name, (total, weight) in logs.items():
            if weight := float(weight):
                self._sums[name] = self._sums.get(name, 0.0) + float(total)
                self._weights[name] = self._weights.get(name, 0.0) + weight

    def means(self) -> dict[str, float]:
        """{name: mean} of the logs added since `clear`."""
        return {name: total / self._weights[name] for name, total in self._sums.items()}

    def sums(self) -> dict[str, tuple[float, float]]:
        """{name: (sum, weight)} of the logs added since `clear`."""
        return {name: (total, self._weights[name]) for name, total in self._sums.items()}

    def clear(self) -> None:
        """Resets all sums."""
        self._sums, self._weights = {}, {}


class Progress:
    """Progress of a run: a bar on a terminal, one line per update elsewhere.

    A context manager; print other messages through `say` meanwhile.
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        batch_size: int = 0,
        write: bool = True,
        console: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Starts the clock.

        Args:
          total: the last step of the run.
          start: the first step, or the restored one.
          batch_size: examples per step; 0 omits the examples per second.
          write: False on all processes but the first, which then print nothing.
          console: a `rich.console.Console`; None for standard output.
          clock: returns the time in seconds.
        """
        self._total, self._batch, self._write, self._clock = total, batch_size, write, clock
        self.closed = False  # standard output is a closed pipe
        self._marks = deque([(clock(), start)], maxlen=16)  # (time, step) of the last updates, for the rate
        self._bar = self._console = None
        if not write:
            return
        from rich.console import Console

        self._console = console or Console()
        if self._console.is_terminal:
            self._bar, self._task = _bar(self._console, total, start)

    def rate(self) -> float:
        """Steps per second over the last updates; 0 before the first."""
        (then, before), (now, step) = self._marks[0], self._marks[-1]
        return (step - before) / (now - then) if now > then else 0.0

    def left(self) -> float:
        """Seconds until the last step; NaN before the first update."""
        rate = self.rate()
        return (self._total - self._marks[-1][1]) / rate if rate else math.nan

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Shows that `step` steps are done, and some values, such as the loss."""
        self._marks.append((self._clock(), step))
        if not self._write:
            return
        numbers = '  '.join(f'{name} {value:.4g}' for name, value in values.items())
        if self._bar:
            self._bar.update(self._task, completed=step, numbers=numbers, speed=self._speed())
            return
        share = f'{100 * step / self._total:.0f}%' if self._total else ''
        self.say(f'step {step:,}/{self._total:,}  {share}  {numbers}  {self._speed()}')

    def say(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        if not self._write:
            return
        try:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)  # pyright: ignore[reportOptionalMemberAccess]
        except (BrokenPipeError, SystemExit):  # rich would exit here and lose the training since the last checkpoint
            self._write, self.closed = False, True

    def _speed(self) -> str:
        rate = self.rate()
        if not rate:
            return ''
        examples = f'  {_rate(rate * self._batch)} examples/s' if self._batch else ''
        # Most important first: a narrow terminal truncates the end.
        return f'{time_text(self.left())} left  {_rate(rate)} steps/s{examples}'

    def __enter__(self) -> 'Progress':
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar:
            self._bar.stop()


def _rate(value: float) -> str:
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def _bar(console: Any, total: int, start: int) -> tuple[Any, Any]:
    """A rich progress bar and the id of its task."""
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    count = TextColumn(
        '{task.completed:,}/{task.total:,}',
        table_column=Column(no_wrap=True, min_width=2 * len(f'{total:,}') + 1),
    )
    cut = Column(no_wrap=True, overflow='ellipsis')
    fields = [
        TextColumn('{task.fields[' + name + ']}', markup=False, table_column=cut.copy())
        for name in ('numbers', 'speed')
    ]
    bar = Bar(
        BarColumn(bar_width=20, table_column=Column(min_width=6)),
        count,
        *fields,
        console=console,
        refresh_per_second=4,
    )
    return bar, bar.add_task('train', total=total, completed=start, numbers='', speed='')


@contextlib.contextmanager
def stage(name: str, times: dict[str, float], debug: bool = False) -> Iterator[None]:
    """Adds the seconds spent inside to `times[name]`; with `debug` (or --log_level=debug) also logs them."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        times[name] = times.get(name, 0.0) + seconds
        logging.log(logging.INFO if debug else logging.DEBUG, 'stage %s: %s', name, time_text(seconds))
