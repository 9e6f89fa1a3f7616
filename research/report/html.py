"""HTML in pieces that cannot forget to escape: what is not `Html` already is text."""

import html
import math
from typing import Any

VOID = frozenset(('br', 'img', 'input', 'meta'))


class Html(str):
    """Text that is HTML already."""


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """Returns an element; children may be nested lists, and everything in them that is not `Html` is escaped.

    An attribute is written with '-' for '_' and without a trailing one (`class_`); True gives it no value,
    and None or False leaves it out.
    """
    text = ''.join(
        ' ' + key.rstrip('_').replace('_', '-') + ('' if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f'<{name}{text}>')
    return Html(f'<{name}{text}>{join(children)}</{name}>')


def join(children: Any) -> Html:
    """Returns nested lists of children as HTML."""
    if children is None:
        return Html('')
    if isinstance(children, Html):
        return children
    if isinstance(children, (list, tuple)):
        return Html(''.join(join(child) for child in children))
    return Html(html.escape(str(children), quote=False))


def number(value: Any, digits: int = 4) -> str:
    """Returns a number as people read it: 12,345, 0.9833, 1.2e-05; anything else as text."""
    if value is None:
        return '–'
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if not math.isfinite(value):
        return 'not a number' if math.isnan(value) else 'infinite'
    if value == int(value) and abs(value) < 1e15:
        return f'{int(value):,}'
    return f'{value:,.0f}' if abs(value) >= 10**digits else f'{value:.{digits}g}'


def words(name: str) -> str:
    """Returns the name of a metric or setting as words: 'top_5' as 'top 5'."""
    return name.replace('_', ' ')


def note(text: str) -> Html:
    """Returns a muted sentence, such as why something is not shown."""
    return tag('p', text, class_='note')


def section(anchor: str, title: str, *children: Any) -> Html:
    """Returns a section of the page under its heading."""
    return tag('section', tag('h2', title), *children, id=anchor)


def details(title: Any, *children: Any, open_: bool = False) -> Html:
    """Returns a part that opens on a click."""
    return tag('details', tag('summary', title), *children, open=open_)
