"""HTML of the report: templates that escape every value, and single elements for the SVG charts."""

import math
import pathlib
from typing import Any

import jinja2
from markupsafe import Markup, escape

TEMPLATES = pathlib.Path(__file__).parent / 'templates'


def number(value: Any, digits: int = 4) -> str:
    """Formats a number such as 12,345, 0.9833 or 1.2e-05; other values become text."""
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
    """Turns the name of a metric or setting into words: 'top_5' into 'top 5'."""
    return name.replace('_', ' ')


def environment() -> jinja2.Environment:
    """Makes the environment of the templates; a variable that was not passed is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(number=number, words=words)
    made.policies['json.dumps_kwargs'] = {'separators': (',', ':')}
    return made


ENVIRONMENT = environment()


def render(template: str, /, **values: Any) -> Markup:
    """Fills a template; values that are not `Markup` are escaped."""
    return Markup(ENVIRONMENT.get_template(template).render(values))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """Makes an SVG element; children may be nested lists, and all that is not `Markup` is escaped.

    An attribute is written with '-' for '_' and without a trailing one (`class_`); None leaves it out.
    """
    text = ''.join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f'<{name}{text}>{join(children)}</{name}>')


def join(children: Any) -> Markup:
    """Joins nested lists of children."""
    if children is None:
        return Markup('')
    if isinstance(children, (list, tuple)):
        return Markup('').join(join(child) for child in children)
    return escape(children)
