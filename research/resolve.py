"""Resolves names of config files, tasks, methods and models to modules and their settings.

A name is a file name in the folder of tasks, methods or models, or the dotted path of an external module
('my_lab.folding').
"""

import functools
import importlib
import importlib.util
import inspect
import pathlib
import pkgutil
import traceback
import types
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from research import methods as methods_folder
from research import tasks as tasks_folder
from research.core.config import SECTIONS, MeshSettings, OptimizerSettings, TrainSettings, method_section
from research.data.dataset import set_module
from research.data.readers.settings import DataSettings
from research.errors import Setting, UserError, name_of, nearest, settings_of
from research.locations import split_variant
from research.nn.transformer_settings import TransformerSettings
from research.overrides import LENGTHS, Known, complete

PACKAGE = pathlib.Path(__file__).parent
ROOT = PACKAGE.parent if (PACKAGE.parent / 'configs').is_dir() else PACKAGE  # a wheel contains configs/ below research/


def modules_of(package: types.ModuleType) -> dict[str, str]:
    """{name: import path} of the modules in a package's folder."""
    return {module.name: f'{package.__name__}.{module.name}' for module in pkgutil.iter_modules(package.__path__)}


def module_named(name: Any, package: types.ModuleType, setting: str, functions: tuple[str, ...]) -> Any:
    """Imports the module of a name in a package's folder or of a dotted path; passes modules through.

    Raises:
      UserError: for an unknown name, or a module that cannot be imported or lacks one of `functions`.
    """
    module = name
    if isinstance(name, str):
        known = modules_of(package)
        if name not in known and '.' not in name:
            raise UserError(
                f'{setting}: {name!r} is unknown; {nearest(name, known)} (use a dotted path for a module outside this '
                'package, and pass an object of a notebook again)'
            )
        try:
            module = importlib.import_module(known.get(name, name))
        except ImportError as error:
            raise UserError(f'{setting}={name!r}: its module cannot be imported ({error})') from error
    check_own_name(module, modules_of(package), setting)
    for function in functions:
        if not callable(getattr(module, function, None)):
            raise UserError(f'{setting}={name!r}: the module has no {function}')
    return module


def check_own_name(module: Any, known: Mapping[str, str], setting: str) -> None:
    """Refuses an object named like a module of the package, because a stored config would mean the latter."""
    name = name_of(module)
    if name in known and module is not importlib.import_module(known[name]):
        raise UserError(f'{setting}: the object has the name {name!r} of a module of this package; set its __name__')


def task_module(name: Any) -> Any:
    """The module of `config.task.name`, which has `prepare` and `make`."""
    return module_named(name, tasks_folder, 'config.task.name', ('prepare', 'make'))


def method_module(name: Any) -> Any:
    """The module of a method, which has `Settings` and `apply(task, settings, config)`."""
    return module_named(name, methods_folder, 'config.methods', ('Settings', 'apply'))


def all_methods(chosen: Any = ()) -> tuple[Any, ...]:
    """All methods of this package, and those of `chosen` that are elsewhere: dotted paths, modules or objects."""
    chosen = chosen if isinstance(chosen, (tuple, list)) else ()
    outside = [method for method in chosen if not isinstance(method, str) or '.' in method]
    return tuple({name_of(method): method for method in (*modules_of(methods_folder), *outside)}.values())


def method_defaults(chosen: Any = ()) -> dict[str, dict[str, Any]]:
    """{method: its default settings}, so that a flag switches any method on in any config."""
    return {
        name_of(method): {
            name: setting.default
            for name, setting in settings_of(method_module(method).Settings).items()
            if setting.has_default
        }
        for method in all_methods(chosen)
    }


def model_settings(task: Any, name: str) -> Known:
    """The settings of the model `name` of a task: `MODELS` of its module, a module of `research/models` or a mapping.

    The name may be '' if the task has only one model. Without flax, as on a machine that only serves, none are known:
    the config of a run holds them all.
    """
    models = getattr(task, 'MODELS', {})
    if isinstance(models, str):
        try:
            models = importlib.import_module(f'research.models.{models}').SETTINGS
        except ModuleNotFoundError as error:
            if error.name not in (None, 'flax'):
                raise
            models = {}
    if '.' in name:
        models = {**models, name: getattr(module_named(name, methods_folder, 'config.model.name', ()), 'SETTINGS', {})}
    options = next(iter(models.values())) if not name and len(models) == 1 else models.get(name, {})
    return as_settings(options)


