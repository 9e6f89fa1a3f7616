"""Answers in the report: pictures, sounds and boxes beside texts, from the files of samples/<step>/."""

import base64
import html.parser
import io
import json

import numpy as np
import pytest
from etils import epath
from PIL import Image

from research.data.outputs import Boxes, Picture, Sound, plain, save
from research.data.readable import readable
from research.report import sections
from research.report.html import render
from research.report.page import write_report
from research.report.sections import samples
from research.report.values import BoxRow, is_plain, picture, shown

HOSTILE = '</td><script>alert(1)</script>'
ANSWER = {
    'image': Picture(np.full((4, 6, 3), 200, np.uint8)),
    'voice': Sound(np.float32([0, 0.5, -1.0]), 8000),
    'found': Boxes(np.float32([[1, 2, 3, 4], [0, 0, 9, 9.5]]), ('cat', HOSTILE), np.float32([0.5, 0.25])),
    'text': 'two',
}


class Elements(html.parser.HTMLParser):
    """Collects elements and text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ''
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.found.append((name, dict(attributes)))

    def handle_data(self, data):
        self.text += f' {data}'

    def all(self, name):
        return [attributes for found, attributes in self.found if found == name]


def write_step(workdir, step, answers):
    """Writes samples/<step>/ as `write_samples` does."""
    folder = epath.Path(workdir) / 'samples' / f'{step:08d}'
    folder.mkdir(parents=True)
    examples = [
        {'input': f'request {number}', 'output': readable(save(answer, folder, f'answer_{number:02d}'))}
        for number, answer in enumerate(answers)
    ]
    (folder / 'examples.json').write_text(json.dumps(examples))
    return folder


def test_each_kind_of_answer_is_in_the_page_once(tmp_path):
    folder = write_step(tmp_path, 3, [ANSWER, Picture(np.zeros((2, 2), np.uint8)), {'texts': ['a', 'b']}])
    page = Elements(write_report(tmp_path).read_text())
    images, (sound,) = page.all('img'), page.all('audio')
    assert len(images) == 2  # not once more as a picture over the steps
    assert base64.b64decode(images[0]['src'].partition(',')[2]) == (folder / 'answer_00_image.png').read_bytes()
    assert (images[0]['width'], images[0]['height']) == ('156', '104')  # 26 times as large
    assert 'controls' in sound and sound['src'].startswith('data:audio/wav;base64,')
    assert base64.b64decode(sound['src'].partition(',')[2]) == (folder / 'answer_00_voice.wav').read_bytes()
    text = ' '.join(page.text.split())
    assert text.count('label score left top right bottom') == 1
    assert f'cat 0.5 1 2 3 4 {HOSTILE} 0.25 0 0 9 9.5' in text
    assert 'a, b' in text and 'request 2' in text


def test_boxes_are_rows_of_text():
    boxes = [{'box': [1.0, 2.0, 3.0, 4.25], 'label': 'cat', 'score': 0.123456}]
    assert shown(boxes).content == [BoxRow('cat', '0.1235', ['1', '2', '3', '4.25'])]
    assert shown({'found': boxes}).content[0][1].kind == 'boxes'
    others = [{'box': [1.0, 2.0], 'label': 'cat', 'score': 0.5}]  # not four sides
    assert shown(others).content == ['box 1, 2, label cat, score 0.5']


def test_a_picture_or_sound_that_was_not_saved_is_described():
    described = readable(plain(ANSWER))
    assert shown(described['image']).content == 'picture, 4 × 6 × 3'
    assert shown(described['voice']).content == 'sound, 3 at 8,000 Hz'


def test_lists_of_pictures_are_items_and_plain_lists_are_not(tmp_path):
    folder = write_step(tmp_path, 1, [[Picture(np.zeros((2, 2), np.uint8))] * 2])
    answer = json.loads((folder / 'examples.json').read_text())[0]['output']
    assert [item.kind for item in shown(answer, folder).content] == ['picture', 'picture']
    assert shown(['a', 1.5]).content == 'a, 1.5' and shown([]).content == '(none)'
    assert shown([{'a': 1}, {'a': 2}]).kind == 'lines'


@pytest.mark.parametrize('name', ['../secret.png', '/etc/passwd', '..', '', 'a/b.png', '..\\x.png'])
def test_a_file_outside_the_folder_is_not_read(tmp_path, name):
    (tmp_path / 'secret.png').write_bytes(png_of(2))
    (tmp_path / 'step').mkdir()
    assert not is_plain(name)
    assert shown({'kind': 'picture', 'file': name}, epath.Path(tmp_path / 'step')).kind == 'note'


def png_of(size):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((size, size), np.uint8)).save(buffer, 'PNG')
    return buffer.getvalue()


def test_a_missing_large_or_damaged_file_is_named(tmp_path, monkeypatch):
    folder = epath.Path(tmp_path)
    (tmp_path / 'bad.png').write_bytes(b'GIF89a')
    (tmp_path / 'bad.wav').write_bytes(b'')
    (tmp_path / 'good.png').write_bytes(png_of(3))
    for kind, name in (('picture', 'bad.png'), ('sound', 'bad.wav'), ('sound', 'good.png')):
        assert 'could not be read' in shown({'kind': kind, 'file': name}, folder).content
    assert 'no such file' in shown({'kind': 'picture', 'file': 'none.png'}, folder).content
    assert shown({'kind': 'picture', 'file': 'good.png'}, folder).kind == 'picture'
    monkeypatch.setattr('research.report.values.LARGEST', 10)
    assert 'too large' in shown({'kind': 'picture', 'file': 'good.png'}, folder).content


def test_small_pictures_are_enlarged_and_large_ones_are_not():
    sizes = {size: picture(png_of(size), 'x', enlarge=160) for size in (1, 28, 160, 700)}
    assert {size: made.width for size, made in sizes.items()} == {1: 160, 28: 140, 160: 160, 700: 700}
    assert sizes[28].enlarged and not sizes[700].enlarged
    assert picture(b'', 'x') is None and picture(png_of(3)[:12], 'x') is None


def test_many_large_answers_are_shown_of_fewer_steps(tmp_path, monkeypatch):
    for step in range(6):
        write_step(tmp_path, step, [{'a': Sound(np.zeros(500, np.float32), 8000)}])  # 1,044 bytes
    (examples,) = samples(epath.Path(tmp_path) / 'samples')
    assert [frame.step for frame in examples.frames] == [0, 1, 2, 3, 4, 5]
    monkeypatch.setattr(sections, 'MEDIA', 3200)
    (examples,) = samples(epath.Path(tmp_path) / 'samples')
    assert [frame.step for frame in examples.frames] == [0, 2, 5]
    monkeypatch.setattr(sections, 'MEDIA', 1)
    (examples,) = samples(epath.Path(tmp_path) / 'samples')
    assert [frame.step for frame in examples.frames] == [5]


@pytest.mark.parametrize('text', ['{', '3', '{"input": 1}', '["x", 3, null]', '[]'])
def test_damaged_examples_are_left_out(tmp_path, text):
    folder = tmp_path / 'samples' / '00000001'
    folder.mkdir(parents=True)
    (folder / 'examples.json').write_text(text)
    assert samples(epath.Path(tmp_path) / 'samples') == []
    assert 'no samples folder' in render('samples.html', samples=[])
