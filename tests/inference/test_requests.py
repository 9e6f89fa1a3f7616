"""What a person types becomes requests; files are read here and nowhere below."""

import types

import pytest

from research.core.task import Input
from research.data.image.images import read_image
from research.errors import UserError
from research.inference.requests import blank_requests, check_list, encode_named, open_files, read_requests

TEXT, IMAGE = {'text': Input('text')}, {'image': Input('image'), 'note': Input('text')}


def test_texts_objects_files_and_folders(tmp_path):
    (tmp_path / 'a.txt').write_text('from a file')
    (tmp_path / 'b.jsonl').write_text('{"text": "one"}\n\n{"text": "two"}\n')
    assert read_requests(TEXT, ['typed', '{"text": "object"}']) == [{'text': 'typed'}, {'text': 'object'}]
    assert [each['text'] for each in read_requests(TEXT, [str(tmp_path)])] == ['from a file', 'one', 'two']


def test_a_sequence_is_typed_or_read_as_a_text_is(tmp_path):
    inputs = {'sequence': Input('sequence')}
    (tmp_path / 'a.txt').write_text('ACGT')
    (tmp_path / 'b.png').write_bytes(b'picture')
    assert read_requests(inputs, ['GATT', str(tmp_path)]) == [{'sequence': 'GATT'}, {'sequence': 'ACGT'}]
    with pytest.raises(UserError, match="'sequence' must be a text"):
        read_requests(inputs, ['{"sequence": 3}'])


def test_pictures_are_read_as_bytes_and_texts_stay_texts(tmp_path):
    (tmp_path / 'x.png').write_bytes(b'picture')
    name = str(tmp_path / 'x.png')
    assert read_requests(IMAGE, [name]) == [{'image': b'picture'}]
    assert open_files(IMAGE, {'image': name, 'note': name}) == {'image': b'picture', 'note': name}


@pytest.mark.parametrize(('inputs', 'value', 'message'), [
    (IMAGE, '{"image": "nowhere.png"}', 'image=nowhere.png: cannot be read'),
    (TEXT, '{"text"', 'not JSON'),
    ({'image': Input('image')}, 'nowhere.png', 'there is no such file'),
])  # fmt: skip
def test_what_cannot_be_read_is_said(inputs, value, message):
    with pytest.raises(UserError, match=message):
        read_requests(inputs, [value])


def test_an_existing_file_of_another_kind_is_not_called_missing(tmp_path):
    (tmp_path / 'a.md').write_text('a text')
    with pytest.raises(UserError, match=r"a.md': this task reads image \(image\)"):
        read_requests({'image': Input('image')}, [str(tmp_path / 'a.md')])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='empty: there is no request to answer; this task reads image'):
        read_requests({'image': Input('image')}, [str(tmp_path / 'empty')])


def test_a_long_text_is_a_text():
    assert read_requests(TEXT, ['a' * 300, 'b\0']) == [{'text': 'a' * 300}, {'text': 'b\0'}]


@pytest.mark.parametrize('name', ['a.txt', 'a.jsonl'])
def test_files_that_are_no_text_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b'\xff\xfe\x00')
    with pytest.raises(UserError, match=f'{name} is neither UTF-8 text nor'):
        read_requests(TEXT, [str(tmp_path / name)])


def test_what_is_wrong_with_the_content_of_a_file_is_said_with_its_name(tmp_path):
    (tmp_path / 'x.png').write_bytes(b'no picture')
    request = open_files(IMAGE, {'image': str(tmp_path / 'x.png')})
    with pytest.raises(UserError, match='x.png: the picture: cannot be read'):
        encode_named(lambda raw: read_image(raw['image']), request)
    with pytest.raises(UserError, match='^the picture: cannot be read'):
        encode_named(lambda raw: read_image(raw['image']), {'image': b'no picture'})


EVENTS = Input('list', limit=2, items={'code': Input('category'), 'parts': Input('list', items={'x': Input('number')})})


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        ({'code': 'a'}, 'expected a list'),
        ([], '1 to 2 items'),
        ([{'code': 'a'}] * 3, 'got 3'),
        ([{'code': 'a'}, 'b'], r'events\[1\]: expected an object'),
        ([{'cod': 'a'}], r"events\[0\]: field 'cod' is unknown.*code"),
        ([{'parts': [{'y': 1}]}], r"events\[0\].parts\[0\]: field 'y'"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_by_its_item(value, words):
    with pytest.raises(UserError, match=words):
        check_list('events', value, EVENTS)


def test_a_list_that_fits_is_taken():
    check_list('events', [{'code': 'a', 'parts': [{'x': 1}]}, {}], EVENTS)


def test_only_a_model_without_input_answers_a_count():
    task = types.SimpleNamespace(inputs={'x': Input('number')}, examples=())
    with pytest.raises(UserError, match='--count: this model reads x; give --input'):
        blank_requests(task, 2)
    assert blank_requests(types.SimpleNamespace(inputs={'seed': Input('number')}, examples=[{'seed': 1}]), 2) == [
        {'seed': 1}, {'seed': 1},
    ]  # fmt: skip
    assert blank_requests(types.SimpleNamespace(inputs={}, examples=()), 1) == [{}]
