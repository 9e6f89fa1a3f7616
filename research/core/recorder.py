"""Work between two steps: logs, evaluations, samples and checkpoints."""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from research.checkpoint.store import Checkpoints
from research.core.evaluate import Evaluation, Evaluator, evaluate, scalars
from research.core.logs import Meter, MetricsWriter, Progress
from research.core.runspec import RunSpec
from research.core.samples import write_samples
from research.core.state import State, eval_variables
from research.errors import UserError

SIGPIPE = 13  # Windows has no such signal
PROGRESS_LOGS = ('loss', 'accuracy')  # logs shown in the progress line; all logs are recorded
MAX_NAMED_ROWS = 8  # in a message


@dataclasses.dataclass
class Best:
    """The best value so far of the metric that selects checkpoints, and the evaluations since."""

    value: float | None = None
    step: int = -1
    since: int = 0  # evaluations since the best one

    def update(self, value: float, step: int, better: str) -> bool:
        """Adds a value and returns whether it is the best so far; NaN never is."""
        improved = not math.isnan(value) and (
            self.value is None or (value > self.value if better == 'higher' else value < self.value)
        )
        if improved:
            self.value, self.step, self.since = value, step, 0
        else:
            self.since += 1
        return improved


def best_of(meta: Mapping[str, Any], name: str) -> Best:
    """The best value stored with a checkpoint; an empty `Best` if `train.best` names another metric now."""
    if meta.get('best', name) != name:
        return Best()
    return Best(meta.get('best_value'), meta.get('best_step', -1), meta.get('since', 0))


def evaluated_of(meta: Mapping[str, Any], split: str) -> int:
    """The step of the last evaluation of a split before the state was saved; -1 if there was none."""
    known, step = meta.get('evaluated', ('', -1))
    return step if known == split else -1


