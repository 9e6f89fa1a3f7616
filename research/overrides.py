"""Overrides such as `--config.a.b=value` parsed from text, and default settings."""

import ast
import contextlib
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

from research.errors import Setting, UserError, check_value, describe, fits, nearest

# Known settings: {section: {setting: Setting, or a dict of settings for a nested section}}.
Known = Mapping[str, Any]
NAMES = ('task.name', 'model.name', 'data.name', 'data.reader')  # they determine the other possible settings
LENGTHS = {'train.steps': 'epochs', 'train.epochs': 'steps'}  # setting one clears the other


def override(
    values: Mapping[str, Any], assignments: Mapping[str, str], known_of: Callable[[Mapping[str, Any]], Known]
) -> dict[str, Any]:
    """Sets dotted settings ('train.steps') of a config from text, according to the type of each setting.

    A changed name of a task, model or data set replaces its section by the defaults, and removes the expected metrics.

    Args:
      values: the config as nested dicts; not modified.
      assignments: {dotted setting: text}, applied in order, names first.
      known_of: (config) -> its possible settings.

    Raises:
      UserError: for an unknown setting (names the nearest) or a text that does not parse as the setting's type.
    """
    values = copied(values)
    for dotted in (name for name in NAMES if name in assignments):
        section, _, key = dotted.partition('.')
        old, text = values.get(section) or {}, assignments[dotted]
        if old.get(key, '') != text:
            values[section] = {**old, key: text} if key == 'reader' else {key: text}
            values['expected'] = {}  # the ranges are for the original model and data
    known = known_of(values)
    for dotted, text in assignments.items():
        if dotted not in NAMES:
            assign(values, dotted, text, known)
    return values


