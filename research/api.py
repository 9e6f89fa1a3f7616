"""Names to functions: reads a config by path, resolves its task and methods, and runs or loads it.

The core receives functions and knows no task; the programs of `launch/` and notebooks call this module.
"""

import dataclasses
import functools
import html
import inspect
import os
import pathlib
import sys
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ml_collections
from etils import epath

from research.cluster.platform import choose_platform
from research.core import config as config_module
from research.core.config import Config, method_section
from research.core.logs import is_local
from research.core.outcome import Stop, Summary
from research.core.task import Task
from research.errors import UserError, name_of, unpack
from research.locations import run_folder
from research.overrides import check_values, override
from research.resolve import (
    completed,
    find_config,
    known_settings,
    method_defaults,
    method_module,
    read_file,
    settable,
    task_module,
)

if TYPE_CHECKING:
    from research.inference.model import Model

__all__ = [
    'Run', 'build', 'find_config', 'load', 'load_config', 'method_defaults', 'observers', 'prepare', 'published',
    'read', 'read_run', 'read_trained', 'run', 'task_module', 'write_weights',
]  # fmt: skip


def load_config(spec: str) -> ml_collections.ConfigDict:
    """The config of 'path' or 'path:variant,variant' with all possible settings, for inspection and changes.

    Raises:
      UserError: if the file, its `get_config` or a variant does not exist, or running it fails.
    """
    values = read_file(spec)
    for name, defaults in method_defaults().items():
        values[name] = {**defaults, **values.get(name, {})}
    return ml_collections.ConfigDict(completed(values)).lock()


def read(
    config: str | Mapping[str, Any], overrides: Mapping[str, Any] | None = None, task: Any = None, data: Any = None,
    methods: Sequence[Any] | None = None,
) -> Config:
    """A checked config from a path ('configs/digits.py:tiny'), a ConfigDict, or the dict of a stored run.

    Args:
      config: a path, a ConfigDict or nested dicts.
      overrides: {'train.steps': 100}; values may be text, as on the command line.
      task: a module with `prepare` and `make` (or an object with these functions), instead of `task.name`.
      data: a module or an object with `open`, instead of `data.name`.
      methods: names, or modules or objects with `Settings` and `apply`, instead of `methods`. An object has the name of
        its `__name__`, which is also the section of its settings.

    Raises:
      UserError: for an invalid setting; names the nearest valid one.
    """
    values = read_file(config) if isinstance(config, str) else as_dict(config)
    for section, module in (('task', task), ('data', data)):
        if module is not None:
            old = values.get(section, {})
            replaced = old.get('name') and name_of(old['name']) != name_of(module)
            values = {**values, section: {**old, 'name': module}, **({'expected': {}} if replaced else {})}
    if methods is not None:
        values = {**values, 'methods': tuple(methods)}
    if overrides:
        texts = {name: value if isinstance(value, str) else text_of(value) for name, value in overrides.items()}
        values = override(values, texts, settable)
    values = completed(values)
    checked = config_module.read_config(values, method_defaults(values.get('methods')))
    check_values(values, known_settings(values))
    return checked


def as_dict(config: Mapping[str, Any]) -> dict[str, Any]:
    return config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)


def text_of(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, (tuple, list)) else str(value)


def read_run(workdir: Any, overrides: Mapping[str, Any] | None = None, **objects: Any) -> Config:
    """The config stored in a run's folder, with overrides and objects as for `read`; raises UserError without one."""
    if not str(workdir):
        raise UserError('--workdir is missing: name the folder of a run, for example runs/digits')
    folder = run_folder(workdir)
    file = folder / 'config.json'
    if not file.exists():
        if is_local(folder) and folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
            raise UserError(f'{workdir} cannot be read: this user may not open the folder')
        problem = 'it has no config.json' if folder.exists() else 'there is no such folder'
        raise UserError(f'{workdir} is not a run folder: {problem}')
    return read(config_module.stored_values(file), overrides, **objects)


def prepare(config: Config, folder: epath.Path) -> None:
    """Builds what the task needs besides weights, in `folder`."""
    bind_run_loader(task_module(config.task.get('name', '')).prepare)(config, folder)