@dataclasses.dataclass
class Recorder:
    """Writes the logs, metrics, samples and checkpoints of a run."""

    spec: RunSpec
    workdir: epath.Path
    evaluator: Evaluator
    checkpoints: Checkpoints
    records: MetricsWriter
    progress: Progress
    best: Best
    times: dict[str, float]
    restored: int = -1  # the restored step; what is due at this step was done before it was saved
    evaluated: int = -1  # the last evaluated step
    reads_predictions: bool = False  # whether `train.best` is a metric that `finalize` computes
    meter: Meter = dataclasses.field(default_factory=Meter)
    initial: Sequence[str] = ()  # paths of the parameters with initial values at step 0
    pending: tuple[int, Any] | None = None

    def due(self, every: int, step: int) -> bool:
        """Whether `step` is a multiple of the interval `every`; an interval of 0 is off."""
        return every > 0 and step % every == 0

    @property
    def shown_split(self) -> str:
        """The split that samples are taken from: an evaluated one if there is one."""
        train = self.spec.config.train
        return train.eval_split or train.test_split or 'train'

    def account(self, step: int) -> dict[str, float]:
        """The budget that `step` steps have spent, such as epsilon; {} without a budget."""
        return dict(self.spec.task.budget(step)) if self.spec.task.budget else {}

    def before_step(self, state: State, step: int) -> None:
        """Evaluates, writes samples and saves, each if due."""
        train = self.spec.config.train
        evaluates = bool(train.eval_split) and self.due(train.evaluation_interval(self.spec.steps), step)
        saves = self.due(train.checkpoint_every, step)
        samples = self.due(train.sample_every, step)
        if step == self.restored or not (evaluates or saves or samples):
            return
        self.flush()
        improved = self.evaluate(state, step) if evaluates else False
        if samples:
            write_samples(self.spec.task, self.evaluator, eval_variables(state), self.workdir, step, self.shown_split)
        if step and (saves or improved):
            self.save(state, step, improved)

    def out_of_patience(self) -> bool:
        """Whether the last `train.patience` evaluations brought no improvement."""
        patience = self.spec.config.train.patience
        return bool(patience) and self.best.since >= patience

    def closed_pipe(self) -> int:
        """SIGPIPE if the reader of a single process's output has closed the pipe, 0 otherwise."""
        return SIGPIPE if self.progress.closed and jax.process_count() == 1 else 0

    def after_step(self, step: int, logs: Any) -> None:
        """Keeps the logs of a step. They are fetched one step late, so that the devices never wait for the host."""
        self.flush()
        self.pending = (step, logs)

    def flush(self) -> None:
        """Fetches the logs of the last step, checks them, and records their means when a log is due.

        Raises:
          UserError: if a log is not finite, or the batch has no target with weight; that state is never saved.
        """
        if self.pending is None:
            return
        (step, logs), self.pending = self.pending, None
        values = jax.device_get(logs)
        check_finite(values, step, self.checkpoints)
        check_weights(values, step, self.spec)
        self.meter.add(values)
        if self.due(self.spec.config.train.log_every, step) or step == self.spec.steps:
            means = self.meter.means()
            self.meter.clear()
            for group, schedule in self.spec.schedules.items():
                prefix = f'{group}/' if len(self.spec.schedules) > 1 else ''
                means[f'{prefix}learning_rate'] = float(schedule((step - 1) // self.spec.update_every[group]))  # pyright: ignore[reportArgumentType]
            account = self.account(step)
            self.records.write(step, 'train', means | account)
            shown = {name: value for name, value in means.items() if name.split('/')[-1] in PROGRESS_LOGS}
            self.progress.update(step, shown | account)

    def evaluate(self, state: State, step: int) -> bool:
        """Evaluates `train.eval_split`, once per step; returns whether this is the best result so far."""
        train = self.spec.config.train
        if step == self.evaluated:
            return self.best.step == step
        started = time.perf_counter()
        result = self.measure(state)
        values = scalars(result.metrics)
        self.records.write(step, train.eval_split, values)
        self.evaluated = step
        self.times['evaluate'] = self.times.get('evaluate', 0.0) + time.perf_counter() - started
        shown = ', '.join(f'{name} {value:.4g}' for name, value in list(values.items())[:4])
        self.progress.say(f'step {step}: {train.eval_split} {shown}')
        for name, why in result.failed.items():
            self.progress.say(f'step {step}: {name} of {train.eval_split} could not be computed: {why}')
        if not train.best:
            return False
        if train.best not in values and not result.failed:
            raise UserError(f'config.train.best={train.best!r}: {train.eval_split} has the metrics {", ".join(values)}')
        if not step:  # untrained weights are evaluated for the curve, never selected
            return False
        if train.best in values:
            return self.best.update(values[train.best], step, result.metrics[train.best].better)
        return self.best.update(math.nan, step, '')

    def measure(self, state: State) -> Evaluation:
        """Evaluates `train.eval_split`, with the metrics of `finalize` if `train.best` is one of them."""
        task, train, variables = self.spec.task, self.spec.config.train, eval_variables(state)
        result = evaluate(task, self.evaluator, variables, train.eval_split, self.reads_predictions)
        missing = train.best and train.best not in result.metrics and not result.failed
        if missing and task.finalize is not None and not self.reads_predictions:
            self.reads_predictions = True
            result = evaluate(task, self.evaluator, variables, train.eval_split)
        return result

    def save(self, state: State, step: int, best: bool) -> None:
        """Saves the state once its logs are checked; returns when the arrays are copied to the host."""
        self.flush()
        meta = {'best_value': self.best.value, 'best_step': self.best.step, 'since': self.best.since}
        train = self.spec.config.train
        meta |= {'account': self.account(step), 'best': train.best, 'meter': self.meter.sums()}
        meta['evaluated'] = [train.eval_split, self.evaluated]
        meta |= {} if step else {'initial': list(self.initial)}
        self.records.flush()
        self.checkpoints.save(step, state, meta, best)


def check_finite(values: Mapping[str, tuple[float, float]], step: int, checkpoints: Checkpoints) -> None:
    """Raises `UserError` if a log is not finite; names the log, the step, the last checkpoint and remedies."""
    broken = [name for name, (total, weight) in values.items() if not math.isfinite(total) or not math.isfinite(weight)]
    if not broken:
        return
    checkpoints.wait()
    saved = checkpoints.steps()
    kept = f'the last good checkpoint is step {saved[-1]}' if saved else 'no checkpoint was written yet'
    raise UserError(
        f'step {step}: {", ".join(broken)} is not a finite number; {kept}. Try a lower '
        '--config.optimizer.<group>.learning_rate, a longer warmup_steps, or clip=1.0'
    )


def check_weights(values: Mapping[str, tuple[float, float]], step: int, spec: RunSpec) -> None:
    """Raises `UserError` if a group was updated with a loss of weight 0; names the rows of the batch.

    Otherwise the mean of no targets would be recorded as a loss of 0. An empty Poisson batch is valid.
    """
    prefixes = {group: f'{group}/' if len(spec.task.losses) > 1 else '' for group in spec.task.losses}
    empty = [
        f'{prefix}loss'
        for group, prefix in prefixes.items()
        if step % spec.update_every[group] == 0 and values[f'{prefix}loss'][1] == 0
    ]
    numbers = sorted({row.index for row in spec.rows(step - 1) if row.real}) if empty else []
    if not numbers:
        return
    where = getattr(spec.task.source('train'), 'where', lambda number: f'row {number}')
    named = '; '.join(where(number) for number in numbers[:MAX_NAMED_ROWS])
    more = f'; and {len(numbers) - MAX_NAMED_ROWS} more' if len(numbers) > MAX_NAMED_ROWS else ''
    raise UserError(
        f'step {step}: the batch has no target to learn from ({", ".join(empty)} has weight 0): all targets are '
        f'empty, masked, or longer than the model reads. Repair or remove the rows: {named}{more}'
    )
