"""Answers with pictures, sounds and boxes: described as JSON, saved in their own formats."""

import io
import json
import wave

import numpy as np
import pytest
from etils import epath
from PIL import Image

from research.data.outputs import Boxes, Picture, Sound, plain, png, save
from research.errors import UserError

GREY = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4, 1)
ANSWER = {
    'text': 'two',
    'images': [Picture(GREY), Picture(np.full((2, 2, 3), 7, np.uint8))],
    'voice': Sound(np.float32([0, 0.5, -1.0, 2.0]), 8000),
    'found': Boxes(np.float32([[1, 2, 3, 4]]), ('cat',), np.float32([0.5])),
}


def test_an_answer_without_a_folder_describes_what_is_no_text():
    answer = json.loads(json.dumps(plain(ANSWER)))
    assert answer['text'] == 'two'
    assert answer['images'][1] == {'kind': 'picture', 'shape': [2, 2, 3]}
    assert answer['voice'] == {'kind': 'sound', 'shape': [4], 'rate': 8000}
    assert answer['found'] == [{'box': [1.0, 2.0, 3.0, 4.0], 'label': 'cat', 'score': 0.5}]


def test_saved_files_hold_what_was_answered(tmp_path):
    answer = json.loads(json.dumps(save(ANSWER, epath.Path(tmp_path), '00003')))
    assert answer['images'][0] == {'kind': 'picture', 'file': '00003_images_0.png'}
    pixels = np.asarray(Image.open(tmp_path / '00003_images_0.png'))
    np.testing.assert_array_equal(pixels, np.round(GREY[..., 0] * 255))
    assert Image.open(tmp_path / '00003_images_1.png').getpixel((0, 0)) == (7, 7, 7)
    with wave.open(str(tmp_path / answer['voice']['file'])) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        samples = np.frombuffer(file.readframes(4), '<i2')
    np.testing.assert_array_equal(samples, [0, 16384, -32767, 32767])


def test_an_answer_that_is_itself_a_picture_is_saved_under_its_number(tmp_path):
    assert save(Picture(GREY), epath.Path(tmp_path), '00000') == {'kind': 'picture', 'file': '00000.png'}
    assert (tmp_path / '00000.png').read_bytes() == png(GREY)
    assert Image.open(io.BytesIO(png(GREY[..., 0]))).size == (4, 3)


def test_an_array_that_is_no_picture_is_refused():
    with pytest.raises(UserError, match=r'\[2, 2, 5\]'):
        png(np.zeros((2, 2, 5)))
