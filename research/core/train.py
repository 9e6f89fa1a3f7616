"""The training loop: prepare, make the spec, init or restore, { evaluate | save | step }, final evaluation.

Evaluation and saving come before the step, so a metric describes the weights that are saved with it.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from research.checkpoint.store import Checkpoints, check_path, open_checkpoints
from research.cluster import join as distributed
from research.cluster.signals import stop_requested
from research.core import metrics as metrics_module
from research.core import startup
from research.core.config import Config
from research.core.environment import store_environment
from research.core.evaluate import make_evaluator
from research.core.finish import finish, finished_metrics, mark_finished
from research.core.logs import Meter, MetricsWriter, Progress, stage
from research.core.outcome import Stop, Summary
from research.core.private import forget_secret
from research.core.recorder import Recorder, best_of, evaluated_of
from research.core.runspec import RunSpec, make_run_spec
from research.core.sharding import round_up
from research.core.state import State
from research.data.batches import check_main_guard, training_loader
from research.errors import UserError
from research.memory import compiled_memory, is_out_of_memory


def train_steps(
    recorder: Recorder, compiled: Any, state: State, start: int, batches: Iterator, stop_signal: Callable
) -> tuple[State, int, Stop, int]:
    """Runs all steps from `start`; returns the state, its step, the reason to stop, and the signal number or 0."""
    train = recorder.spec.config.train
    for step in range(start, recorder.spec.steps):
        recorder.before_step(state, step)
        if recorder.out_of_patience():
            return state, step, Stop.PATIENCE, 0
        if number := stop_signal(recorder.due(train.log_every, step)) or recorder.closed_pipe():
            return state, step, Stop.SIGNAL, number
        state, logs = compiled(state, next(batches))
        recorder.after_step(step + 1, logs)
    return state, max(start, recorder.spec.steps), Stop.DONE, 0


class Observers(NamedTuple):
    """User-facing output of a run, passed in so that the loop does not depend on reports or chip models."""

    # Before the first step; the last argument are the paths of parameters with their initial values.
    describe: Callable[[RunSpec, Mapping[str, Any], epath.Path, int, Sequence[str]], None] | None = None
    report: Callable[[epath.Path], Any] | None = None  # writes the report of a finished run and returns its path
    finished: Callable[[Summary, RunSpec, epath.Path], None] | None = None
    out_of_memory: Callable[[BaseException, Mapping[str, Any], Mapping[str, Any]], str] | None = None


def run(
    config: Config, workdir: epath.Path, prepare: Callable, build: Callable, observers: Observers | None = None,
    completed: Callable[[dict], dict] = dict,
) -> Summary:
    """Trains and evaluates a config in `workdir`; resumes an existing run.

    Args:
      config: as checked by `read_config`.
      workdir: the folder of the run.
      prepare: (config, folder) -> None, builds what the task needs besides weights; process 0 calls it once.
      build: (config, folder) -> Task with its methods applied.
      observers: user-facing output; only process 0 calls them.
      completed: (stored config) -> the config with all defaults, so that an older run with equal settings resumes.

    Raises:
      UserError: for anything the user can fix.
    """
    check_main_guard()
    check_path(workdir)
    observers = observers or Observers()
    times: dict[str, float] = {}
    started = time.perf_counter()
    with startup.run_lock(workdir):
        startup.store_config(config, workdir, completed)
        with stage('prepare', times):
            task, contents, secret = startup.prepare_task(config, workdir, prepare, build)
            spec = make_run_spec(config, task, secret=secret)
        rebuild = functools.partial(build, config, workdir / 'prepared')
        with jax.set_mesh(spec.mesh):
            checkpoints = open_checkpoints(workdir, config.train.keep_last, contents=contents)
            try:
                summary = train(spec, workdir, checkpoints, times, rebuild, observers)
            finally:
                checkpoints.close()
    seconds = round(time.perf_counter() - started, 1)
    waited = times.get('waited for data', 0.0) / max(times.get('train', 0.0), 1e-9)
    summary = summary._replace(seconds=seconds, waited=waited)
    if jax.process_index() == 0:
        if summary.stop != Stop.ALREADY_DONE:  # keep the times of the run itself
            store_environment(spec, workdir, times, seconds)
        if observers.report and summary.stop != Stop.SIGNAL:
            summary = summary._replace(report=str(observers.report(workdir)))
        if summary.stop in (Stop.DONE, Stop.PATIENCE):
            mark_finished(spec, workdir, summary.step)
        if summary.stop != Stop.SIGNAL:
            forget_secret(workdir)
        if observers.finished:
            observers.finished(summary, spec, workdir)
    return summary


def train(
    spec: RunSpec, workdir: epath.Path, checkpoints: Checkpoints, times: dict[str, float],
    rebuild: Callable[[], Any], observers: Observers,
) -> Summary:  # fmt: skip
    """Trains one spec and evaluates it at the end."""
    config, main = spec.config, jax.process_index() == 0
    with stage('init or restore', times):
        state, start, meta, initial = startup.restore_or_init(spec, checkpoints)
    stored = finished_metrics(spec, workdir, start)
    if stored is not None:
        return summarize(stored, start, Stop.ALREADY_DONE)
    memory: dict[str, Any] = {}
    try:
        with stage('compile', times):
            compiled = spec.compile() if start < spec.steps else None  # a run without steps only evaluates
        memory = compiled_memory(compiled) if compiled else {}
        if main and observers.describe:
            observers.describe(spec, memory, workdir, start, initial)
        size = round_up(config.train.eval_batch_size or config.train.batch_size, spec.mesh)
        recorder = Recorder(
            spec, workdir, make_evaluator(spec.task, config.seed, size, spec.batch_sharding), checkpoints,
            MetricsWriter(workdir, start or -1, main), Progress(spec.steps, start, config.train.batch_size, main),
            best_of(meta, config.train.best), times, start or -1,
            evaluated_of(meta, config.train.eval_split), meter=Meter(meta.get('meter')),
            initial=initial,
        )  # fmt: skip
        distributed.wait_for_all('compiled')
        with stage('train', times):
            state, step, stop, number = run_loop(recorder, compiled, state, start, rebuild)
        if stop == Stop.SIGNAL:
            recorder.save(state, step, False)
            checkpoints.wait()
            return summarize({}, step, stop, number)
        return summarize(finish(recorder, state, step), step, stop)
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error) or observers.out_of_memory is None:
            raise
        raise UserError(observers.out_of_memory(error, memory, startup.as_dicts(config))) from None


def run_loop(
    recorder: Recorder, compiled: Any, state: State, start: int, rebuild: Callable[[], Any]
) -> tuple[State, int, Stop, int]:
    """Runs `train_steps` with data loader, progress display and signal handling."""
    spec, train = recorder.spec, recorder.spec.config.train
    loader = training_loader(
        spec.task.source('train'), spec.task.encode, range(start, spec.steps), train.batch_size, spec.seed,
        spec.batch_sharding, train.prefetch, train.workers, spec.capacity, rebuild, spec.rows,
        spec.pad,
    )  # fmt: skip
    batches = iter(loader)
    with stop_requested() as stop_signal, recorder.progress:
        result = train_steps(recorder, compiled, state, start, batches, stop_signal)
        recorder.flush()
    batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    recorder.times['waited for data'] = loader.waited
    return result


def summarize(metrics: Mapping[str, Any], step: int, stop: Stop, number: int = 0) -> Summary:
    """The summary of a run, without its times."""
    return Summary(step, stop, number, dict(metrics), tuple(metrics_module.failures(metrics)))
