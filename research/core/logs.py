"""What a run says while it trains: a progress bar or lines, records on disk, and times of its stages."""

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

FILE = 'metrics.jsonl'
PAUSE = 30.0  # seconds between two writes to a store that cannot append


def is_local(path: epath.PathLike) -> bool:
    """Returns whether `path` lies in a file system of this machine rather than in a store such as gs://."""
    return '://' not in os.fspath(path)


def write_text(path: epath.Path, text: str) -> None:
    """Writes a file so that a reader, or a kill at any moment, finds the old or the new one and never a part.

    A store writes an object whole or not at all; in a local file system a rename does it.
    """
    # Text of a model may hold halves of surrogate pairs, which UTF-8 has no bytes for.
    data = text.encode('utf-8', 'replace')
    if not is_local(path):
        path.write_bytes(data)
        return
    part = path.with_name(path.name + '.part')
    part.write_bytes(data)
    part.replace(path)


def read_records(path: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the records of a metrics.jsonl in the order of writing: 'step', 'kind', 'time', 'values'.

    A line that a kill tore is left out; a value that was not finite is NaN. Without a file there are none.
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
    """Writes metrics.jsonl, and TensorBoard event files where the run's folder is local.

    A run that goes on from `step` first drops the records of later steps: they will be made again. Where a
    store cannot append, lines are kept here, and the file is written whole at most every half minute.
    """

    def __init__(self, folder: epath.PathLike, step: int = 0, write: bool = True, tensorboard: bool = True):
        """Opens the files.

        Args:
          folder: of the run.
          step: the restored step; -1 for a run from the start, which drops what one killed before its first
            checkpoint has left.
          write: False on every process but the first: nothing is then read or written.
          tensorboard: whether event files are written too.
        """
        self._write, self._events, self._file, self._lines = write, None, None, []
        self._written: set[tuple[int, str]] = set()
        if not write:
            return
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._saved = folder / FILE, time.monotonic()
        kept = [record for record in read_records(self._path) if record['step'] <= step]
        kept = list({(record['step'], record['kind']): record for record in kept}.values())  # the later of two counts
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
        """Adds one record; `kind` is 'train' or the split that was measured.

        A step has one record of each kind: what a resumed run measures again gives the same values.
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
            # The pause grows with the file, so that a long run does not spend its time on writing it.
            if time.monotonic() - self._saved > max(PAUSE, len(self._lines) / 1000):
                self.flush()
        if self._events:
            for name, value in values.items():
                if math.isfinite(value):  # the writer warns about others
                    self._events.add_scalar(f'{kind}/{name}', value, int(step))

    def flush(self) -> None:
        """Makes sure that everything is on disk: call it with every checkpoint."""
        if self._write and not self._file:
            write_text(self._path, ''.join(self._lines))
            self._saved = time.monotonic()
        if self._events:
            self._events.flush()

    def close(self) -> None:
        """Writes what is left and closes the files."""
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
    """Returns a record as one line; JSON has no NaN, so what is not finite becomes null."""
    values = {name: value if math.isfinite(value) else None for name, value in record['values'].items()}
    return json.dumps({**record, 'values': values}) + '\n'


class Meter:
    """Means of what the steps log as (sum, weight), over several steps; a skipped update has weight 0."""

    def __init__(self, sums: Mapping[str, tuple[float, float]] | None = None):
        """Starts from the result of `sums`, which a checkpoint holds, or from nothing."""
        self._sums = {name: total for name, (total, _) in (sums or {}).items()}
        self._weights = {name: weight for name, (_, weight) in (sums or {}).items()}

    def add(self, logs: Mapping[str, tuple[Any, Any]]) -> None:
        """Adds one step's {name: (sum, weight)}; a weight of 0 adds nothing, whatever its sum."""
        for name, (total, weight) in logs.items():
            if weight := float(weight):
                self._sums[name] = self._sums.get(name, 0.0) + float(total)
                self._weights[name] = self._weights.get(name, 0.0) + weight

    def means(self) -> dict[str, float]:
        """Returns {name: mean} of what was added since `clear`."""
        return {name: total / self._weights[name] for name, total in self._sums.items()}

    def sums(self) -> dict[str, tuple[float, float]]:
        """Returns {name: (sum, weight)} of what was added since `clear`."""
        return {name: (total, self._weights[name]) for name, total in self._sums.items()}

    def clear(self) -> None:
        """Starts again."""
        self._sums, self._weights = {}, {}


class Progress:
    """How far a run is: a bar on a terminal, and one line for each update elsewhere.

    Use it as a context manager; what else is printed meanwhile goes through `say`.
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
          start: the step it starts or goes on from.
          batch_size: examples in a step, for the rate; 0 leaves examples per second out.
          write: False on every process but the first: nothing is printed.
          console: a `rich.console.Console`; standard output without one.
          clock: seconds.
        """
        self._total, self._batch, self._write, self._clock = total, batch_size, write, clock
        self.closed = False  # whoever read standard output has gone
        self._marks = deque([(clock(), start)], maxlen=16)  # the rate is that of the last updates
        self._bar = self._console = None
        if not write:
            return
        from rich.console import Console

        self._console = console or Console()
        if self._console.is_terminal:
            self._bar, self._task = _bar(self._console, total, start)

    def rate(self) -> float:
        """Returns steps per second over the last updates; 0 before the first."""
        (then, before), (now, step) = self._marks[0], self._marks[-1]
        return (step - before) / (now - then) if now > then else 0.0

    def left(self) -> float:
        """Returns the seconds until the last step; NaN before the first update."""
        rate = self.rate()
        return (self._total - self._marks[-1][1]) / rate if rate else math.nan

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Shows that `step` steps are done, and the values that matter: the losses, above all."""
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
        """Prints a line of its own, above the bar where there is one."""
        if not self._write:
            return
        try:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)  # pyright: ignore[reportOptionalMemberAccess]
        except (BrokenPipeError, SystemExit):  # rich ends the program, which would lose what was trained
            self._write, self.closed = False, True

    def _speed(self) -> str:
        rate = self.rate()
        if not rate:
            return ''
        examples = f'  {_rate(rate * self._batch)} examples/s' if self._batch else ''
        # A narrow terminal cuts the end off.
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
    """Returns a rich progress bar and its one task."""
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