def bind_run_loader(function: Callable) -> Callable:
    """Binds the parameter `load` of a task's `prepare` or `make`, if it has one, to `read_trained`.

    So a task can read another run; tasks must not resolve names themselves.
    """
    if 'load' not in inspect.signature(function).parameters:
        return function
    return functools.partial(function, load=read_trained)


def read_trained(workdir: str):
    """Reads a run: config, task, variables on the host, and step (`inference.model.Trained`).

    Raises:
      UserError: if it is not a run, or has no intact checkpoint.
    """
    import jax

    from research.inference import model

    config = read_run(workdir)
    if config.train.average_checkpoints and jax.process_count() > 1:  # all processes would have to call this together
        raise UserError(
            f'{workdir} averages checkpoints (train.average_checkpoints): several processes cannot read it'
        )
    choose_platform()
    return model.read_trained(config, run_folder(workdir), build)


def build(config: Config, folder: epath.Path) -> Task:
    """Makes the task of a config and applies its methods in order."""
    task = bind_run_loader(task_module(config.task.get('name', '')).make)(config, folder)
    if config.train.init_from:
        task = task._replace(load=load_from(config.train.init_from))
    for name in config.methods:
        module, section = method_module(name), method_section(name)
        task = module.apply(task, unpack(module.Settings, config.settings[section], section), config)
    return task


def load_from(workdir: str):
    """A function for `Task.load` that reads the evaluation variables of another run."""
    from research.checkpoint.store import read_weights
    from research.core.state import eval_variables_from

    return lambda: eval_variables_from(read_weights(run_folder(workdir)), workdir)


def observers():
    """The user-facing output of a run: description, report, summary, and the out-of-memory message."""
    from research.capacity.flops import count_flops, expected_seconds
    from research.core.train import Observers
    from research.memory import out_of_memory_message
    from research.report.page import write_report
    from research.report.run import describe_run, print_summary

    def describe(
        spec: Any, memory: Mapping[str, Any], workdir: epath.Path, start: int, initial: Sequence[str]
    ) -> None:
        flops = count_flops(spec.step(), spec.state, spec.batch)
        devices = spec.mesh.devices
        seconds = expected_seconds(flops['total'], devices.size, devices.flat[0].platform)
        describe_run(spec, memory, flops, seconds, workdir, start, initial)

    return Observers(describe, write_report, print_summary, out_of_memory_message)


def comparable(config: Config) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function that completes a stored config, also if `config` contains objects without an import path."""

    def with_object(values: dict[str, Any], section: str) -> dict[str, Any]:
        module = getattr(config, section).get('name', '')
        same = values[section].get('name') == name_of(module)
        return {**values[section], 'name': module} if same and not isinstance(module, str) else values[section]

    def complete_stored(values: dict[str, Any]) -> dict[str, Any]:
        same = list(values['methods']) == list(map(name_of, config.methods))
        values = {**values, 'methods': config.methods if same else values['methods']}
        whole = completed({**values, 'task': with_object(values, 'task'), 'data': with_object(values, 'data')})
        names = {section: config_module.with_name(whole[section]) for section in ('task', 'data')}
        return {**whole, **names, 'methods': tuple(map(name_of, whole['methods']))}

    return complete_stored


def objects_of(config: Config) -> dict[str, Any]:
    """The task, data set and methods of a config that are modules or objects, as arguments of `read`."""
    objects = {section: getattr(config, section).get('name', '') for section in ('task', 'data')}
    objects = {section: module for section, module in objects.items() if not isinstance(module, str)}
    named = all(isinstance(method, str) for method in config.methods)
    return objects if named else {**objects, 'methods': config.methods}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that has ended; its folder contains checkpoints, metrics and report."""

    config: Config
    workdir: epath.Path
    summary: Summary

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """{split: {metric: value}} of the last evaluation of each split."""
        return {
            split: {name: metric['value'] for name, metric in entry['metrics'].items()}
            for split, entry in self.summary.metrics.items()
        }

    @property
    def step(self) -> int:
        """The last step."""
        return self.summary.step

    @property
    def stop(self) -> Stop:
        """Why the run stopped."""
        return self.summary.stop

    @property
    def failures(self) -> tuple[str, ...]:
        """'split/metric' of each value outside its expected range."""
        return self.summary.failures

    @property
    def report(self) -> str:
        """The path of the HTML report."""
        return self.summary.report

    def model(self, overrides: Mapping[str, Any] | None = None) -> 'Model':
        """The trained model, as `load`."""
        return load(self.workdir, overrides, **objects_of(self.config))

    def show(self) -> None:
        """Shows the report: in a notebook below the cell, elsewhere in the browser."""
        notebook = sys.modules.get('IPython')
        if notebook and notebook.get_ipython():
            page = html.escape(epath.Path(self.report).read_text())
            frame = f'<iframe srcdoc="{page}" width="100%" height="600"></iframe>'
            notebook.display.display(notebook.display.HTML(frame))
        else:
            webbrowser.open(pathlib.Path(self.report).resolve().as_uri())


