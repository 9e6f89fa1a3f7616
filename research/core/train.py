"""The one training loop: prepare, plan, init or restore, { evaluate | save | step }, summary and report.

Evaluation and saving come before the step, so a metric describes the weights that are saved with it.
Metrics are fetched one step late, so that the devices never wait for the host.
"""

import dataclasses
import functools
import json
import math
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from research.checkpoint.store import Checkpoints, open_checkpoints, read_average
from research.cluster import join as distributed
from research.cluster.signals import stop_requested
from research.core import metrics as metrics_module
from research.core import startup as begin_module
from research.core.config import Config
from research.core.evaluate import Evaluator, evaluate, make_evaluator, scalars
from research.core.logs import Meter, MetricsWriter, Progress, stage
from research.core.memory import is_out_of_memory, out_of_memory_message
from research.core.runspec import RunSpec, make_run_spec
from research.core.samples import write_samples
from research.core.sharding import round_up
from research.core.state import State, eval_variables, eval_variables_from
from research.data.batches import training_loader
from research.errors import UserError
from research.report.page import write_report

STOPPED = 'asked to stop by {}'
DONE_BEFORE = 'done before'
SHOWN = ('loss', 'accuracy')  # of the logs, while training; all are recorded


@dataclasses.dataclass
class Best:
    """The best value so far of the metric that chooses checkpoints, and how long ago it was."""

    value: float | None = None
    step: int = -1
    since: int = 0  # evaluations without a better one

    def update(self, value: float, step: int, better: str) -> bool:
        """Takes a new value; returns whether it is the best so far."""
        improved = self.value is None or (value > self.value if better == 'higher' else value < self.value)
        if improved:
            self.value, self.step, self.since = value, step, 0
        else:
            self.since += 1
        return improved