def as_settings(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """{setting: Setting} of {setting: default}; the type is that of the default. Applies to nested sections."""
    return {
        name: value if isinstance(value, Setting) else as_settings(value) if isinstance(value, Mapping)
        else Setting(type(value), value)
        for name, value in defaults.items()
    }  # fmt: skip


def data_settings(section: Mapping[str, Any]) -> dict[str, Setting]:
    """The settings of a reader or of a named data set."""
    readers = settings_of(DataSettings)
    if section.get('reader'):
        return readers
    of_set = settings_of(set_module(section['name']).open) if section.get('name') else {}
    return {'name': Setting(str, ''), **of_set}


def known_settings(values: Mapping[str, Any]) -> Known:
    """All settings that a config may have, by section: those of its task, model, data set, methods and loop."""
    sections = {name: values.get(name) or {} for name in SECTIONS}
    if not all(isinstance(sections[name], Mapping) for name in ('task', 'model', 'data', 'optimizer')):
        return {}
    name = sections['task'].get('name', '')
    task = task_module(name) if name else None
    settings = getattr(task, 'Settings', None)
    return {
        'task': {'name': Setting(str), **(settings_of(settings) if settings else {})},
        'model': {'name': Setting(str), **model_settings(task, sections['model'].get('name', ''))},
        'data': data_settings(sections['data']),
        'optimizer': {group: settings_of(OptimizerSettings) for group in sections['optimizer']},
        'mesh': settings_of(MeshSettings),
        'train': settings_of(TrainSettings),
        'methods': Setting(tuple[str, ...]),
        'seed': Setting(int),
        'expected': {},
        **{
            method_section(method): settings_of(method_module(method).Settings)
            for method in all_methods(values.get('methods'))
        },
    }


def settable(values: Mapping[str, Any]) -> Known:
    """The settings that flags may change: the known ones, and those of readers, which `open_dataset` checks."""
    known = known_settings(values)
    readers = settings_of(DataSettings)
    return {**known, 'data': {**readers, **known.get('data', {})}}


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config with all defaults of its task, model, data set and methods: the canonical form of equal configs.

    With a named data set, omits reader settings at their defaults, which older configs contain.
    """
    known, data = known_settings(values), values.get('data')
    if isinstance(data, Mapping) and data.get('name') and not data.get('reader'):
        unused = {name: setting.default for name, setting in settings_of(DataSettings).items()} | {'reader': ''}
        ours = known.get('data', {})
        data = {
            name: value for name, value in data.items()
            if name in ours or name not in unused or (value or '') != (unused[name] or '')
        }  # fmt: skip
        values = {**values, 'data': data}
    return complete(values, known, settings_of(TransformerSettings))


def find_config(path: str) -> pathlib.Path:
    """Finds the config file `path`, relative to the working folder or to the project.

    Raises:
      UserError: names the nearest config.
    """
    for folder in (pathlib.Path(), ROOT):
        for candidate in (folder / path, folder / f'{path}.py', folder / 'configs' / f'{path}.py'):
            if candidate.is_file():
                return candidate
    files = [file.relative_to(ROOT / 'configs') for file in (ROOT / 'configs').rglob('*.py') if file.stem != '__init__']
    known = [file.with_suffix('').as_posix() for file in files]
    name = path.removeprefix('configs/').removesuffix('.py')
    raise UserError(f'--config={path}: no such file; {nearest(name, known)}')


def read_file(spec: str) -> dict[str, Any]:
    """Runs the config file of 'path' or 'path:variant,variant'; applies the variants in order.

    Expected ranges belong to one variant: of several that set them or change the data, none are known. A variant that
    changes the data without setting them clears them.

    Raises:
      UserError: if the file, its `get_config` or a variant does not exist, or running it fails.
    """
    path, names = split_variant(spec)
    file = find_config(path)
    if file.suffix != '.py':
        raise UserError(f'--config={path}: a config is a Python file (.py) with a function get_config()')
    if 'get_config' not in file.read_text(encoding='utf-8', errors='replace'):  # a program would define its flags
        raise UserError(f'{path} has no function get_config()')
    module = types.ModuleType(f'config_{file.stem}')
    module.__file__ = str(file)
    guarded(file, lambda: exec(compile(file.read_bytes(), str(file), 'exec'), module.__dict__))
    if not hasattr(module, 'get_config'):
        raise UserError(f'{path} has no function get_config()')
    config = guarded(file, module.get_config)
    if not isinstance(config, ml_collections.ConfigDict):
        result = type(config).__name__
        raise UserError(f'{path}: get_config() must return a config made by base(), not {result}')
    available, stated = variants(module), []
    for name in filter(None, names.split(',')):
        if name not in available:
            raise UserError(f'--config={spec}: {path} has no variant {name!r}; {nearest(name, available)}')
        stated += apply_variant(config, functools.partial(guarded, file, functools.partial(available[name], config)))
    values = config.to_dict()
    return {**values, 'expected': stated[0] if len(stated) == 1 else {}} if stated else values


def apply_variant(config: Any, change: Callable[[], Any]) -> list[Any]:
    """Changes a config in place; returns the expected ranges that the variant leaves, [] if it concerns none."""
    before, expected = config.to_dict(), config.expected
    change()
    keep_last_length(config, before['train'])
    after = config.to_dict()
    if config.expected is not expected or after['expected'] != before['expected']:
        return [after['expected']]
    return [{}] if after['data'] != before['data'] else []


def variants(module: types.ModuleType) -> dict[str, Callable]:
    """{name: function} of a config file's functions of one argument; `_8b` is the variant '8b'.

    Other names with a leading underscore are helpers.
    """
    return {
        name[1:] if name[0] == '_' and name[1:2].isdigit() else name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and name != 'get_config'
        and (name[0] != '_' or name[1:2].isdigit()) and len(inspect.signature(function).parameters) == 1
    }  # fmt: skip


def keep_last_length(config: Any, before: Mapping[str, Any]) -> None:
    """Sets steps or epochs to None, in place, if a variant changed the other one: the last change counts."""
    after = {name: config.train.get(name) for name in LENGTHS.values()}
    changed = [name for name, value in after.items() if value is not None and value != before.get(name)]
    if len(changed) == 1:
        config.train[LENGTHS[f'train.{changed[0]}']] = None


def guarded(file: pathlib.Path, function: Callable[[], Any]) -> Any:
    """Runs code of a config file; turns its exceptions into a `UserError` that names the line."""
    try:
        return function()
    except UserError:
        raise
    except SystemExit as error:
        raise UserError(f'{file}: the config ends the program: sys.exit({error.code!r})') from error
    except SyntaxError as error:
        raise UserError(f'{error.filename or file}:{error.lineno}: {error.msg}') from None
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        raise UserError(f'{file}:{lines[-1] if lines else 1}: {type(error).__name__}: {error}') from error
