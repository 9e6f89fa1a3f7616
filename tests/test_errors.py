"""Settings that do not fit become one message that names the place and the nearest right name."""

import dataclasses
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from flax import linen

from research.errors import (
    Finite,
    PositiveInt,
    Range,
    SettingError,
    Sizes,
    UserError,
    choose,
    describe,
    fits,
    in_section,
    nearest,
    task_settings,
    unpack,
    unpack_part,
)


@dataclasses.dataclass(frozen=True)
class Sample:
    width: int
    rate: float = 0.1
    name: Literal['relu', 'gelu'] = 'relu'
    shape: tuple[int, ...] = ()
    pair: tuple[int, str] = (1, 'a')
    bias: bool = True
    limit: int | None = None
    names: tuple = ()


class Layer(linen.Module):
    width: int
    activation: Callable = linen.gelu
    dtype: Any = None


def build(width: int, *extra: int, depth: int = 2, name: str = 'x', **rest: Any):
    return width, extra, depth, name, rest


def refused(function, section, **given):
    with pytest.raises(UserError) as error:
        unpack(function, section, 'model', **given)
    return str(error.value)


def test_good_sections():
    section = {'width': 3, 'rate': 1, 'name': 'gelu', 'shape': [1, 2], 'limit': None, 'names': ['a', 2]}
    assert unpack(Sample, section, 'model') == Sample(3, 1, 'gelu', (1, 2), names=('a', 2))
    assert unpack(build, {'width': 1, 'name': 'y'}, 'model', depth=5) == (1, (), 5, 'y', {})


def test_the_section_is_left_alone():
    section = {'width': 3, 'shape': [1, 2]}
    unpack(Sample, section, 'model')
    assert section == {'width': 3, 'shape': [1, 2]}


def test_unknown_keys():
    assert (
        refused(Sample, {'widht': 3}) == "config.model.widht: there is no such setting; did you mean 'width'?"
    )
    text = refused(Sample, {'width': 3, 'qqq': 1})
    assert 'choose one of: bias, limit, name, names, pair, rate, shape, width' in text
    assert 'config.model.rest' in refused(build, {'width': 3, 'rest': 1})
    assert 'config.model.extra' in refused(build, {'width': 3, 'extra': 1})
    assert 'config.model.other' in refused(build, {'width': 3, 'other': 1})


def test_given_arguments_are_no_settings():
    assert 'config.model.depth' in refused(build, {'width': 3, 'depth': 1}, depth=4)
    assert refused(build, {}) == 'config.model: missing width'
    assert unpack(build, {}, 'model', width=1)[0] == 1


@pytest.mark.parametrize(
    ('key', 'value', 'expected'),
    [
        ('width', 3.0, 'expected int, got 3.0 (float)'),
        ('width', True, 'expected int, got True (bool)'),
        ('width', '3', "expected int, got '3' (str)"),
        ('rate', '0.1', 'expected float'),
        ('rate', False, 'expected float'),
        ('name', 'tanh', "expected 'relu' or 'gelu', got 'tanh' (str)"),
        ('name', 1, "expected 'relu' or 'gelu'"),
        ('shape', 3, 'expected tuple[int, ...], got 3'),
        ('shape', (1, 'a'), 'expected tuple[int, ...]'),
        ('shape', 'ab', 'expected tuple[int, ...]'),
        ('pair', (1, 'a', 2), 'expected tuple[int, str]'),
        ('bias', 1, 'expected bool, got 1 (int)'),
        ('limit', 'x', 'expected int | None'),
        ('names', 'abc', 'expected tuple, got'),
    ],
)
def test_wrong_types(key, value, expected):
    text = refused(Sample, {'width': 3, key: value})
    assert text.startswith(f'config.model.{key}: {expected}')


