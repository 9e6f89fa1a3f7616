"""Checks the shapes in signatures while testing: `Float[Array, 'batch length']` must be what was passed.

Only array annotations are checked, and by shape and kind of number alone: NumPy arrays, device arrays and
tracers may stand for each other. One size per name within a call, over all arguments and the result.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping

PRNG_KEY = typing.get_args(jaxtyping.PRNGKeyArray)[0]


def array_types(annotation: Any) -> tuple[Any, ...]:
    """Returns the array types of an annotation, library apart; () where it admits anything else but None."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [array_types(part) for part in typing.get_args(annotation) if part is not type(None)]
        if PRNG_KEY in typing.get_args(annotation):
            return ()  # one key or many, old style or new: no shape to hold it to
        return tuple(each for part in parts for each in part) if all(parts) else ()
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return (annotation.dtype[Any, annotation.dim_str],)
    return ()


def admits_none(annotation: Any) -> bool:
    """Returns whether None is an allowed value."""
    return type(None) in typing.get_args(annotation)


def checked(function: Callable) -> Callable:
    """Returns `function` with the arrays of its arguments and its result checked."""
    hints = getattr(function, '__annotations__', {})
    wanted = {name: (array_types(hint), admits_none(hint)) for name, hint in hints.items() if array_types(hint)}
    if not wanted:
        return function
    signature = inspect.signature(function)

    def check(name: str, value: Any) -> None:
        kinds, optional = wanted[name]
        if (value is None and optional) or not hasattr(value, 'shape'):
            return  # a Python number or a list may stand for an array
        if not any(isinstance(value, kind) for kind in kinds):
            shown = ' or '.join(f"{kind.dtype.__name__}[{kind.dim_str!r}]" for kind in kinds)
            raise TypeError(
                f'{function.__module__}.{function.__qualname__}: {name} is {value.dtype}{list(value.shape)}, '
                f'and its annotation says {shown}'
            )

    @functools.wraps(function)
    def wrapper(*positional, **named):
        for name, value in signature.bind(*positional, **named).arguments.items():
            if name in wanted:
                check(name, value)
        result = function(*positional, **named)
        if 'return' in wanted:
            check('return', result)
        return result

    return wrapper
