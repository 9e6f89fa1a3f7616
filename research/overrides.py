"""Settings from text, and defaults: what `--config.a.b=value` sets, and what a config does not spell out."""

import ast
import contextlib
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

from research.errors import Setting, UserError, describe, fits, nearest

# Known settings: {section: {setting: Setting, or a dict of them where it is a section itself}}.
Known = Mapping[str, Any]
NAMES = ('task.name', 'model.name', 'data.name', 'data.reader')  # they decide which other settings exist
LENGTHS = {'train.steps': 'epochs', 'train.epochs': 'steps'}  # of these two, the one given last counts


def override(
    values: Mapping[str, Any], assignments: Mapping[str, str], known_of: Callable[[Mapping[str, Any]], Known]
) -> dict[str, Any]:
    """A config with dotted settings ('train.steps') set from text; what the setting may be gives the type.

    A changed name of a task, model or data set replaces its section: the other settings are then its own, and nothing
    is expected of the metrics any more.

    Args:
      values: the config as nested dicts; it stays as it is.
      assignments: {dotted setting: text}, applied in order, names first.
      known_of: (config) -> the settings that it may have, beside those that it has.

    Raises:
      UserError: for an unknown setting (names the nearest) or a text that is not of the setting's type.
    """
    values = copied(values)
    for dotted in (name for name in NAMES if name in assignments):
        section, _, key = dotted.partition('.')
        old, text = values.get(section) or {}, assignments[dotted]
        if old.get(key, '') != text:
            values[section] = {**old, key: text} if key == 'reader' else {key: text}
            values['expected'] = {}  # the ranges of a config are those of its own model and data
    known = known_of(values)
    for dotted, text in assignments.items():
        if dotted not in NAMES:
            assign(values, dotted, text, known)
    return values


def copied(section: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested dicts; their values, which may be modules, are shared."""
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
    kind = option.kind if isinstance(option, Setting) else type(present)
    section[part] = parse(text, kind, dotted)
    if dotted in LENGTHS and section[part]:
        section[LENGTHS[dotted]] = 0


def complete(values: Mapping[str, Any], known: Known, shape: Collection[str] = ()) -> dict[str, Any]:
    """A config with the default of every known setting that it does not have.

    `shape` names settings of a model that pretrained weights decide: with `model.weights` they get no default.
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
    """A section with the defaults of the settings it lacks, in sections within it too."""
    result = dict(section)
    for name, option in options.items():
        if isinstance(option, Mapping):
            if isinstance(result.get(name, {}), Mapping):
                result[name] = with_defaults(result.get(name, {}), option)
        elif name not in result and option.has_default:
            result[name] = option.default
    return result


def parse(text: str, kind: Any, dotted: str) -> Any:
    """`text` as a value of the annotated type `kind`.

    Raises:
      UserError: where it is none.
    """
    with contextlib.suppress(KeyError, ValueError, SyntaxError, OverflowError, TypeError):
        return parse_as(text, kind)
    raise UserError(f'--config.{dotted}={text}: expected {describe(kind)}')


def parse_as(text: str, kind: Any) -> Any:
    """`text` as a value of `kind`; a KeyError, ValueError or SyntaxError where it is none."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return parse_as(text, parts[0])
    if origin in (typing.Union, types.UnionType):
        return parse_union(text, parts)
    if origin is typing.Literal:
        return {str(part): part for part in parts}[text]
    kind = origin or kind
    if kind is bool:
        return {'true': True, '1': True, 'false': False, '0': False}[text.lower()]
    if kind is int:
        return int(text) if re.fullmatch(r'[+-]?\d+', text.replace('_', '')) else int_of(float(text))
    if kind is float:
        return float(text)
    if kind in (tuple, list):
        return kind(parse_tuple(text, (parts[0], ...) if kind is list and parts else parts))
    if kind is types.NoneType:
        return None if text.lower() in ('', 'none') else parse_literal(text)
    return text


def parse_union(text: str, parts: tuple[Any, ...]) -> Any:
    """`text` as the first alternative that it fits; text stays text unless it is written as a tuple."""
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
    """`text` as a number, a tuple or another Python literal, or as it is: where no type is known."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def int_of(value: float) -> int:
    """A whole float (1e4) as an int; raises a ValueError otherwise."""
    if value != int(value):
        raise ValueError(value)
    return int(value)


def parse_tuple(text: str, kinds: tuple[Any, ...] = ()) -> tuple:
    """ "a,b", "64,32", "('a', 'b')" or "[1, 2]" as a tuple; an empty text is the empty tuple.

    Args:
      text: what is written.
      kinds: the types of its members, as of `tuple[kinds]`; () for numbers where they look like it and texts.
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
    """A number where the text is one, the text otherwise."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