def run(
    config: str | Mapping[str, Any] | Config, workdir: Any, overrides: Mapping[str, Any] | None = None,
    task: Any = None, data: Any = None, methods: Sequence[Any] | None = None,
) -> Run:
    """Trains, evaluates and reports a config in `workdir`; resumes an existing run.

    Args:
      config, overrides, task, data, methods: as for `read`; a checked `Config` accepts no others.
      workdir: the folder of the run.

    Raises:
      UserError: for anything the user can fix.
    """
    from research.core import train

    if isinstance(config, Config) and (overrides or any(each is not None for each in (task, data, methods))):
        raise UserError('this config is already checked: give overrides, task, data and methods to research.read')
    checked = config if isinstance(config, Config) else read(config, overrides, task, data, methods)
    choose_platform()
    folder = run_folder(workdir)
    return Run(checked, folder, train.run(checked, folder, prepare, build, observers(), comparable(checked)))


def load(
    workdir: Any, overrides: Mapping[str, Any] | None = None, task: Any = None, data: Any = None,
    methods: Sequence[Any] | None = None,
) -> 'Model':
    """The trained model of a run.

    Args:
      workdir: the folder of the run.
      overrides: settings for prediction, such as {'task.temperature': 0.5}.
      task, data, methods: as for `read`: the objects that the run was started with, if they have no import path.

    Raises:
      UserError: if there is no run, or it has no intact checkpoint.
    """
    from research.inference import model

    choose_platform()
    checked = read_run(workdir, overrides, task=task, data=data, methods=methods)
    return model.load(checked, run_folder(workdir), build)


def write_weights(workdir: Any, folder: Any, overrides: Mapping[str, Any] | None = None) -> str:
    """Writes the final weights of a run as a Hugging Face folder, with adapters folded; returns its family.

    Args:
      workdir: the folder of the run.
      folder: the output folder, new or empty.
      overrides: settings of the run to change.

    Raises:
      UserError: if there is no run, its task or architecture has no supported family, or `folder` is not empty.
    """
    import jax

    from research.inference import model
    from research.interop.publish import write_folder

    config, run = read_run(workdir, overrides), run_folder(workdir)
    check_publishable(config, run)
    choose_platform()
    trained = model.read_trained(config, run, build)
    variables = jax.device_get(jax.jit(trained.task.view)(trained.variables))
    try:
        return write_folder(published(config, run, variables), folder)
    except UserError as error:
        raise UserError(f'{workdir}: {error}') from None


def check_publishable(config: Config, run: epath.Path) -> None:
    """Raises UserError if the task or the model of a run has no counterpart among the models of the hub."""
    task, network = config.task.get('name', ''), name_of(config.model.get('name', ''))
    unknown_task = getattr(task_module(task), 'publish', None) is None
    if unknown_task or '.' in network:
        what = f'the task {name_of(task)!r}' if unknown_task else f'the model {network!r}'
        raise UserError(f'{run}: {what} has no counterpart among the models of the hub')


def published(config: Config, run: epath.Path, variables: Any) -> Any:
    """Describes a trained model (`interop.publish.Published`); `variables` have `Task.view` applied.

    Raises:
      UserError: if its task or model has no counterpart among the models of the hub.
    """
    check_publishable(config, run)
    publish = task_module(config.task.get('name', '')).publish
    return publish(config, run / 'prepared', variables.params['model'])
