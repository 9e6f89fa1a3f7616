"""What readers make of cells, labels, names of columns, texts and JSON: the right value, or a broken record."""

import datetime
import decimal
import json
import time

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_files import WHOLE, parquet_bytes

from research.data.dataset import open_dataset
from research.data.readers.fields import same_but_form
from research.data.readers.json_text import parse_json
from research.data.readers.rows import Broken, Rows, parts_by_hash
from research.data.readers.tables import unique
from research.errors import UserError


def rows_of(tmp_path, reader, content, required=(), name='', **more):
    file = tmp_path / (name or f'a.{reader}')
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_dataset({'reader': reader, 'train': str(file), **WHOLE, **more}, required).source('train')


@pytest.mark.parametrize('label', ['', 'NA', 'nan', '?', ' N/A ', 'null'])
@pytest.mark.parametrize('reader', ['csv', 'jsonl', 'tsv', 'parquet'])
def test_missing_labels_are_broken_records(tmp_path, reader, label):
    values = [{'text': 'a', 'label': 'yes'}, {'text': 'b', 'label': label}, {'text': 'c', 'label': 'no'}]
    if reader == 'jsonl':
        content = '\n'.join(map(json.dumps, values))
    elif reader == 'parquet':
        content = parquet_bytes(values)
    else:
        mark = ',' if reader == 'csv' else '\t'
        content = '\n'.join(mark.join(row) for row in [('text', 'label'), *(row.values() for row in values)])
    with pytest.raises(Broken, match='no label'):
        list(rows_of(tmp_path, reader, content, ('text', 'label')))
    rows = rows_of(tmp_path, reader, content, ('text', 'label'), on_error='skip')
    assert [row['label'] for row in rows] == ['yes', 'no'] and len(rows.skipped) == 1
    if label == 'NA':  # Namibia
        kept = rows_of(tmp_path, reader, content, ('text', 'label'), missing=('?',))
        assert [row['label'] for row in kept] == ['yes', 'NA', 'no']


@pytest.mark.parametrize('value', ['NaN', 'null'])
def test_labels_of_json_that_are_no_value(tmp_path, value):
    content = f'{{"text": "a", "label": {value}}}\n{{"text": "b", "label": 0}}\n'
    rows = rows_of(tmp_path, 'jsonl', content, ('text', 'label'), on_error='skip')
    assert [row['label'] for row in rows] == [0]


def test_labels_and_columns_are_composed_and_without_blanks(tmp_path):
    content = 'name,cafe\u0301,label\nx,1,caf\u00e9 \ny,2,cafe\u0301\n'
    rows = rows_of(tmp_path, 'csv', content, ('label',))
    assert [row['label'] for row in rows] == ['caf\u00e9'] * 2 and [row['caf\u00e9'] for row in rows] == ['1', '2']
    content = '{"cafe\u0301": 1, "label": ["cafe\u0301", "b"]}\n{"caf\u00e9": 2, "cafe\u0301": 3, "label": "c"}\n'
    rows = rows_of(tmp_path, 'jsonl', content, ('label',), on_error='skip')
    assert list(rows) == [{'caf\u00e9': 1, 'label': ['caf\u00e9', 'b']}]
    assert "several columns are called 'caf\u00e9'" in rows.skipped[0]


def test_labels_that_are_probably_one():
    names = ['Cat', 'cat', ' cat', '1', '1.0', '01', '1.5', 'New York', 'newyork', '１', 'x', '1e3', '1000']
    assert same_but_form(names) == [('Cat', 'cat', ' cat'), ('1', '1.0', '01', '１'), ('New York', 'newyork')]
    assert same_but_form(['0', '-0', 'a', 'b', '10', '100']) == [('0', '-0')]


def test_names_of_columns_never_collide_and_many_take_no_time():
    assert unique(['a', 'a', 'a_2', 'b', 'a']) == ('a', 'a_3', 'a_2', 'b', 'a_4')
    assert unique(['n', 'n', 'n']) == ('n', 'n_2', 'n_3') and unique(['', '']) == ('', '_2')
    start = time.perf_counter()
    assert len(set(unique(['x'] * 60_000 + [f'x_{number}' for number in range(60_000)]))) == 120_000
    assert time.perf_counter() - start < 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(['a', 'a_2', 'a_2_2', 'a_3', 'b', '']), max_size=12))