def test_ranges_of_numbers_members_and_alternatives():
    def layers(
        widths: Sizes = (1,), rate: Annotated[float, Range(0, 0.5)] = 0.0, size: PositiveInt | None = None,
        kinds: tuple[Literal['color', 'cutout'], ...] = (), margin: Finite = 0.0,
        shift: Annotated[int, Range(1_000, 55_000)] = 1_000,
    ):
        return widths

    assert unpack(layers, {'widths': [3, 4], 'rate': 0.5, 'size': None, 'kinds': ['color']}, 'model') == (3, 4)
    for section, message in (
        ({'widths': (3, 0)}, 'widths must be above zero, got (3, 0)'),
        ({'widths': ()}, 'widths must be non-empty, got ()'),
        ({'rate': 0.6}, 'rate must be at least zero and at most 0.5, got 0.6'),
        ({'rate': float('nan')}, 'rate must be at least zero and at most 0.5, got nan'),
        ({'size': 0}, 'size must be above zero, got 0'),
        ({'margin': -float('inf')}, 'margin must be a finite number, got -inf'),
        ({'shift': 60_000}, 'shift must be at least 1,000 and at most 55,000, got 60000'),
        ({'kinds': ('colour',)}, "kinds: expected tuple['color' or 'cutout', ...], got ('colour',) (tuple); did you "
                                 "mean 'color'?"),
        ({'size': 'a'}, "size: expected int | None, got 'a' (str)"),
    ):  # fmt: skip
        assert refused(layers, section) == f'config.model.{message}'


def test_the_section_is_added_to_errors_that_do_not_know_it():
    with pytest.raises(UserError, match='^config.optimizer.model.frozen: no such path'), in_section('optimizer.model'):
        raise SettingError('frozen:', 'no such path')


def test_flax_modules_hide_what_flax_adds():
    layer = unpack(Layer, {'width': 3}, 'model', name='head')
    assert (layer.width, layer.name) == (3, 'head')
    assert 'did you mean' in refused(Layer, {'widths': 3})
    assert 'config.model.name' in refused(Layer, {'width': 3, 'name': 'x'})
    assert 'config.model.parent' in refused(Layer, {'width': 3, 'parent': None})
    assert refused(Layer, {}) == 'config.model: missing width'


@pytest.mark.parametrize(
    ('value', 'kind', 'answer'),
    [
        (1, float, True),
        (True, float, False),
        (True, object, True),
        (True, Literal[1], False),
        (1, Literal[1, 2], True),
        ([1], Literal['a'], False),
        (None, float | None, True),
        ({}, Mapping[str, int], True),
        ([], Mapping, False),
        (len, Callable[..., int], True),
        (3, Callable, False),
        ([(1, 2.0)], tuple[tuple[int, float], ...], True),
        ([(1, 'a')], tuple[tuple[int, float], ...], False),
        ((), tuple[int, int], False),
        ('anything', Any, True),
    ],
)
def test_fits(value, kind, answer):
    assert fits(value, kind) is answer


def test_descriptions():
    assert [describe(kind) for kind in (int, Literal['a', 'b'], float | None, tuple)] == [
        'int', "'a' or 'b'", 'float | None', 'tuple'
    ]  # fmt: skip


def test_nearest_and_choose():
    assert nearest('learnin_rate', ['learning_rate', 'b1']) == "did you mean 'learning_rate'?"
    assert nearest('zzz', ['b', 'a']) == 'choose one of: a, b'
    assert nearest('zzz', []) == 'choose one of: (nothing can be set here)'
    assert choose('a', {'a': 1}, 'config.x') == 1
    with pytest.raises(UserError, match=r"config\.x: 'accuracies' is unknown; did you mean 'accuracy'\?"):
        choose('accuracies', {'accuracy': 1, 'loss': 2}, 'config.x')


class Part(NamedTuple):
    top: int = 0

    def check(self):
        if self.top < 0:
            raise UserError('config.task.top')
        return self


def test_settings_of_a_task_are_checked_and_need_no_name():
    assert task_settings(Part, SimpleNamespace(task={'name': 'x', 'top': 2})) == Part(2)
    with pytest.raises(UserError, match='config.task.top'):
        task_settings(Part, SimpleNamespace(task={'top': -1}))
    with pytest.raises(UserError, match=r"config\.task\.tob: .* did you mean 'top'"):
        task_settings(Part, SimpleNamespace(task={'tob': 1}))


def test_a_setting_of_a_task_may_be_called_check():
    class Checked(NamedTuple):
        check: str = ''

    assert task_settings(Checked, SimpleNamespace(task={'check': 'python'})) == Checked('python')


def test_a_part_of_a_section_is_taken_out():
    assert unpack_part(Part, {'top': 3, 'width': 4}, 'model') == (Part(3), {'width': 4})
    with pytest.raises(UserError, match=r'config\.model\.top: expected int'):
        unpack_part(Part, {'top': 'a'}, 'model')