def copied(section: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested dicts that shares the leaves, which may be modules."""
    return {name: copied(value) if isinstance(value, Mapping) else value for name, value in section.items()}


def assign(values: dict[str, Any], dotted: str, text: str, known: Known) -> None:
    """Sets one dotted setting in place."""
    parts = dotted.split('.')
    section, options = values, known
    for depth, part in enumerate(parts):
        names = {*(section if isinstance(section, dict) else ()), *(options if isinstance(options, Mapping) else ())}
        if part not in names:
            where = '.'.join(['config', *parts[: depth + 1]])
            raise UserError(f'--{where}: there is no such setting; {nearest(part, names)}')
        option = options.get(part) if isinstance(options, Mapping) else None
        if depth < len(parts) - 1:
            section = section.setdefault(part, {}) if isinstance(section, dict) else {}
            options = option
    present = section.get(part)
    if isinstance(present, dict) or isinstance(option, dict):
        names = {**(option or {}), **(present or {})}
        raise UserError(f'--config.{dotted} is a section; set one of: {", ".join(names)}')
    section[part] = parse(text, option.kind if isinstance(option, Setting) else type(present), dotted)
    if dotted in LENGTHS and section[part] is not None:
        section[LENGTHS[dotted]] = None


def complete(values: Mapping[str, Any], known: Known, shape: Collection[str] = ()) -> dict[str, Any]:
    """Adds the default of every known setting that a config lacks.

    `shape` names the model settings that pretrained weights determine: with `model.weights` they get no default.
    """
    result = dict(values)
    for section, options in known.items():
        if not isinstance(options, Mapping) or not isinstance(values.get(section, {}), Mapping):
            continue
        if section == 'model' and values.get('model', {}).get('weights'):
            options = {name: option for name, option in options.items() if name not in shape}
        result[section] = with_defaults(values.get(section, {}), options)
    return result


def with_defaults(section: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Adds default settings to a section and its nested sections."""
    result = dict(section)
    for name, option in options.items():
        if isinstance(option, Mapping):
            if isinstance(result.get(name, {}), Mapping):
                result[name] = with_defaults(result.get(name, {}), option)
        elif name not in result and option.has_default:
            result[name] = option.default
    return result


def check_values(values: Mapping[str, Any], known: Known, where: str = 'config') -> None:
    """Checks the types and ranges of all known settings of a config, before any data are read.

    Names and methods may be modules; what resolves them checks them.

    Raises:
      UserError: for the first wrong value.
    """
    for name, option in known.items():
        value = values.get(name)
        if isinstance(option, Mapping):
            check_values(value if isinstance(value, Mapping) else {}, option, f'{where}.{name}')
        elif name in values and name not in ('name', 'methods') and option.kind is not types.NoneType:
            check_value(value, option.kind, f'{where}.{name}')


def parse(text: str, annotation: Any, dotted: str) -> Any:
    """Parses `text` as a value of the type `annotation`.

    Raises:
      UserError: if it does not parse.
    """
    with contextlib.suppress(KeyError, ValueError, SyntaxError, OverflowError, TypeError):
        return parse_as(text, annotation)
    raise UserError(f'--config.{dotted}={text}: expected {describe(annotation)}')


def parse_as(text: str, annotation: Any) -> Any:
    """As `parse`, but raises KeyError, ValueError or SyntaxError."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return parse_as(text, parts[0])
    if origin in (typing.Union, types.UnionType):
        return parse_union(text, parts)
    if origin is typing.Literal:
        return {str(part): part for part in parts}[text]
    expected = origin or annotation
    if expected is bool:
        return {'true': True, '1': True, 'false': False, '0': False}[text.lower()]
    if expected is int:
        return int(text) if re.fullmatch(r'[+-]?\d+', text.replace('_', '')) else int_of(float(text))
    if expected is float:
        return float(text)
    if expected in (tuple, list):
        return expected(parse_tuple(text, (parts[0], ...) if expected is list and parts else parts))
    if expected is types.NoneType:
        return None if text.lower() in ('', 'none') else parse_literal(text)
    return text


def parse_union(text: str, parts: tuple[Any, ...]) -> Any:
    """Parses `text` as the first matching alternative; with str, only a tuple in parentheses is parsed."""
    if types.NoneType in parts and text.lower() == 'none':
        return None
    rest = [part for part in parts if part is not types.NoneType]
    if str in rest:
        rest = [part for part in rest if part is not str and (typing.get_origin(part) or part) is tuple]
        return parse_as(text, rest[0]) if rest and text[:1] in ('(', '[') else text
    for part in rest:
        with contextlib.suppress(KeyError, ValueError, SyntaxError, OverflowError):
            return parse_as(text, part)
    raise ValueError(text)


def parse_literal(text: str) -> Any:
    """Parses `text` of unknown type as a Python literal; other text is returned unchanged."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def int_of(value: float) -> int:
    """Converts a whole float (1e4) to int; raises ValueError otherwise."""
    if value != int(value):
        raise ValueError(value)
    return int(value)


def parse_tuple(text: str, kinds: tuple[Any, ...] = ()) -> tuple:
    """ "a,b", "64,32", "('a', 'b')" or "[1, 2]" as a tuple; "" as ().

    Args:
      text: the text to parse.
      kinds: the member types, as in `tuple[kinds]`; (): numbers where possible, otherwise strings.
    """
    text = text.strip()
    if not text.strip('()[] '):
        return ()
    if text[0] in '([\'"':
        value = ast.literal_eval(text)
        members = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    else:
        members = tuple(part.strip() for part in text.split(',') if part.strip())
        if not kinds:
            return tuple(map(number_or_text, members))
    if not kinds:
        return members
    kinds = (kinds[0],) * len(members) if kinds[-1] is Ellipsis else kinds
    return tuple(
        member if fits(member, kind) else parse_as(str(member), kind)
        for member, kind in zip(members, kinds, strict=True)
    )


def number_or_text(text: str) -> int | float | str:
    """`text` as an int or a float if it is one, unchanged otherwise."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