def test_names_of_columns_are_unique_and_the_first_keeps_its_own(names):
    found = unique(names)
    assert len(set(found)) == len(names) and all(new.startswith(old) for old, new in zip(names, found, strict=True))
    assert all(found[names.index(name)] == name for name in names)


@pytest.mark.parametrize('mark', [';', '\t', '|'])
def test_a_delimiter_is_found_and_said(tmp_path, mark):
    content = f'size{mark}text{mark}label\n1,5{mark}"a{mark}b, c"{mark}x\n2,5{mark}d{mark}y\n'
    rows = rows_of(tmp_path, 'csv', content)
    assert list(rows) == [
        {'size': '1,5', 'text': f'a{mark}b, c', 'label': 'x'}, {'size': '2,5', 'text': 'd', 'label': 'y'},
    ]  # fmt: skip
    assert [note.text for note in rows.notes] == [
        f'{tmp_path}/a.csv: cells are separated by {mark!r} (set config.data.delimiter to change it)'
    ]
    assert not rows_of(tmp_path, 'csv', 'a,b;c\n1,2;3\n').notes
    assert list(rows_of(tmp_path, 'csv', 'text\na;b\nc\n')) == [{'text': 'a;b'}, {'text': 'c'}]


def test_blank_rows_of_a_spreadsheet_are_no_rows(tmp_path):
    rows = rows_of(tmp_path, 'csv', 'a,label\n1,x\n,\n" ",""\n2,y\n,,\n', ('label',), on_error='skip')
    assert [row['a'] for row in rows] == ['1', '2'] and not rows.skipped
    assert '3 rows without any value are left out' in rows.notes[0].text


def test_a_missing_header_is_named(tmp_path):
    content = '5.1,3.5,setosa\n4.9,3.0,setosa\n'
    rows = rows_of(tmp_path, 'csv', content)
    assert rows.notes[0].level == 'warning' and "config.data.columns='a,b,...'" in rows.notes[0].text
    with pytest.raises(Broken, match=r"no 'label' \(there: 5.1, 3.5, setosa\);.*config.data.columns='a,b,...'"):
        list(rows_of(tmp_path, 'csv', content, ('label',)))
    assert not rows_of(tmp_path, 'csv', content, ('label',), columns='a,b,label').notes
    wide = ','.join(f'column{number}' for number in range(1000))
    with pytest.raises(Broken) as error:
        list(rows_of(tmp_path, 'csv', f'{wide}\n{wide}\n', ('label',)))
    assert 'and 992 more' in str(error.value) and len(str(error.value)) < 400


def test_dates_and_decimals_of_parquet_are_numbers(tmp_path):
    zone = datetime.timezone(datetime.timedelta(hours=6))
    table = pyarrow.table({
        'day': [datetime.date(1970, 1, 11), datetime.date(1969, 12, 31)],
        'moment': [datetime.datetime(1970, 1, 2, 12), None],
        'zoned': pyarrow.array([datetime.datetime(1970, 1, 2, 6, tzinfo=zone)] * 2, pyarrow.timestamp('us', '+06:00')),
        'took': [datetime.timedelta(hours=36)] * 2,
        'hour': [datetime.time(18)] * 2,
        'price': [decimal.Decimal('1.25')] * 2,
        'days': [[datetime.date(1970, 1, 2)], []],
    })  # fmt: skip
    pyarrow.parquet.write_table(table, tmp_path / 'b.parquet')
    first, second = open_dataset({'reader': 'parquet', 'train': str(tmp_path / 'b.parquet'), **WHOLE}).source('train')
    assert first == {
        'day': 10.0, 'moment': 1.5, 'zoned': 1.0, 'took': 1.5, 'hour': 0.75, 'price': 1.25, 'days': [1.0],
    }  # fmt: skip
    assert second['day'] == -1.0 and second['moment'] is None


