"""Names to functions: reads a config by path, resolves its task and methods, and runs or loads it.

The core receives functions and knows no task; the programs of `launch/` and notebooks call this module.
"""

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import pathlib
import pkgutil
import types
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
from etils import epath

from research import methods as methods_folder
from research import tasks as tasks_folder
from research.core import config as config_module
from research.core.config import Config
from research.core.task import Task
from research.errors import UserError, choose, nearest, unpack

PACKAGE = pathlib.Path(__file__).parent
ROOT = PACKAGE.parent if (PACKAGE.parent / 'configs').is_dir() else PACKAGE  # a wheel holds configs/ below research/


def modules_of(package: types.ModuleType) -> dict[str, str]:
    """Returns {name: import path} of the modules in a package's folder: the folder is the list."""
    return {each.name: f'{package.__name__}.{each.name}' for each in pkgutil.iter_modules(package.__path__)}


def method_modules() -> dict[str, Any]:
    """Returns every method's module; each has `Settings` and `apply(task, settings, config)`."""
    return {name: importlib.import_module(path) for name, path in modules_of(methods_folder).items()}


def method_defaults() -> dict[str, dict[str, Any]]:
    """Returns {method: its default settings}, so that any config can switch any method on by a flag."""
    return {name: dataclasses.asdict(module.Settings()) for name, module in method_modules().items()}


def find_config(path: str) -> pathlib.Path:
    """Returns the config file at `path`, relative to the working folder or to the project.

    Raises:
      UserError: names the nearest config.
    """
    for folder in (pathlib.Path(), ROOT):
        for candidate in (folder / path, folder / f'{path}.py', folder / 'configs' / f'{path}.py'):
            if candidate.is_file():
                return candidate
    known = [str(file.relative_to(ROOT)) for file in (ROOT / 'configs').rglob('*.py') if file.stem != '__init__']
    raise UserError(f'--config={path}: no such file; {nearest(path, known)}')


def load_config(spec: str) -> ml_collections.ConfigDict:
    """Returns the ConfigDict of 'path' or 'path:variant', with a section for every method.

    Raises:
      UserError: when the file, its `get_config` or the variant is not there, or it is no Python file.
    """
    path, _, variant = spec.partition(':')
    file = find_config(path)
    if file.suffix != '.py':
        raise UserError(f'--config={path}: a config is a Python file (.py) with a function get_config(variant)')
    if 'get_config' not in file.read_text(encoding='utf-8', errors='replace'):  # a program would define its flags
        raise UserError(f'{path} has no function get_config(variant)')
    loader = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    if not hasattr(module, 'get_config'):
        raise UserError(f'{path} has no function get_config(variant)')
    config = module.get_config(variant)
    config.data = config_module.own_files(**config.data.to_dict())  # every config can read a user's files by flags
    for name, defaults in method_defaults().items():
        own = config[name].to_dict() if name in config else {}
        config[name] = ml_collections.ConfigDict({**defaults, **own})
    return config.lock()


def read(config: str | Mapping[str, Any], overrides: Mapping[str, str] | None = None) -> Config:
    """Returns a checked config from a path ('configs/digits.py:tiny'), a ConfigDict, or a stored dict.

    Args:
      config: where or what it is.
      overrides: {'train.steps': '100'}, values as text.

    Raises:
      UserError: for anything that is wrong in it, with the nearest right name.
    """
    if isinstance(config, str):
        config = load_config(config)
    if overrides:
        config_module.override(config, overrides)
    return config_module.read_config(config, method_defaults())


def read_run(workdir: Any, overrides: Mapping[str, str] | None = None) -> Config:
    """Returns the config stored in a run's folder, with overrides; a UserError where there is none."""
    if not str(workdir):
        raise UserError('--workdir is missing: name the folder of a run, for example runs/digits')
    file = epath.Path(workdir) / 'config.json'
    if not file.exists():
        raise UserError(f'{workdir} is not the folder of a run: it has no config.json')
    return read(ml_collections.ConfigDict(config_module.stored_values(file)).lock(), overrides)


def task_module(config: Config) -> Any:
    """Returns the module of `config.task.name`."""
    path = choose(config.task.get('name', ''), modules_of(tasks_folder), 'config.task.name')
    return importlib.import_module(path)


def prepare(config: Config, folder: epath.Path) -> None:
    """Builds what the task needs besides weights, in `folder`."""
    bind_run_loader(task_module(config).prepare)(config, folder)


def bind_run_loader(function: Callable) -> Callable:
    """Returns a task's `prepare` or `make`, given `load` where it has such a parameter: how it reads another run.

    `load(workdir)` is `read_trained`; tasks may not resolve names themselves.
    """
    if 'load' not in inspect.signature(function).parameters:
        return function
    return functools.partial(function, load=read_trained)


def read_trained(workdir: str):
    """Returns a run's config, task, variables on the host, and step (`core.model.Trained`).

    Raises:
      UserError: when it is no run, or has no good checkpoint.
    """
    import jax

    from research.core import model

    config = read_run(workdir)
    if config.train.average and jax.process_count() > 1:  # all processes would have to call this together
        raise UserError(f'{workdir} averages checkpoints (train.average): several processes cannot read it for a task')
    return model.read_trained(config, epath.Path(workdir), build)


def build(config: Config, folder: epath.Path) -> Task:
    """Returns the task of a config with its methods applied, in order."""
    task = bind_run_loader(task_module(config).make)(config, folder)
    if config.train.init_from:
        task = task._replace(load=load_from(config.train.init_from))
    available = method_modules()
    for name in config.methods:
        module = available[name]
        task = module.apply(task, unpack(module.Settings, config.settings[name], name), config)
    return task


def load_from(workdir: str):
    """Returns a function that reads the variables that another run evaluates with, for `Task.load`."""
    from research.checkpoint.store import read_weights
    from research.core.state import eval_variables_from

    return lambda: eval_variables_from(read_weights(epath.Path(workdir)), workdir)


def observers():
    """Returns the functions that show a run: description, report, summary, and the text when memory runs out."""
    from research.capacity.flops import count_flops, expected_seconds
    from research.core.memory import out_of_memory_message
    from research.core.train import Observers
    from research.report.page import write_report
    from research.report.run import describe_run, print_summary

    def describe(spec: Any, memory: Mapping[str, Any], workdir: epath.Path, start: int) -> None:
        flops = count_flops(spec.step(), spec.state, spec.batch)
        devices = spec.mesh.devices
        seconds = expected_seconds(flops['total'], devices.size, devices.flat[0].platform)
        describe_run(spec, memory, flops, seconds, workdir, start)

    return Observers(describe, write_report, print_summary, out_of_memory_message)


def run(config: str | Mapping[str, Any] | Config, workdir: str, **overrides: Any):
    """Trains, evaluates and reports a config in `workdir`, resuming what is there; returns a `core.outcome.Summary`.

    `overrides` are dotted settings with underscores doubled for dots: `train__steps=100`.
    """
    from research.core import train

    texts = {name.replace('__', '.'): str(value) for name, value in overrides.items()}
    checked = config if isinstance(config, Config) else read(config, texts)
    return train.run(checked, epath.Path(workdir), prepare, build, observers())


def load(workdir: str, overrides: Mapping[str, str] | None = None):
    """Returns the trained model of a run: `.predict(requests)`, `.evaluate(split)`, `.task`, `.variables`.

    `overrides` change how it answers, such as {'task.temperature': '0.5'}.
    """
    from research.core import model

    return model.load(read_run(workdir, overrides), epath.Path(workdir), build)
