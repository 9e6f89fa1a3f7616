"""What happens between two steps: logs, evaluations, samples and checkpoints."""

import dataclasses
import math
import time
from collections.abc import Mapping
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
SHOWN = ('loss', 'accuracy')  # of the logs, while training; all are recorded

SHOWN_ROWS = 8  # of a batch, in a message


@dataclasses.dataclass
class Best:
    """The best value so far of the metric that chooses checkpoints, and how long ago it was."""

    value: float | None = None
    step: int = -1
    since: int = 0  # evaluations without a better one

    def update(self, value: float, step: int, better: str) -> bool:
        """Takes a new value and returns whether it is the best so far; a value that is not a number never is."""
        improved = not math.isnan(value) and (
            self.value is None or (value > self.value if better == 'higher' else value < self.value)
        )
        if improved:
            self.value, self.step, self.since = value, step, 0
        else:
            self.since += 1
        return improved


def best_of(meta: Mapping[str, Any], name: str) -> Best:
    """Returns the best value that was saved with a step; none yet where another metric chooses now."""
    if meta.get('best', name) != name:
        return Best()
    return Best(meta.get('best_value'), meta.get('best_step', -1), meta.get('since', 0))


def evaluated_of(meta: Mapping[str, Any], split: str) -> int:
    """Returns the step at which a split was evaluated before the state was saved, -1 where it was not."""
    known, step = meta.get('evaluated', ('', -1))
    return step if known == split else -1


@dataclasses.dataclass
class Recorder:
    """Records a run. Everything on the device is a function of the state and the batch."""

    spec: RunSpec
    workdir: epath.Path
    evaluator: Evaluator
    checkpoints: Checkpoints
    records: MetricsWriter
    progress: Progress
    best: Best
    times: dict[str, float]
    restored: int = -1  # the step that was restored: all that is due at it was done before it was saved
    evaluated: int = -1  # the step evaluated last
    reads_predictions: bool = False  # whether `train.best` is a metric that `finalize` computes
    meter: Meter = dataclasses.field(default_factory=Meter)
    pending: tuple[int, Any] | None = None

    def due(self, every: int, step: int) -> bool:
        """Returns whether something that happens every so many steps happens at `step`."""
        return every > 0 and step % every == 0

    @property
    def shown_split(self) -> str:
        """The split whose rows are shown as samples: one that is measured, where there is one."""
        train = self.spec.config.train
        return train.eval_split or train.test_split or 'train'

    def account(self, step: int) -> dict[str, float]:
        """Returns the task's own account of the steps made, {} where it keeps none."""
        return dict(self.spec.task.budget(step)) if self.spec.task.budget else {}

    def before_step(self, state: State, step: int) -> None:
        """Evaluates, samples and saves where due."""
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
        """Returns whether the last `train.patience` evaluations were no better than the best one."""
        patience = self.spec.config.train.patience
        return bool(patience) and self.best.since >= patience

    def closed_pipe(self) -> int:
        """Returns SIGPIPE where nobody reads the output of a single process any more, 0 otherwise."""
        return SIGPIPE if self.progress.closed and jax.process_count() == 1 else 0

    def after_step(self, step: int, logs: Any) -> None:
        """Takes the logs of a step. They are fetched one step late, so that the devices never wait for the host."""
        self.flush()
        self.pending = (step, logs)

    def flush(self) -> None:
        """Fetches the logs of the last step, checks them, and records their means when a log is due.

        Raises:
          UserError: when a logged value is not finite, or no target of the batch counted; the state it belongs to is
            never saved.
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
            shown = {name: value for name, value in means.items() if name.split('/')[-1] in SHOWN}
            self.progress.update(step, shown | account)

    def evaluate(self, state: State, step: int) -> bool:
        """Measures the evaluation split, once at each step; returns whether this is the best so far."""
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
        if not train.best or not step:  # untrained weights are measured for the curve, never chosen
            return False
        if train.best in values:
            return self.best.update(values[train.best], step, result.metrics[train.best].better)
        if result.failed:
            return self.best.update(math.nan, step, '')
        raise UserError(f'config.train.best={train.best!r}: {train.eval_split} has the metrics {", ".join(values)}')

    def measure(self, state: State) -> Evaluation:
        """Measures the evaluation split, with the metrics of predictions where `train.best` is one of them."""
        task, train, variables = self.spec.task, self.spec.config.train, eval_variables(state)
        result = evaluate(task, self.evaluator, variables, train.eval_split, self.reads_predictions)
        missing = train.best and train.best not in result.metrics and not result.failed
        if missing and task.finalize is not None and not self.reads_predictions:
            self.reads_predictions = True
            result = evaluate(task, self.evaluator, variables, train.eval_split)
        return result

    def save(self, state: State, step: int, best: bool) -> None:
        """Saves the state after its metrics have been checked; only the copy to the host is waited for."""
        self.flush()
        meta = {'best_value': self.best.value, 'best_step': self.best.step, 'since': self.best.since}
        train = self.spec.config.train
        meta |= {'account': self.account(step), 'best': train.best, 'meter': self.meter.sums()}
        meta['evaluated'] = [train.eval_split, self.evaluated]
        self.records.flush()
        self.checkpoints.save(step, state, meta, best)


def check_finite(values: Mapping[str, tuple[float, float]], step: int, checkpoints: Checkpoints) -> None:
    """Raises a `UserError` when a log is not finite: which, at what step, what is safe, what to try."""
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
    """Raises a `UserError` when a loss has weight 0, though its group was updated: it names the rows of the batch.

    The mean of no targets would be recorded as a loss of 0. A Poisson batch may be empty; then nothing is wrong.
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
    named = '; '.join(where(number) for number in numbers[:SHOWN_ROWS])
    more = f'; and {len(numbers) - SHOWN_ROWS} more' if len(numbers) > SHOWN_ROWS else ''
    raise UserError(
        f'step {step}: no target of the batch counts ({", ".join(empty)} has weight 0), so there is nothing to learn '
        f'from: each is empty, masked, or longer than the model reads. Repair or remove the rows: {named}{more}'
    )