@pytest.mark.parametrize(('line', 'reason'), [
    ('{"text": "a", "text": "b"}', "the key 'text' appears more than once"),
    ('{"text": "\\udc00"}', 'half of a character'),
    ('{"text": "a", "n": ' + '1' * 400 + '}', 'a number of 400 digits'),
    ('{"text": "a", "n": 1e400}', 'too large'),
    ('{"text": "a", "n": Infinity}', 'Infinity is not a number'),
    ('{"text": "a", "n": ' + '[' * 100_000 + ']' * 100_000 + '}', 'nested more than 100 levels'),
    ('{"text": 5}', "'text' must be a text, got 5"),
    ('{"text": ["a"]}', "'text' must be a text"),
    ('"text"', 'expected an object'),
])  # fmt: skip
def test_one_line_of_json_that_cannot_be_used_is_skipped(tmp_path, line, reason):
    rows = rows_of(tmp_path, 'jsonl', f'{{"text": "good"}}\n{line}\n', ('text',), on_error='skip')
    assert [row['text'] for row in rows] == ['good'] and reason in rows.skipped[0]
    assert rows.skipped[0].startswith(f'{tmp_path}/a.jsonl, line 2: ') and len(rows.skipped[0]) < 300


def test_blank_texts_with_a_label_are_broken_and_others_are_texts(tmp_path):
    content = 'text,label\n" ",a\nb,c\n'
    assert len(rows_of(tmp_path, 'csv', content, ('text', 'label'), on_error='skip')) == 1
    assert len(rows_of(tmp_path, 'lines', 'a\n\nb\n', ('text',))) == 3


def test_lines_end_where_editors_end_them(tmp_path):
    content = 'a\u2028b\x0cc\u0085d\r\n\x1ce\n'
    assert [row['text'] for row in rows_of(tmp_path, 'lines', content)] == ['a\u2028b\x0cc\u0085d', '\x1ce']
    assert [row['text'] for row in rows_of(tmp_path, 'lines', 'a\rb\r')] == ['a', 'b']
    with pytest.raises(UserError, match='a.csv: UTF-16 text: save it as UTF-8'):
        rows_of(tmp_path, 'csv', 'text,label\na,b\n'.encode('utf-16'))


@pytest.mark.parametrize('reader', ['csv', 'tsv', 'jsonl', 'lines', 'fasta', 'text_folder'])
def test_a_byte_order_mark_is_no_part_of_the_first_value(tmp_path, reader):
    content = {'csv': 'text\na\n', 'tsv': 'text\na\n', 'jsonl': '{"text": "a"}', 'fasta': '>x\nacgt\n'}.get(reader, 'a')
    row = rows_of(tmp_path, reader, b'\xef\xbb\xbf' + content.encode())[0]
    assert row.get('text', 'a') == 'a' and 'text' in row or row['sequence'] == 'acgt'


ITEMS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from('abcdef')), min_size=1, max_size=80)


@settings(max_examples=80, deadline=None)
@given(ITEMS, st.randoms())
def test_every_class_with_enough_rows_is_in_every_split(items, random):
    """Whatever the order of the rows; copies stay together; and no row is lost."""
    shuffled = list(items)
    random.shuffle(shuffled)
    found = []
    for each in (items, shuffled):
        rows = [{'text': str(text), 'label': label} for text, label in each]
        every = Rows(len(rows), rows.__getitem__, str)
        parts = parts_by_hash(every, {'test': 0.1, 'validation': 0.1}, ('text',), every_class=True)
        found.append({split: sorted(map(str, part)) for split, part in parts.items()})
        texts = [{row['text'] for row in part} for part in parts.values()]
        assert sum(map(len, texts)) == len(set().union(*texts)) and sum(map(len, parts.values())) == len(items)
        owner = {}
        for text, label in items:
            owner[text] = min(owner.get(text, label), label)
        for label in 'abcdef':
            mine = {str(text) for text, first in owner.items() if first == label}
            if len(mine) >= 3:
                assert all(part & mine for part in texts)
    assert found[0] == found[1]


def test_classes_with_a_row_in_each_split_leave_the_hash_alone():
    rows = [{'text': f'row {number}', 'label': number % 2} for number in range(400)]
    every = Rows(len(rows), rows.__getitem__, str)
    plain, repaired = (
        parts_by_hash(every, {'test': 0.2}, ('text',), every_class=each) for each in (False, True)
    )
    assert all(list(plain[split]) == list(repaired[split]) for split in plain)


