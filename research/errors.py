"""Errors that a user can fix, and checks of settings.

Every module may import this one. A program of `launch/` prints a `UserError` as one message and exits non-zero; any
other exception is a bug and keeps its stack trace.
"""

import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple


class UserError(ValueError):
    """An error that the user can fix; its text is the complete message: what is wrong, where, and what to do."""


class SettingError(UserError):
    """An invalid setting, raised by code that does not know the config section; `unpack` adds it."""

    def __init__(self, field: str, problem: str):
        super().__init__(f'{field} {problem}')


class Range(NamedTuple):
    """The allowed values of a number, as in `Annotated[float, Range(0, 1)]`; `unpack` checks them."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False  # low is excluded
    below: bool = False  # high is excluded

    def __contains__(self, value: Any) -> bool:
        above_low = value > self.low if self.above else value >= self.low
        below_high = value < self.high if self.below or self.high == math.inf else value <= self.high
        return above_low and below_high  # False for nan and infinity

    def __str__(self) -> str:
        low = 'zero' if self.low == 0 else f'{self.low:g}'
        if self.high == math.inf:
            return f'above {low}' if self.above else f'{low} or more'
        high = f'below {self.high:g}' if self.below else f'at most {self.high:g}'
        return f'above {low} and {high}' if self.above else f'at least {low} and {high}'


Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, 1, below=True)]  # a dropout rate or a decay
PositiveInt = Annotated[int, Range(0, above=True)]
Count = Annotated[int, Range(0)]


class Setting(NamedTuple):
    """The type and default of a setting in a section of the config."""

    kind: Any  # its annotation
    default: Any = inspect.Parameter.empty

    @property
    def has_default(self) -> bool:
        """Whether a config may omit it."""
        return self.default is not inspect.Parameter.empty


def settings_of(function: Callable[..., Any], hidden: Iterable[str] = ()) -> dict[str, Setting]:
    """The keyword arguments of a function, class or flax module as settings, except `hidden` ones."""
    parameters = inspect.signature(function, eval_str=True).parameters
    hidden = {*hidden, *({'parent', 'name'} if 'parent' in parameters else ())}  # flax adds those two
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name: Setting(parameter.annotation, parameter.default)
        for name, parameter in parameters.items()
        if name not in hidden and parameter.kind not in variable
    }


def nearest(name: str, choices: Iterable[str]) -> str:
    """A hint for a misspelt `name`: the closest of `choices`, or all of them if no choice is close."""
    choices = sorted(choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f'did you mean {close[0]!r}?'
    return 'choose one of: ' + (', '.join(choices) or '(nothing can be set here)')


def choose(name: str, choices: Mapping[str, Any], where: str) -> Any:
    """`choices[name]`; raises a `UserError` that names the nearest key for an unknown name."""
    if name not in choices:
        raise UserError(f'{where}: {name!r} is unknown; {nearest(name, choices)}')
    return choices[name]


def fits(value: Any, annotation: Any) -> bool:
    """Whether `value` has the type `annotation`.

    An int is accepted for a float, and a list for a tuple; a bool is not a number.
    """
    if annotation in (inspect.Parameter.empty, Any):
        return True
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return fits(value, parts[0])
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is typing.Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    expected = origin or annotation
    if not isinstance(expected, type):
        return True
    if isinstance(value, bool):
        return expected in (bool, object)
    if expected is float:
        return isinstance(value, (int, float))
    if expected is tuple:
        return isinstance(value, (tuple, list)) and fit_each(value, parts)
    return isinstance(value, expected)


def fit_each(values: Sequence[Any], kinds: tuple[Any, ...]) -> bool:
    """Whether the members of a tuple have the types in `tuple[kinds]`; no kinds accept any members."""
    if not kinds:
        return True
    if kinds[-1] is Ellipsis:
        return all(fits(value, kinds[0]) for value in values)
    return len(values) == len(kinds) and all(map(fits, values, kinds))


def range_of(annotation: Any) -> Range:
    """The range in an annotation; all numbers if it has none."""
    return next((part for part in getattr(annotation, '__metadata__', ()) if isinstance(part, Range)), Range())


def describe(annotation: Any) -> str:
    """An annotation in a readable form: 'float', "'adam' or 'sgd'", 'tuple[int, ...]'."""
    if typing.get_origin(annotation) is Annotated:
        return describe(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is typing.Literal:
        return ' or '.join(map(repr, typing.get_args(annotation)))
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation)


def unpack(function: Callable[..., Any], section: Mapping[str, Any], where: str, **given: Any) -> Any:
    """Calls `function(**given, **section)` after checking the keys and types of `section` against its signature.

    Args:
      function: a class or function whose keyword arguments are the possible settings.
      section: the section of the config.
      where: the section's name, for messages ('model', 'optimizer.generator').
      **given: arguments from the caller that are not settings.

    Raises:
      UserError: for an unknown key (names the nearest), a missing one, or a value of the wrong type.
    """
    settings = settings_of(function, given)
    for key, value in section.items():
        if key not in settings:
            raise UserError(f'config.{where}.{key}: there is no such setting; {nearest(key, settings)}')
        kind = settings[key].kind
        if not fits(value, kind):
            raise UserError(f'config.{where}.{key}: expected {describe(kind)}, got {value!r} ({type(value).__name__})')
        if (allowed := range_of(kind)) != Range() and value not in allowed:
            raise UserError(f'config.{where}.{key} must be {allowed}, got {value!r}')
    missing = [name for name, setting in settings.items() if name not in section and not setting.has_default]
    if missing:
        raise UserError(f'config.{where}: missing {", ".join(missing)}')
    try:
        return function(**given, **{key: tuple(v) if isinstance(v, list) else v for key, v in section.items()})
    except SettingError as error:
        raise UserError(f'config.{where}.{error}') from None


def without_name(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section of the config without its 'name', which chooses a task, a model or a data set."""
    return {key: value for key, value in section.items() if key != 'name'}


def unpack_part(part: Callable[..., Any], section: Mapping[str, Any], where: str, **given: Any) -> tuple[Any, dict]:
    """Calls `part`, a named tuple, with the keys of `section` that are its fields; also returns the other keys."""
    ours = {key: value for key, value in section.items() if key in part._fields}
    rest = {key: value for key, value in section.items() if key not in ours}
    return unpack(part, ours, where, **given), rest


def task_settings(settings: Callable[..., Any], config: Any) -> Any:
    """The checked settings of `config.task`: `settings`, a named tuple, may have a method `check() -> itself`."""
    values = unpack(settings, without_name(config.task), 'task')
    check = getattr(values, 'check', None)  # a task may also have a setting named 'check'
    try:
        return check() if callable(check) else values
    except SettingError as error:
        raise UserError(f'config.task.{error}') from None
