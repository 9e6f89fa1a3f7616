"""Ranges of settings, found by glob: every config refuses every value outside, and names the setting."""

import importlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from contract import all_configs

from research import api, models
from research.data.dataset import set_module, set_names
from research.errors import Setting, UserError, fits, range_of, settings_of
from research.resolve import as_settings, known_settings, modules_of

WITHOUT_RANGE = {'seed', 'mesh.data', 'mesh.fsdp', 'mesh.tensor'}  # checked by hand: -1 is allowed, 0 is not
NUMBERS = (7919, 0.37, (7919,), (7919, 7919))


def numbers(known: Mapping[str, Any], path: str = '') -> Iterator[tuple[str, Setting]]:
    """Yields the dotted name of every setting that accepts a number, or numbers."""
    for name, option in known.items():
        if isinstance(option, Mapping):
            yield from numbers(option, f'{path}{name}.')
        elif not fits(('',), option.kind) and any(fits(value, option.kind) for value in NUMBERS):
            yield f'{path}{name}', option


def outside(setting: Setting) -> Iterator[Any]:
    """Yields values on both sides of a range, in the form of the setting."""
    limits = range_of(setting.kind)
    assert limits is not None
    for bound, step, excluded in ((limits.low, -1, limits.above), (limits.high, 1, limits.below)):
        if abs(bound) != float('inf'):
            number = bound if excluded else bound + step
            number = int(number) if fits(1, setting.kind) and not fits(0.5, setting.kind) else number
            yield number if fits(number, setting.kind) else (int(number),)


def replaced(values: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    first, _, rest = dotted.partition('.')
    return {**values, first: replaced(values.get(first, {}), rest, value) if rest else value}


@pytest.mark.parametrize('name', all_configs())
def test_every_number_has_a_range_and_is_refused_outside(name):
    values = api.load_config(name).to_dict()
    settings = dict(numbers(known_settings(values)))
    assert {path for path, setting in settings.items() if range_of(setting.kind) is None} <= WITHOUT_RANGE
    api.read(values)
    for path, setting in settings.items():
        if path in WITHOUT_RANGE:
            continue
        for value in outside(setting):
            chosen = path.partition('.')[0]
            methods = (chosen,) if chosen in api.method_defaults() else values['methods']
            with pytest.raises(UserError) as error:
                api.read({**replaced(values, path, value), 'methods': methods})
            assert f'config.{path} must be ' in str(error.value) and f'got {value!r}' in str(error.value)


def test_every_number_of_every_data_set_and_model_has_a_range():
    known = {f'sets.{name}': settings_of(set_module(name).open) for name in set_names()}
    for name in modules_of(models):
        known |= {f'{name}.{model}': as_settings(settings) for model, settings in settings_in(name).items()}
    assert len(known) > 30
    assert not [path for path, setting in numbers(known) if range_of(setting.kind) is None]


def settings_in(name: str) -> Mapping[str, Any]:
    return getattr(importlib.import_module(f'{models.__name__}.{name}'), 'SETTINGS', {})


def test_models_and_operations_do_not_know_the_config():
    for folder in ('nn', 'ops'):
        for file in pathlib.Path(api.__file__).parent.joinpath(folder).rglob('*.py'):
            code = [line for line in file.read_text().splitlines() if 'config.' in line and '`config.' not in line]
            assert not code, f'{file.name}: {code[0]}'