def test_small_classes_of_a_users_files_are_in_every_split(tmp_path):
    content = ''.join(f'{{"text": "{n} of {c}", "label": "c{c}"}}\n' for c in range(30) for n in range(10))
    (tmp_path / 'a.jsonl').write_text(content)
    settings = {'reader': 'jsonl', 'train': str(tmp_path / 'a.jsonl')}
    for given_settings, wanted in ((settings, 30), ({**settings, 'every_class': False}, 25)):
        data = open_dataset(given_settings, ('text', 'label'))
        counts = [len({row['label'] for row in data.source(split)}) for split in ('train', 'validation', 'test')]
        assert counts[0] == 30 and (counts[1:] == [30, 30] if wanted == 30 else max(counts[1:]) < 30)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from('{}[]",:\\u0123dDefEnNaIty -+.tr l'), max_size=40))
def test_any_text_is_json_or_broken(text):
    try:
        value = parse_json(text, 'x')
    except Broken:
        return
    assert json.dumps(value) == json.dumps(json.loads(text))


def test_one_file_a_class(tmp_path):
    for label, lines in (('pos', 'good\nfine\n'), ('neg', 'bad\n')):
        (tmp_path / f'reviews.{label}').write_text(lines)
    settings = {'reader': 'lines', 'train': f'{tmp_path}/reviews.*', **WHOLE}
    rows = open_dataset({**settings, 'label_pattern': r'\.(\w+)$'}, ('text', 'label')).source('train')
    assert [(row['text'], row['label']) for row in rows] == [('bad', 'neg'), ('good', 'pos'), ('fine', 'pos')]
    with pytest.raises(UserError, match=r"reviews.neg: config.data.label_pattern='x\(y\)' finds no label"):
        open_dataset({**settings, 'label_pattern': 'x(y)'}).source('train')


def test_settings_name_columns_however_their_letters_are_composed(tmp_path):
    content = '{"te\u0301xt": "a", "class": "x"}\n'
    rows = rows_of(tmp_path, 'jsonl', content, ('text', 'label'), fields='t\u00e9xt:text,class:label')
    assert list(rows) == [{'text': 'a', 'label': 'x'}]


def test_a_table_of_60000_columns_takes_no_time(tmp_path):
    header = ','.join(['x'] * 59_999 + ['label'])
    content = f'{header}\n' + ''.join(','.join(['1'] * 59_999 + [label]) + '\n' for label in 'ab')
    start = time.perf_counter()
    rows = list(rows_of(tmp_path, 'csv', content, ('label',)))
    assert len(rows) == 2 and len(rows[0]) == 60_000 and rows[1]['x_59999'] == '1'
    assert time.perf_counter() - start < 5


def test_a_parquet_file_of_more_values_than_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr('research.data.readers.tables.MAX_PARQUET_VALUES', 3)
    with pytest.raises(UserError, match='a.parquet: 2 rows of 2 columns; at most 3 values'):
        rows_of(tmp_path, 'parquet', parquet_bytes([{'a': 1, 'label': 'x'}] * 2))


def test_rows_of_a_set_of_sounds_have_its_sample_rate():
    from types import SimpleNamespace

    from research.data.readers.tfds import read_tfds

    def rows(features, row):
        info = SimpleNamespace(features=features, splits={'test': None}, full_name='books')
        return read_tfds(SimpleNamespace(info=info, as_data_source=lambda split: [row]), 'test', 'config.data.test')

    sound, text = SimpleNamespace(sample_rate=16000), SimpleNamespace()
    row = {'speech': np.arange(3), 'text': b'a'}
    assert rows({'speech': sound, 'text': text}, row)[0]['rate'] == 16000
    assert 'rate' not in rows({'speech': text, 'text': text}, row)[0]
    assert 'rate' not in rows({'speech': SimpleNamespace(sample_rate=None), 'text': text}, row)[0]
    assert rows({'speech': sound, 'text': text, 'rate': text}, {**row, 'rate': np.int32(8000)})[0]['rate'] == 8000
