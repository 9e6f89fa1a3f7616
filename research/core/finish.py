"""The end of a run: the last state is measured and saved, then the chosen weights are measured on both splits."""

import json
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from research.checkpoint.store import read_average
from research.core import metrics as metrics_module
from research.core.evaluate import evaluate
from research.core.logs import stage, write_text
from research.core.recorder import Recorder
from research.core.runspec import RunSpec
from research.core.samples import write_samples
from research.core.startup import as_dicts, load_weights
from research.core.state import State, eval_variables, eval_variables_from
from research.core.task import Variables
from research.errors import UserError
from research.ops.seal import seal, sealed, unsealed

MARKER_FILE = 'finished.json'
KEYS_WITHOUT_EFFECT = {'log_every', 'prefetch', 'workers', 'sample_every', 'keep_last', 'checkpoint_every'}


def finish(recorder: Recorder, state: State, step: int) -> dict[str, Any]:
    """Saves the last state, evaluates the chosen weights, writes samples and metrics; returns {split: stored entry}."""
    spec, train = recorder.spec, recorder.spec.config.train
    try:
        improved = recorder.evaluate(state, step) if train.eval_split else False
    except UserError:  # train.best names no metric: save before failing, so that no training is lost
        recorder.save(state, step, False)
        recorder.checkpoints.wait()
        raise
    recorder.save(state, step, improved)
    recorder.checkpoints.wait()
    chosen, chosen_step = choose_weights(recorder, state, step)
    entries, account = {}, recorder.account(step)  # of the whole run, also if an earlier step was chosen
    with stage('final evaluation', recorder.times):
        for split in filter(None, (train.eval_split, train.test_split)):
            entries[split] = metrics_module.measure_split(
                lambda split: evaluate(spec.task, recorder.evaluator, chosen, split),
                spec.config, split, chosen_step, account,
            )  # fmt: skip
        if train.test_split in entries:
            recorder.records.write(chosen_step, train.test_split, single_values(entries[train.test_split]))
        write_samples(
            spec.task, recorder.evaluator, chosen, recorder.workdir, chosen_step, recorder.shown_split, last=True
        )
    if jax.process_index() == 0:
        metrics_module.store_metrics(recorder.workdir, entries)
        recorder.checkpoints.clear_damaged(step)
    recorder.records.close()
    return entries


def settings_digest(spec: RunSpec) -> str:
    """A digest of the settings that determine the metrics of a finished run."""
    values = as_dicts(spec.config)
    train = {name: value for name, value in values['train'].items() if name not in KEYS_WITHOUT_EFFECT}
    return seal({**values, 'train': train, 'mesh': {}})


def mark_finished(spec: RunSpec, workdir: epath.Path, step: int) -> None:
    """Writes finished.json, the last file of a run: the last step and a digest of the settings."""
    marker = sealed({'step': step, 'settings': settings_digest(spec)})
    write_text(workdir / MARKER_FILE, json.dumps(marker, indent=2))


def finished_metrics(spec: RunSpec, workdir: epath.Path, step: int) -> dict[str, Any] | None:
    """The stored metrics of a run that is finished at `step`; None if it is not finished."""
    try:
        marker = unsealed(json.loads((workdir / MARKER_FILE).read_text()), required=True)
    except (OSError, ValueError):
        return None
    stored, train = metrics_module.read_metrics(workdir), spec.config.train
    if marker != {'step': step, 'settings': settings_digest(spec)}:
        return None
    return stored if all(split in stored for split in filter(None, (train.eval_split, train.test_split))) else None


def choose_weights(recorder: Recorder, state: State, step: int) -> tuple[Variables, int]:
    """The variables for the final evaluation, and their step: averaged, those of the best step, or the last."""
    train, last = recorder.spec.config.train, eval_variables(state)
    if train.average_checkpoints:
        average = read_average(recorder.workdir, train.average_checkpoints)
        return load_weights(eval_variables_from(average, recorder.workdir), last)[0], step
    if train.best and recorder.best.step not in (step, -1):
        try:
            best, _, best_step = recorder.checkpoints.restore(recorder.spec.state, recorder.best.step)  # pyright: ignore[reportGeneralTypeIssues]
            return eval_variables(best), best_step
        except UserError as error:  # a damaged file must not lose the training
            print(f'{error}\nevaluating the last checkpoint instead of the best one')
    return last, step


def single_values(entry: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a stored entry that are single numbers."""
    return {name: row['value'] for name, row in entry['metrics'].items() if not isinstance(row['value'], list)}