@dataclasses.dataclass
class Loop:
    """What the loop works with; everything on the device is a function of `state` and the batch."""

    plan: RunSpec
    workdir: epath.Path
    measure: Evaluator
    checkpoints: Checkpoints
    records: MetricsWriter
    progress: Progress
    best: Best
    times: dict[str, float]
    rebuild: Callable[[], Any]
    meter: Meter = dataclasses.field(default_factory=Meter)
    pending: tuple[int, Any] | None = None

    def due(self, every: int, step: int) -> bool:
        """Returns whether something that happens every so many steps happens at `step`."""
        return every > 0 and step % every == 0

    @property
    def shown_split(self) -> str:
        """Returns the split whose rows are shown as samples: one that is measured, where there is one."""
        train = self.plan.config.train
        return train.eval_split or train.test_split or 'train'

    def account(self, step: int) -> dict[str, float]:
        """Returns the task's own account of the steps made, {} where it keeps none."""
        return dict(self.plan.task.budget(step)) if self.plan.task.budget else {}

    def flush(self) -> None:
        """Fetches the logs of the last step, checks them, and records their means when a log is due.

        Raises:
          UserError: when a logged value is not finite; the state it belongs to is never saved.
        """
        if self.pending is None:
            return
        (step, logs), self.pending = self.pending, None
        values = jax.device_get(logs)
        check_finite(values, step, self.checkpoints)
        self.meter.add(values)
        if self.due(self.plan.config.train.log_every, step) or step == self.plan.steps:
            means = self.meter.means()
            self.meter.clear()
            for group, schedule in self.plan.schedules.items():
                prefix = f'{group}/' if len(self.plan.schedules) > 1 else ''
                means[f'{prefix}learning_rate'] = float(schedule((step - 1) // self.plan.update_every[group]))
            account = self.account(step)
            self.records.write(step, 'train', means | account)
            shown = {name: value for name, value in means.items() if name.split('/')[-1] in SHOWN}
            self.progress.update(step, shown | account)

    def evaluate(self, state: State, step: int) -> bool:
        """Measures the evaluation split; returns whether this is the best so far."""
        train = self.plan.config.train
        started = time.perf_counter()
        task, split = self.plan.task, train.eval_split
        metrics, _, _ = evaluate(task, self.measure, eval_variables(state), split, whole=False)
        values = scalars(metrics)
        self.records.write(step, split, values)
        self.times['evaluate'] = self.times.get('evaluate', 0.0) + time.perf_counter() - started
        self.progress.say(f'step {step}: {split} ' + ', '.join(f'{k} {v:.4g}' for k, v in list(values.items())[:4]))
        if train.best and train.best not in values:
            raise UserError(f'config.train.best={train.best!r}: {split} has the metrics {", ".join(values)}')
        if not train.best or not step:  # untrained weights are measured for the curve, never chosen
            return False
        return self.best.update(values[train.best], step, metrics[train.best].better)

    def before_step(self, state: State, step: int, fresh: bool) -> None:
        """Evaluates, samples and saves where due. A state that was just restored has had all this done."""
        train = self.plan.config.train
        evaluates = bool(train.eval_split) and self.due(train.eval_every, step)
        saves = self.due(train.checkpoint_every, step)
        samples = self.due(train.sample_every, step)
        if not fresh or not (evaluates or saves or samples):
            return
        self.flush()
        improved = self.evaluate(state, step) if evaluates else False
        if samples:
            write_samples(self.plan.task, self.measure, eval_variables(state), self.workdir, step, self.shown_split)
        if step and (saves or improved):
            self.save(state, step, improved)

    def save(self, state: State, step: int, best: bool) -> None:
        """Saves the state after its metrics have been checked; only the copy to the host is waited for."""
        self.flush()
        meta = {'best_value': self.best.value, 'best_step': self.best.step, 'since': self.best.since}
        meta['account'], meta['best'] = self.account(step), self.plan.config.train.best
        self.records.flush()
        self.checkpoints.save(step, state, meta, best)

    def run(self, compiled: Callable, state: State, start: int, fresh: bool) -> tuple[State, int, str]:
        """Steps to the end; returns the state, its step, and why it ended ('' when all steps are done)."""
        config, plan = self.plan.config, self.plan
        train = config.train
        steps = range(start, plan.steps)
        loader = training_loader(
            plan.task.source('train'), plan.task.encode, steps, train.batch_size, config.seed,
            plan.batch_sharding, train.prefetch, train.workers, plan.capacity, self.rebuild,
        )  # fmt: skip
        batches = iter(loader)
        step, reason = start, ''
        with stop_requested() as asked, self.progress:
            for step in range(start, plan.steps):
                self.before_step(state, step, fresh or step > start)
                if train.patience and self.best.since >= train.patience:
                    reason = f'no better {train.eval_split} {train.best} in {train.patience} evaluations'
                    break
                if number := asked(self.due(train.log_every, step)):
                    reason = STOPPED.format(signal.Signals(number).name)
                    break
                batch = next(batches)
                state, logs = compiled(state, batch)
                self.flush()
                self.pending = (step + 1, logs)
            else:
                step = plan.steps
            self.flush()
        batches.close()
        self.times['waited for data'] = loader.waited
        return state, step, reason


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


def run(config: Config, workdir: epath.Path, prepare: Callable, build: Callable) -> dict[str, Any]:
    """Trains, evaluates and reports a config in `workdir`, going on from what is there.

    Args:
      config: as checked by `read_config`.
      workdir: the folder of the run.
      prepare: (config, folder) -> None, builds what the task needs besides weights; called once, by process 0.
      build: (config, folder) -> Task with its methods applied.

    Returns:
      {'step', 'reason', 'metrics', 'failures', 'report', 'seconds', 'waited' (share of the training time)}.

    Raises:
      UserError: for anything the user can put right.
    """
    times: dict[str, float] = {}
    started = time.perf_counter()
    with begin_module.alone(workdir):
        begin_module.store_config(config, workdir)
        with stage('prepare', times):
            begin_module.prepare_once(config, workdir, prepare)
            task = build(config, workdir / 'prepared')
            plan = make_run_spec(config, task)
        rebuild = functools.partial(build, config, workdir / 'prepared')
        with jax.set_mesh(plan.mesh):
            checkpoints = open_checkpoints(workdir, config.train.keep_last)
            try:
                summary = train(plan, workdir, checkpoints, times, rebuild)
            finally:
                checkpoints.close()
    summary['seconds'] = round(time.perf_counter() - started, 1)
    summary['waited'] = times.get('waited for data', 0.0) / max(times.get('train', 0.0), 1e-9)
    if jax.process_index() == 0:
        if summary['reason'] != DONE_BEFORE:  # the times of the run, not of a look at it
            begin_module.store_environment(plan, workdir, times, summary['seconds'])
        if not summary['reason'].startswith('asked'):
            summary['report'] = str(write_report(workdir))
        print(summary_text(summary, workdir))
    return summary


def train(
    plan: RunSpec, workdir: epath.Path, checkpoints: Checkpoints, times: dict[str, float], rebuild: Callable[[], Any]
) -> dict[str, Any]:
    """Runs one plan to its end and measures it."""
    config = plan.config
    with stage('init or restore', times):
        state, start, meta = begin_module.restore_or_init(plan, checkpoints)
    main = jax.process_index() == 0
    stored = metrics_module.read_metrics(workdir)
    if start >= plan.steps and stored:
        print(f'{workdir}: all {plan.steps:,} steps were done before; nothing is left to train')
        return summarize(stored, start, DONE_BEFORE)
    memory: dict[str, Any] = {}
    try:
        with stage('compile', times):
            compiled = plan.compile()
        memory = begin_module.describe_run(plan, compiled, workdir, start)
        size = round_up(config.train.eval_batch_size or config.train.batch_size, plan.mesh)
        loop = Loop(
            plan, workdir, make_evaluator(plan.task, config.seed, size, plan.batch_sharding), checkpoints,
            MetricsWriter(workdir, start or -1, main), Progress(plan.steps, start, config.train.batch_size, main),
            best_of(meta, config.train.best), times, rebuild,
        )  # fmt: skip
        distributed.wait_for_all('compiled')
        with stage('train', times):
            state, step, reason = loop.run(compiled, state, start, fresh=start == 0)
        if reason.startswith('asked'):
            loop.save(state, step, False)
            checkpoints.wait()
            return summarize({}, step, reason)
        return finish(loop, state, step, reason)
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(out_of_memory_message(error, memory, begin_module.as_dicts(config))) from None


def best_of(meta: Mapping[str, Any], name: str) -> Best:
    """Returns the best value so far that was saved with a step; none yet where another metric chooses now."""
    if meta.get('best', name) != name:
        return Best()
    return Best(meta.get('best_value'), meta.get('best_step', -1), meta.get('since', 0))


def finish(loop: Loop, state: State, step: int, reason: str) -> dict[str, Any]:
    """Measures and saves the last state, then measures the chosen weights on both splits, samples and stores."""
    plan, train = loop.plan, loop.plan.config.train
    try:
        improved = loop.evaluate(state, step) if train.eval_split else False
    except UserError:  # of a metric that does not exist: it must not cost what was trained
        loop.save(state, step, False)
        loop.checkpoints.wait()
        raise
    loop.save(state, step, improved)
    loop.checkpoints.wait()
    chosen, chosen_step = eval_variables(state), step
    if train.average:
        chosen, _ = begin_module.load_weights(
            eval_variables_from(read_average(loop.workdir, train.average), loop.workdir), chosen
        )
    elif train.best and loop.best.step not in (step, -1):
        try:
            best, _, chosen_step = loop.checkpoints.restore(plan.state, loop.best.step)
            chosen = eval_variables(best)
        except UserError as error:  # a damaged file must not cost what was trained
            print(f'{error}\nthe last weights are measured instead of the best')
    entries, account = {}, loop.account(step)  # of the whole run, whichever step was chosen
    with stage('final evaluation', loop.times):
        for split in filter(None, (train.eval_split, train.test_split)):
            entries[split] = metrics_module.measure_split(
                lambda split: evaluate(plan.task, loop.measure, chosen, split),
                plan.config,
                split,
                chosen_step,
                account,
            )
        if train.test_split in entries:
            loop.records.write(chosen_step, train.test_split, flat(entries[train.test_split]))
        write_samples(plan.task, loop.measure, chosen, loop.workdir, chosen_step, loop.shown_split, last=True)
    if jax.process_index() == 0:
        metrics_module.store_metrics(loop.workdir, entries)
    loop.records.close()
    return summarize(entries, step, reason)


def flat(entry: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a stored entry."""
    return {name: row['value'] for name, row in entry['metrics'].items() if not isinstance(row['value'], list)}


def summarize(metrics: Mapping[str, Any], step: int, reason: str) -> dict[str, Any]:
    """Returns what `run` returns."""
    return {
        'step': step,
        'reason': reason,
        'metrics': dict(metrics),
        'failures': metrics_module.failures(metrics),
        'report': '',
    }


def summary_text(summary: Mapping[str, Any], workdir: epath.Path) -> str:
    """Returns what is printed at the end: metrics, PASS or FAIL, the report, and the next commands."""
    lines = ['']
    if summary['reason']:
        lines.append(f'stopped at step {summary["step"]:,}: {summary["reason"]}')
    if summary['reason'].startswith('asked'):
        lines.append('saved; the same command goes on from here')
        return '\n'.join(lines)
    lines += [metrics_module.metrics_text(entry) for entry in summary['metrics'].values()]
    ranged = any(row['expected'] for entry in summary['metrics'].values() for row in entry['metrics'].values())
    if summary['failures']:
        lines.append(f'FAIL: outside the expected range: {", ".join(summary["failures"])}')
    elif ranged:
        lines.append('PASS: every metric with an expected range is inside it')
    lines.append(f'{summary["seconds"]:g} s in all; {summary["waited"]:.1%} of the training time waited for data')
    lines += ['', f'report    {summary["report"]}']
    lines.append(f'next      python -m launch.predict --workdir={workdir} ' + next_flags(workdir))
    return '\n'.join(lines)


def next_flags(workdir: epath.Path) -> str:
    """Returns the flags of a prediction that this run can answer."""
    file = workdir / 'description.json'
    inputs = json.loads(file.read_text()).get('flow', {}).get('inputs', {}) if file.exists() else {}
    kinds = set(inputs.values())
    if not kinds & {'text', 'image', 'audio'}:
        return f'--count=16 --output={workdir}/predictions'
    return "--input='...'" if 'text' in kinds else '--input=picture.png' if 'image' in kinds else '--input=sound.wav'
