"""Errors that a user can fix, and checks of settings.

Every module may import this one. A program of `launch/` prints a `UserError` as one message and exits non-zero; any
other exception is a bug and keeps its stack trace.
"""

import contextlib
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple


class UserError(ValueError):
    """An error that the user can fix; its text is the complete message: what is wrong, where, and what to do."""


class SettingError(UserError):
    """An invalid setting, raised by code that does not know the config section; `in_section` adds it."""

    def __init__(self, field: str, problem: str):
        super().__init__(f'{field} {problem}')


@contextlib.contextmanager
def in_section(where: str) -> Iterator[None]:
    """Completes every `SettingError` inside with the section of the config: 'model', 'optimizer.generator'."""
    try:
        yield
    except SettingError as error:
        raise UserError(f'config.{where}.{error}') from None


class Range(NamedTuple):
    """The allowed values of a number, as in `Annotated[float, Range(0, 1)]`; `check_value` checks them."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False  # low is excluded
    below: bool = False  # high is excluded

    def __contains__(self, value: Any) -> bool:
        above_low = value > self.low if self.above or self.low == -math.inf else value >= self.low
        below_high = value < self.high if self.below or self.high == math.inf else value <= self.high
        return above_low and below_high  # False for nan and infinity

    def __str__(self) -> str:
        if self.low == -math.inf:
            return f'at most {number_text(self.high)}' if self.high < math.inf else 'a finite number'
        low = 'zero' if self.low == 0 else number_text(self.low)
        if self.high == math.inf:
            return f'above {low}' if self.above else f'{low} or more'
        high = f'below {number_text(self.high)}' if self.below else f'at most {number_text(self.high)}'
        return f'above {low} and {high}' if self.above else f'at least {low} and {high}'


def number_text(value: float) -> str:
    return f'{value:,.0f}' if value == round(value) else f'{value:g}'


class NonEmpty:
    """Marks a tuple that has at least one member."""

    def __contains__(self, value: Any) -> bool:
        return bool(value)

    def __str__(self) -> str:
        return 'non-empty'


Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, 1, below=True)]  # a dropout rate or a decay
OpenFraction = Annotated[float, Range(0, 1, above=True, below=True)]  # neither nothing nor the whole
Finite = Annotated[float, Range()]  # any number
PositiveInt = Annotated[int, Range(0, above=True)]
Count = Annotated[int, Range(0)]
Sizes = Annotated[tuple[PositiveInt, ...], NonEmpty()]  # one size for each layer


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


def range_of(annotation: Any) -> Range | None:
    """The range of a number's annotation, or of a tuple's members; None if it has none."""
    if typing.get_origin(annotation) is Annotated:
        own = next((part for part in annotation.__metadata__ if isinstance(part, Range)), None)
        return own or range_of(typing.get_args(annotation)[0])
    parts = [part for part in typing.get_args(annotation) if typing.get_origin(annotation) is not typing.Literal]
    return next((limits for part in parts if (limits := range_of(part))), None)


def exceeded(value: Any, annotation: Any) -> str:
    """The limit in `annotation` that `value` exceeds, as 'above zero'; '' if it is within all of them.

    `value` has the type `annotation`; the limits of a tuple's members count too.
    """
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        limits = (part for part in annotation.__metadata__ if isinstance(part, (Range, NonEmpty)))
        return next((str(limit) for limit in limits if value not in limit), '') or exceeded(value, parts[0])
    if origin in (typing.Union, types.UnionType):
        return exceeded(value, next(part for part in parts if fits(value, part)))
    if origin is tuple and parts:
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return next(filter(None, map(exceeded, value, kinds)), '')
    return ''


def check_value(value: Any, annotation: Any, where: str) -> None:
    """Checks the type and the range of a setting; `where` is its full name, 'config.model.width'.

    Raises:
      UserError: names the setting, the value and what is allowed.
    """
    if not fits(value, annotation):
        hint = nearest_literal(value, annotation)
        raise UserError(f'{where}: expected {describe(annotation)}, got {value!r} ({type(value).__name__}){hint}')
    if limit := exceeded(value, annotation):
        raise UserError(f'{where} must be {limit}, got {value!r}')


def nearest_literal(value: Any, annotation: Any) -> str:
    """The hint '; did you mean 'adam'?' for a misspelt name of a Literal, or in a tuple of them; '' without one."""
    names = [name for name in literals_of(annotation) if isinstance(name, str)]
    wrong = [name for name in (value if isinstance(value, (tuple, list)) else [value]) if name not in names]
    close = difflib.get_close_matches(wrong[0], names, n=1, cutoff=0.5) if wrong and isinstance(wrong[0], str) else []
    return f'; did you mean {close[0]!r}?' if close else ''


def literals_of(annotation: Any) -> list[Any]:
    parts = list(typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Literal:
        return parts
    return [name for part in parts for name in literals_of(part)]


def check_ranges(settings: Any) -> None:
    """Checks the ranges of an object's fields, for objects that code other than `unpack` creates as well.

    Raises:
      SettingError: for the first field outside its range.
    """
    for name, setting in settings_of(type(settings)).items():
        value = getattr(settings, name)
        if limit := exceeded(value, setting.kind):
            raise SettingError(name, f'must be {limit}, got {value!r}')


def describe(annotation: Any) -> str:
    """An annotation in a readable form: 'float', "'adam' or 'sgd'", 'tuple[int, ...]'."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return describe(parts[0])
    if origin is typing.Literal:
        return ' or '.join(map(repr, parts))
    if origin is tuple:
        return f'tuple[{", ".join("..." if part is Ellipsis else describe(part) for part in parts)}]'
    if origin in (typing.Union, types.UnionType):
        return ' | '.join('None' if part is types.NoneType else describe(part) for part in parts)
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
      UserError: for an unknown key (names the nearest), a missing one, or a value of the wrong type or outside its
        range.
    """
    settings = settings_of(function, given)
    for key, value in section.items():
        if key not in settings:
            raise UserError(f'config.{where}.{key}: there is no such setting; {nearest(key, settings)}')
        check_value(value, settings[key].kind, f'config.{where}.{key}')
    missing = [name for name, setting in settings.items() if name not in section and not setting.has_default]
    if missing:
        raise UserError(f'config.{where}: missing {", ".join(missing)}')
    with in_section(where):
        return function(**given, **{key: tuple(v) if isinstance(v, list) else v for key, v in section.items()})


def name_of(module: Any) -> str:
    """The name of a task, data set or method, given as a string, a module or an object."""
    return module if isinstance(module, str) else getattr(module, '__name__', type(module).__name__)


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
    with in_section('task'):
        return check() if callable(check) else values
