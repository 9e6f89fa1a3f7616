"""Answers as JSON lines: in order, broken inputs among them, in any batch, and one typed line after another."""

import importlib
import io
import json
import re
import sys
import time

import numpy as np
import pytest
from PIL import Image

import launch.predict
import research
from research.errors import UserError
from research.inference.answers import converse
from research.inference.progress import Progress, progress_text
from research.inference.requests import Unreadable, blank_requests, find_requests

NO_STEPS = {'train.steps': '0', 'train.eval_batch_size': '8'}


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    return research.run('configs/digits.py:tiny', tmp_path_factory.mktemp('digits'), NO_STEPS).workdir


@pytest.fixture(scope='module')
def digits_gan(tmp_path_factory):
    run = research.run('configs/digits_gan.py:tiny', tmp_path_factory.mktemp('gan'), NO_STEPS)
    return run.model()


def picture(path, value=0):
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)


@pytest.fixture
def mixed(tmp_path):
    """A folder with three pictures and three broken files, and a table of two pictures and two broken lines."""
    folder = tmp_path / 'mixed'
    folder.mkdir()
    for number, name in enumerate(('a.png', 'c.png', 'e.png')):
        picture(folder / name, 40 * number)
    (folder / 'b.png').write_bytes(b'\x89PNG\r\n\x1a\n no picture')
    (folder / 'd.png').write_bytes(b'')
    (tmp_path / 'rows.jsonl').write_text(
        '{"image": "mixed/a.png"}\n{"image": "nowhere.png"}\nnot JSON\n{"image": "mixed/c.png"}\n'
    )
    return tmp_path


def predict(monkeypatch, capsys, *flags):
    """Runs the program in this process; (status, the lines of standard output, standard error)."""
    monkeypatch.setattr(sys, 'argv', ['predict', *map(str, flags)])
    importlib.reload(launch.predict)  # defines its flags anew: other programs share some names
    for name in ('workdir', 'input', 'count', 'interactive', 'seed', 'output', 'runner'):
        launch.predict.flags.FLAGS[name].unparse()  # flags keep their values between runs in one process
    with pytest.raises(SystemExit) as ended:
        launch.flags.run(launch.predict.main, sys.argv)
    printed = capsys.readouterr()
    return ended.value.code, printed.out.splitlines(), printed.err


def test_a_broken_input_is_reported_with_its_place_and_the_others_are_answered(digits, mixed, monkeypatch, capsys):
    flags = [f'--workdir={digits}', f'--input={mixed / "mixed"}', f'--input={mixed / "rows.jsonl"}']
    status, lines, errors = predict(monkeypatch, capsys, *flags)
    answers = list(map(json.loads, lines))
    files = [answer['file'] for answer in answers]
    names = [*(f'mixed/{name}.png' for name in 'abcde'), *(f'rows.jsonl, line {number}' for number in (1, 2, 3, 4))]
    assert files == [f'{mixed}/{name}' for name in names]
    assert [name for name, answer in zip(names, answers, strict=True) if 'error' in answer] == [
        'mixed/b.png', 'mixed/d.png', 'rows.jsonl, line 2', 'rows.jsonl, line 3',
    ]  # fmt: skip
    assert 'nowhere.png: cannot be read' in answers[6]['error'] and answers[7]['error'].startswith('not JSON')
    without_file = [{key: value for key, value in answer.items() if key != 'file'} for answer in answers]
    assert without_file[0] == without_file[5] and without_file[2] == without_file[8]
    assert status == 1 and f'4 of 9 inputs could not be answered; the first: {mixed}/mixed/b.png' in errors


def test_output_has_every_line_and_a_mistake_on_the_command_line_ends_at_once(digits, mixed, monkeypatch, capsys):
    flags = [f'--workdir={digits}', f'--output={mixed / "out"}', f'--input={mixed / "rows.jsonl"}']
    status, lines, _ = predict(monkeypatch, capsys, *flags)
    written = (mixed / 'out' / 'answers.jsonl').read_text().splitlines()
    assert status == 1 and len(written) == 4 and lines == [f'2 answers in {mixed / "out"}']
    flags = [f'--workdir={digits}', f'--input={mixed / "mixed"}', '--input=nowhere.png']
    status, lines, errors = predict(monkeypatch, capsys, *flags)
    assert status == 1 and lines == [] and 'there is no such file' in errors
    status, _, errors = predict(monkeypatch, capsys, f'--workdir={digits}', '--count=2', '--interactive')
    assert status == 1 and 'give one of --input' in errors


def test_typed_lines_are_answered_one_after_another(digits, mixed, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'stdin', io.StringIO(f'{mixed}/mixed/a.png\n\nwhat\n{{"image": "{mixed}/mixed/c.png"}}\n'))
    status, lines, _ = predict(monkeypatch, capsys, f'--workdir={digits}', '--interactive')
    first, mistake, last = map(json.loads, lines)
    assert first['file'] == f'{mixed}/mixed/a.png' and 'there is no such file' in mistake['error']
    assert not status and last['label'] in set('0123456789')


def test_an_answer_depends_on_its_index_and_not_on_its_batch(digits_gan):
    requests = blank_requests(digits_gan.task, 11)
    whole = [outputs for _, outputs in digits_gan.answers(requests, seed=3)]
    for places in ([10], [9, 2, 5], list(range(10, 2, -1))):
        chosen = [requests[place] for place in places]
        for place, (_, outputs) in zip(places, digits_gan.answers(chosen, seed=3, index=places), strict=True):
            for name, value in outputs.items():
                np.testing.assert_array_equal(value, whole[place][name])
    other = next(digits_gan.answers(requests[:1], seed=3, index=[1]))[1]
    assert any(not np.array_equal(other[name], whole[0][name]) for name in other)


def test_pictures_of_a_conversation_are_saved_or_described(digits_gan, tmp_path):
    described, saved = [], []
    converse(digits_gan, ['\n', '\n'], 0, None, described.append)
    converse(digits_gan, ['', ''], 0, tmp_path, saved.append)
    assert all('shape' in text for text in described) and len(described) == 2
    files = re.findall(r'"file": "([^"]+)"', ' '.join(saved))
    assert len(set(files)) == 2 and all((tmp_path / name).is_file() for name in files)
    assert (tmp_path / files[0]).read_bytes() != (tmp_path / files[1]).read_bytes()


def test_without_keep_errors_the_first_mistake_is_raised(digits, mixed):
    model = research.load(digits)
    found = find_requests(model.task.inputs, [str(mixed / 'rows.jsonl')])
    assert isinstance(found[2], Unreadable)
    with pytest.raises(UserError, match='nowhere.png: cannot be read'):
        list(model.answers(found))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_appears_only_after_its_delay():
    assert progress_text(120, 480, 60.0) == '[######------------------] 120/480, 2/s, 3:00 left'
    assert progress_text(0, 480, 3.0).endswith('0/480, 0:03')
    quick, slow, plain = Terminal(), Terminal(), io.StringIO()
    with Progress(2, quick, delay=30) as progress:
        progress.advance()
    for stream in (slow, plain):
        with Progress(4, stream, delay=0.02, interval=0.02) as progress:
            progress.advance()
            time.sleep(0.15)
            with progress.hidden():
                pass
    assert quick.getvalue() == '' and slow.getvalue().endswith('\x1b[K') and '1/4' in slow.getvalue()
    assert '\x1b' not in plain.getvalue() and ' left\n' in plain.getvalue()
