"""Units of requests: that they are named, that all of them make the request again, and what replaces one."""

import io

import numpy as np
import pytest
from PIL import Image

from research.core.task import Input
from research.errors import UserError
from research.explain.units import units

TEXT = {'text': Input('text')}


def keeping(found, *names):
    return found.keep([name in names for name in found.names])


@pytest.mark.parametrize(
    ('text', 'names'),
    [
        ('a good  film.', ['a', 'good', 'film.']),
        (' one\n', ['one']),
        ("Don't stop", ["Don't", 'stop']),
        ('这部电影 good', ['这', '部', '电', '影', 'good']),
        ('Paris is the [MASK]. Yes', ['Paris', 'is', 'the', '.', 'Yes']),
        ('a<extra_id_0>b <extra_id_1>', ['a', 'b']),
    ],
)
def test_words_of_a_text(text, names):
    found = units(TEXT, {'text': text, 'label': 1})
    assert found.names == names
    assert found.keep([True] * len(names)) == {'text': text, 'label': 1}
    for number in range(len(names)):
        kept = np.arange(len(names)) != number
        rest = units(TEXT, found.keep(kept)).names if kept.any() else []
        assert rest == [name for name, there in zip(names, kept, strict=True) if there]


def test_marks_stay_and_no_word_left_is_an_unknown_one():
    found = units(TEXT, {'text': 'Paris is the [MASK]. Yes'})
    assert found.keep([False] * 5) == {'text': '[MASK]'}
    assert found.keep([True, False, False, False, True]) == {'text': 'Paris [MASK]Yes'}
    assert units(TEXT, {'text': 'a b'}).keep([False, False]) == {'text': '_'}


def test_words_of_a_pair_have_the_name_of_their_text():
    found = units({'text': Input('text'), 'pair': Input('text')}, {'text': 'a b', 'pair': 'c'})
    assert found.names == ['text: a', 'text: b', 'pair: c']
    assert found.keep([False, True, False]) == {'text': 'b', 'pair': '_'}


def test_windows_of_a_sequence_keep_their_place():
    found = units({'sequence': Input('sequence')}, {'sequence': 'ACGT ACGTAC'}, windows=3)
    assert found.names == ['letters 1 to 3', 'letters 4 to 7', 'letters 8 to 10']
    assert found.keep([True, False, True]) == {'sequence': 'ACGNNNNTAC'}
    assert len(units({'sequence': Input('sequence')}, {'sequence': 'AC'}).names) == 2


def test_patches_of_a_picture():
    image = np.random.default_rng(0).uniform(size=(6, 5, 3)).astype(np.float32)
    found = units({'image': Input('image', (8, 8, 3))}, {'image': image}, patches=2)
    assert found.names == ['row 1, column 1', 'row 1, column 2', 'row 2, column 1', 'row 2, column 2']
    assert found.keep([True] * 4)['image'] is image
    left = found.keep([False, True, True, True])['image']
    np.testing.assert_allclose(left[:3, :2], np.broadcast_to(image.mean((0, 1)), (3, 2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(left[3:], image[3:])
    np.testing.assert_array_equal(left[:, 2:], image[:, 2:])
    other = found.keep([False, True, True, True], {'image': image[::-1]})['image']
    np.testing.assert_array_equal(other[:3, :2], image[::-1][:3, :2])
    with pytest.raises(UserError, match='both must have the same size'):
        found.keep([False, True, True, True], {'image': image[1:]})


def test_a_picture_file_and_whole_numbers():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG')
    found = units({'image': Input('image', (8, 8, 1))}, {'image': file.getvalue()})
    assert len(found.names) == 16
    left = found.keep([False] + [True] * 15)['image']
    assert left.dtype == np.uint8 and left.shape == (8, 8, 1)
    assert np.all(left[:2, :2, 0] == 31) and np.array_equal(left[2:, :, 0], pixels[2:])


def test_windows_of_a_sound():
    inputs = {'audio': Input('audio'), 'rate': Input('number')}
    samples = np.linspace(-0.5, 0.5, 2000, dtype=np.float32)
    found = units(inputs, {'audio': samples, 'rate': 1000, 'label': 'x'}, windows=4)
    assert found.names == ['0.00 to 0.50 s', '0.50 to 1.00 s', '1.00 to 1.50 s', '1.50 to 2.00 s']
    left = found.keep([True, False, True, True])
    assert left['rate'] == 1000 and left['label'] == 'x'
    assert not left['audio'][500:1000].any()
    np.testing.assert_array_equal(left['audio'][1000:], samples[1000:])
    other = found.keep([False] * 4, {'audio': samples[:100], 'rate': 1000})['audio']
    np.testing.assert_array_equal(other[:100], samples[:100])
    assert other.shape == (2000,) and not other[100:].any()
    with pytest.raises(UserError, match='other sound has 2000 samples per second'):
        found.keep([False] * 4, {'audio': samples, 'rate': 2000})
    with pytest.raises(UserError, match="no 'rate'"):
        units(inputs, {'audio': samples})


def test_columns_of_a_table_take_the_value_of_another_row():
    inputs = {'age': Input('number'), 'work': Input('category')}
    found = units(inputs, {'age': 3, 'work': 'no', 'label': 0})
    assert found.names == ['age', 'work']
    assert found.keep([True, False]) == {'age': 3, 'label': 0}
    assert found.keep([True, False], {'age': 4, 'work': 'yes', 'label': 1}) == {'age': 3, 'work': 'yes', 'label': 0}
    assert units(inputs, {'age': 3, 'work': None}).names == ['age']


def test_items_of_a_list():
    found = units({'events': Input('list')}, {'events': [{'id': 1}, {'id': 2}]})
    assert found.names == ['events 1', 'events 2']
    assert found.keep([False, True]) == {'events': [{'id': 2}]}


def test_what_has_no_units():
    with pytest.raises(UserError, match=r'no unit to remove: the task reads text \(text\)'):
        units(TEXT, {'tokens': [1, 2]})
    with pytest.raises(UserError, match="'text' must be a text, got int"):
        units(TEXT, {'text': 3})
    with pytest.raises(UserError, match="'sequence' must be a sequence of letters"):
        units({'sequence': Input('sequence')}, {'sequence': ''})
    with pytest.raises(ValueError, match='2 booleans'):
        units(TEXT, {'text': 'a b'}).keep([True])
