"""Messages that a user can act on: what is wrong, where, and what to do.

The one module that every other may import. A program of `launch/` prints a `UserError` as one
message and exits non-zero; anything else is a bug and keeps its stack trace.
"""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


class UserError(ValueError):
    """Something the user can put right; its text is the whole message."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Returns a hint for a misspelt `name`: the closest of `choices`, or all of them when none is close."""
    choices = sorted(choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f'did you mean {close[0]!r}?'
    return 'choose one of: ' + (', '.join(choices) or '(nothing can be set here)')


def choose(name: str, choices: Mapping[str, Any], where: str) -> Any:
    """Returns `choices[name]`, or raises a `UserError` that names the nearest key."""
    if name not in choices:
        raise UserError(f'{where}: {name!r} is unknown; {nearest(name, choices)}')
    return choices[name]


def fits(value: Any, kind: Any) -> bool:
    """Returns whether `value` has the annotated type `kind`.

    An int is accepted for a float, a list for a tuple, and a bool for no number.
    """
    if kind in (inspect.Parameter.empty, Any):
        return True
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is typing.Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    kind = origin or kind
    if not isinstance(kind, type):
        return True
    if isinstance(value, bool):
        return kind in (bool, object)
    if kind is float:
        return isinstance(value, (int, float))
    if kind is tuple:
        return isinstance(value, (tuple, list)) and fit_each(value, parts)
    return isinstance(value, kind)


def fit_each(values: Sequence[Any], kinds: tuple[Any, ...]) -> bool:
    """Returns whether the members of a tuple have the types in `tuple[kinds]`; no kinds accept everything."""
    if not kinds:
        return True
    if kinds[-1] is Ellipsis:
        return all(fits(value, kinds[0]) for value in values)
    return len(values) == len(kinds) and all(map(fits, values, kinds))


def describe(kind: Any) -> str:
    """Returns an annotation as a user reads it: 'float', "'adam' or 'sgd'", 'tuple[int, ...]'."""
    if typing.get_origin(kind) is typing.Literal:
        return ' or '.join(map(repr, typing.get_args(kind)))
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def unpack(function: Callable[..., Any], section: Mapping[str, Any], where: str, **given: Any) -> Any:
    """Calls `function(**given, **section)` once every key and type of `section` fits its signature.

    Args:
      function: a class or function whose keyword arguments are the settings that exist.
      section: the settings as written in the config.
      where: the section's name, for messages ('model', 'optimizer.generator').
      **given: arguments that the caller supplies; they are not settings.

    Raises:
      UserError: for an unknown key (names the nearest), a missing one, or a value of the wrong type.
    """
    parameters = inspect.signature(function, eval_str=True).parameters
    hidden = set(given) | ({'parent', 'name'} if 'parent' in parameters else set())  # flax adds those two
    settings = {
        name: parameter
        for name, parameter in parameters.items()
        if name not in hidden and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    for key, value in section.items():
        if key not in settings:
            raise UserError(f'config.{where}.{key}: there is no such setting; {nearest(key, settings)}')
        kind = settings[key].annotation
        if not fits(value, kind):
            found = f'{value!r} ({type(value).__name__})'
            raise UserError(f'config.{where}.{key}: expected {describe(kind)}, got {found}')
    missing = [
        name for name, setting in settings.items() if setting.default is setting.empty and name not in section
    ]
    if missing:
        raise UserError(f'config.{where}: missing {", ".join(missing)}')
    return function(**given, **{key: tuple(v) if isinstance(v, list) else v for key, v in section.items()})


def without_name(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section of the config without its 'name', which chooses a task, a model or a data set."""
    return {key: value for key, value in section.items() if key != 'name'}


def unpack_part(part: Callable[..., Any], section: Mapping[str, Any], where: str, **given: Any) -> tuple[Any, dict]:
    """Calls `part`, a named tuple, with the keys of `section` that are its fields; also gives the other keys."""
    ours = {key: value for key, value in section.items() if key in part._fields}
    rest = {key: value for key, value in section.items() if key not in ours}
    return unpack(part, ours, where, **given), rest


def task_settings(settings: Callable[..., Any], config: Any) -> Any:
    """The checked settings of `config.task`: `settings`, a named tuple, may have a method `check() -> itself`."""
    values = unpack(settings, without_name(config.task), 'task')
    check = getattr(values, 'check', None)  # a setting of a task may be called so too
    return check() if callable(check) else values
