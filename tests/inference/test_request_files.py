"""Files as requests: read as training data is, each with its name, and with a message where they cannot be."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from research.core.task import Input
from research.errors import UserError
from research.inference.requests import read_requests

TEXT, IMAGE = {'text': Input('text')}, {'image': Input('image')}
TABLE = {'size': Input('number'), 'color': Input('category')}


def read(inputs, *paths):
    return read_requests(inputs, [str(path) for path in paths], lambda text: None)


@pytest.mark.parametrize('name', ['a.jsonl', 'A.JSONL', 'a.ndjson'])
def test_json_lines_end_with_a_line_feed_alone_and_may_have_a_mark(tmp_path, name):
    rows = [{'text': 'one\u2028two'}, {'text': 'three\u0085four\x0c'}]
    lines = '\r\n'.join(json.dumps(row, ensure_ascii=False).replace('\\f', '') for row in rows)
    (tmp_path / name).write_bytes(b'\xef\xbb\xbf' + lines.encode())
    found = read(TEXT, tmp_path / name)
    assert found == [{'text': 'one\u2028two'}, {'text': 'three\u0085four'}]
    assert [each.name for each in found] == [f'{tmp_path / name}, line {line}' for line in (1, 2)]


def test_a_mark_before_a_text_is_no_part_of_it(tmp_path):
    (tmp_path / 'a.txt').write_bytes(b'\xef\xbb\xbfhello')
    assert read(TEXT, tmp_path / 'a.txt') == [{'text': 'hello'}]


def test_one_json_file_holds_one_request_or_a_list(tmp_path):
    (tmp_path / 'a.json').write_text('[{"text": "one"}, {"text": "two"}]')
    (tmp_path / 'b.JSON').write_text('{"text": "three"}')
    assert [each['text'] for each in read(TEXT, tmp_path / 'a.json', tmp_path / 'b.JSON')] == ['one', 'two', 'three']
    (tmp_path / 'a.json').write_text('[1]')
    with pytest.raises(UserError, match='a.json, entry 1: expected an object'):
        read(TEXT, tmp_path / 'a.json')


def test_tables_are_requests(tmp_path):
    (tmp_path / 'a.csv').write_text('color;size;kind\nred;1,5;x\nblue;2;y\n')
    found = read(TABLE, tmp_path / 'a.csv')
    assert found == [{'color': 'red', 'size': '1,5'}, {'color': 'blue', 'size': '2'}]
    assert found[1].name.endswith('a.csv, line 3')
    (tmp_path / 'a.TSV').write_text('size\tcolor\n3\tgreen\n')
    assert read(TABLE, tmp_path / 'a.TSV') == [{'size': '3', 'color': 'green'}]
    (tmp_path / 'b.csv').write_text('x,y\n1,2\n')
    with pytest.raises(UserError, match=r'b.csv: this task reads none of its columns \(x, y\) but size, color'):
        read(TABLE, tmp_path / 'b.csv')


@pytest.mark.parametrize(('form', 'name'), [
    ('TIFF', 'a.tif'), ('PPM', 'a.pgm'), ('JPEG', 'a.jfif'), ('PNG', 'a'), ('GIF', 'a.weird'), ('BMP', 'A.DIB'),
])  # fmt: skip
def test_every_picture_that_trains_is_answered(tmp_path, form, name):
    Image.new('L', (3, 2), 7).save(tmp_path / name, form)
    (tmp_path / 'Thumbs.db').write_bytes(b'\xff\xfe\0')
    (tmp_path / '.hidden').mkdir()
    Image.new('L', (3, 2), 9).save(tmp_path / '.hidden' / 'b.png')
    (tmp_path / 'readme.txt').write_text('not a picture')
    said = []
    found = read_requests(IMAGE, [str(tmp_path)], said.append)
    assert [each['image'].name for each in found] == [str(tmp_path / name)] == [each.name for each in found]
    assert len(said) == 2 and 'readme.txt: skipped, this task reads image' in said[0] and '2 hidden' in said[1]
    assert read(IMAGE, tmp_path / name)[0]['image'] == (tmp_path / name).read_bytes()


def test_paths_in_a_file_start_from_its_folder(tmp_path, monkeypatch):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'x.png').write_bytes(b'near')
    (tmp_path / 'x.png').write_bytes(b'far')
    (tmp_path / 'data' / 'a.jsonl').write_text('{"image": "x.png"}\n')
    monkeypatch.chdir(tmp_path)
    assert read(IMAGE, 'data/a.jsonl') == [{'image': b'near'}]
    monkeypatch.setenv('HOME', str(tmp_path / 'data'))
    assert read(IMAGE, '{"image": "~/x.png"}') == [{'image': b'near'}] == read(IMAGE, '~/x.png')


@pytest.mark.parametrize(('value', 'message'), [
    ('{"text": 5}', "'text' must be a text, got 5"),
    ('{"text": null}', "'text' must be a text, got None"),
    ('{"text": ' + '[' * 100_000, 'nested more than 100 levels'),
    ('{"text": ' + '7' * 400 + '}', 'a number of 400 digits'),
    ('{"text": ' + '7' * 5000 + '}', 'a number of 5,000 digits'),
    ('{"text": 1e999}', 'is too large'),
    ('{"text": -Infinity}', '-Infinity is not a number'),
    ('{"text": "\\ud800"}', 'half of a character at position 1'),
    ('{"\\udfff": "x"}', 'half of a character'),
    ('{"text": "a", "text": "b"}', "the key 'text' appears more than once"),
    ('{"text": "a"} x', 'not JSON .Extra data'),
])  # fmt: skip
def test_json_that_cannot_be_used_is_refused_with_a_reason(value, message):
    with pytest.raises(UserError, match=message):
        read(TEXT, value)


@pytest.mark.parametrize('value', ['{"image": "a\\u0000.png"}', '{"image": "/dev/zero"}', '{"image": "."}'])
def test_what_is_no_file_is_not_read(value):
    with pytest.raises(UserError, match='image=.*cannot be read'):
        read(IMAGE, value)


def test_whole_characters_written_as_two_halves_are_one():
    assert read(TEXT, '{"text": "\\ud83d\\ude00"}') == [{'text': '\U0001f600'}]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(['text', 'image', 'size']), JSON, max_size=3), st.data())
def test_a_damaged_request_is_read_or_refused_and_never_a_stack_trace(value, data):
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    place = data.draw(st.integers(0, max(len(text) - 1, 0)))
    damage = data.draw(st.sampled_from(['', '"', '\\', '}', '[', '\\ud800', '9' * 200]))
    text = '{' + text[1:place] + damage + text[place:]
    try:
        found = read({**TEXT, 'size': Input('number')}, text)
    except UserError as error:
        assert len(str(error)) < 500
        return
    assert all(isinstance(each.get('text', ''), str) for each in found)


def test_numbers_of_a_table_keep_their_values(tmp_path):
    (tmp_path / 'a.jsonl').write_text('{"size": 0.1}\n{"size": -12}\n{"size": 1e-5}\n')
    np.testing.assert_array_equal([each['size'] for each in read(TABLE, tmp_path / 'a.jsonl')], [0.1, -12, 1e-5])
