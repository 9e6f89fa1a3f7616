"""Cells: what a person would call a number is one, and what is odd about a column is said."""

import math

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from research import api
from research.data.table.cells import Column, column_note, read_category, read_columns, read_number, texts_of
from research.errors import UserError

NUMBERS = {
    '1': 1, ' -2.50 ': -2.5, '+3': 3, '.5': 0.5, '5.': 5, '1e3': 1000, '2.5E-1': 0.25, '007': 7, '0': 0, '-0.0': 0,
    5: 5, 2.5: 2.5, np.float32(0.5): 0.5, np.int64(3): 3,
}  # fmt: skip
TEXTS = (
    '1_23', '1_000.5', 'infinity', '-inf', '0x1F', '1e', 'e5', '1 2', '1,5', '12%', '$3', '١٢', '１２', '1e999', '--1',
    '1.2.3', '.', '-', 'one', '1\n2', True, False, [1], {'a': 1}, math.inf, 10**400, b'1', '1j', '2003-01-02',
)  # fmt: skip


@pytest.mark.parametrize('value', NUMBERS)
def test_numbers(value):
    assert read_number(value) == NUMBERS[value]


@pytest.mark.parametrize('value', TEXTS, ids=repr)
def test_what_only_python_calls_a_number_is_text(value):
    with pytest.raises(ValueError):
        read_number(value)


@pytest.mark.parametrize('value', [None, '', ' ? ', 'NA', 'nan', math.nan, np.float32('nan'), 'null'])
def test_no_value(value):
    assert read_number(value) is None and read_category(value) is None
    assert read_number('', ('x',)) is None  # a blank cell holds nothing, whatever else stands for no value


def test_a_comma_before_the_fraction():
    read = {text: read_number(text, decimal=',') for text in ('1,5', '-0,25', '7', '1e3', '1.234,5', '1.234.567', ',5')}
    assert list(read.values()) == [1.5, -0.25, 7, 1000, 1234.5, 1234567, 0.5]
    for text in ('1.5', '1.23,4', '1,2,3', '12.34'):
        with pytest.raises(ValueError):
            read_number(text, decimal=',')


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('0123456789.,eE+-_ infaINFx%'), max_size=8) | st.floats(allow_nan=False).map(repr))
def test_every_number_has_the_value_that_python_gives_it(text):
    try:
        number = read_number(text)
    except ValueError:
        return
    if number is not None:
        assert number == float(text) and not set(text) & set('_xnN,%')


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_written_and_read_are_the_same(value):
    assert read_number(repr(value)) == read_number(value) == value
    assert read_number(repr(value).replace('.', ','), decimal=',') == value


def test_categories_are_composed_and_named_as_people_write_them():
    assert read_category('cafe\u0301 ') == 'caf\u00e9' and read_category(3.0) == '3' and read_category(True) == 'True'
    for value in ([1], {'a': 1}, b'x'):
        with pytest.raises(UserError, match='a category must be a text or a number'):
            read_category(value)


def test_one_value_among_numbers_is_named():
    rows = [{'x': str(number), 'y': 'a', 'z': f'{number},5', 'w': number, 'label': 'x'} for number in range(178)]
    rows[52]['x'] = 'n.d.'
    found = read_columns(rows, ())
    assert found['x'] == Column(177, 1, 52, 'n.d.') and found['w'].is_number and not found['y'].is_number
    note = column_note('x', found['x'], 'a.csv, line 54')
    assert "column 'x': 177 of 178 values are numbers; a.csv, line 54 has 'n.d.'" in note and 'task.missing' in note
    assert "set config.task.decimal to ','" in column_note('z', found['z'], 'a.csv, line 2')
    assert not column_note('y', found['y'], '') and not column_note('w', found['w'], '')
    assert read_columns(rows, (), ('n.d.',))['x'].is_number and 'y' not in read_columns(rows, ('y',))
    with pytest.raises(UserError, match="column 'x' contains"):
        read_columns([{'x': [1]}], ())


def test_names_that_a_flag_makes_numbers_of_are_names():
    assert texts_of('ignore', (2003, 'a', 1.5)) == ('2003', 'a', '1.5') and texts_of('ignore', 2003) == ('2003',)
    with pytest.raises(UserError, match='config.task.ignore: expected names'):
        texts_of('ignore', [['a']])


def table(tmp_path, lines):
    (tmp_path / 'a.csv').write_text(lines)
    return {
        'data.name': '', 'data.reader': 'csv', 'data.train': str(tmp_path / 'a.csv'), 'data.columns': '',
        'data.test': '', 'data.fields': 'kind:label', 'task.categorical': '', 'task.ignore': '',
    }  # fmt: skip


def test_a_task_reads_them_so_and_says_what_is_odd(tmp_path):
    lines = ''.join(f'{n};{n},5;1_{n % 9}3;{"n.d." if n == 20 else n};{"ab"[n % 2]}\n' for n in range(60))
    overrides = table(tmp_path, 'n;amount;code;level;kind\n' + lines)
    folder = epath.Path(tmp_path / 'one')
    config = api.read('configs/adult.py:tiny', overrides)
    api.prepare(config, folder)
    task = api.build(config, folder)
    kinds = {name: each.kind for name, each in task.inputs.items()}
    assert kinds == {'n': 'number', 'amount': 'category', 'code': 'category', 'level': 'category'}
    notes = list(task.notes())
    assert len(notes) == 2 and "config.task.decimal to ','" in notes[0] and "a.csv, line 22 has 'n.d.'" in notes[1]
