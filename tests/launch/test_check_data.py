"""`check_data` on files with planted faults, through real configs and tasks."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from research import api
from research.data.check.task import check_data

ROOT = pathlib.Path(__file__).parent.parent.parent


def found(config, overrides, limit=0):
    """Returns ({split: rows}, the errors, the warnings), each as 'split: text'."""
    surveys, findings = check_data(api.read(config, overrides), api.prepare, api.build, limit)
    errors, warnings = (
        [f'{each.split}: {each.text}' for each in findings if each.level == level]
        for level in ('error', 'warning')
    )
    return {each.split: each.total for each in surveys}, errors, warnings


def has(findings, *words):
    return any(all(word in text for word in words) for text in findings)


def draw(path, seed, size=(24, 24), mode='L', **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    rough = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 6), np.uint8))
    rough.resize(size, Image.Resampling.BICUBIC).convert(mode).save(path, **options)


@pytest.fixture
def photos(tmp_path):
    """Two classes, three splits, nothing wrong."""
    seed = 0
    for split, count in (('train', 12), ('validation', 4), ('test', 4)):
        for name in ('cat', 'dog'):
            for number in range(count):
                seed += 1
                draw(tmp_path / split / name / f'{number}.png', seed)
    return tmp_path


PHOTOS = 'configs/own_images.py:tiny'


def photo_settings(folder, **more):
    given = {f'data.{split}': str(folder / split) for split in ('train', 'validation', 'test')}
    return {**given, 'data.name': '', 'data.reader': 'image_folder', **more}


def test_clean_pictures_have_no_fault(photos):
    rows, errors, warnings = found(PHOTOS, photo_settings(photos))
    assert rows == {'train': 24, 'validation': 8, 'test': 8} and not errors and not warnings


def test_every_fault_planted_in_pictures_is_found(photos):
    draw(photos / 'test' / 'Cat' / '0.png', 900)  # a class that train has not
    (photos / 'train' / 'cat' / 'broken.png').write_bytes(b'not a picture')
    (photos / 'validation' / 'dog' / 'copy.png').write_bytes(
        (photos / 'train' / 'dog' / '3.png').read_bytes()
    )
    Image.open(photos / 'train' / 'cat' / '5.png').save(
        photos / 'validation' / 'cat' / 'worse.jpg', quality=60
    )
    draw(photos / 'train' / 'dog' / 'wide.png', 901, size=(30, 24))
    draw(photos / 'train' / 'dog' / 'color.png', 902, mode='RGB')
    (photos / 'train' / 'stray.png').write_bytes((photos / 'train' / 'dog' / '4.png').read_bytes())
    rows, errors, warnings = found(PHOTOS, photo_settings(photos))
    assert has(
        errors, 'train:', '2 broken records', 'broken.png: cannot be read as a picture', 'stray.png: no label'
    )
    assert has(errors, 'test:', "class names differ from those of train: 'Cat' x1 (train has 'cat', 'dog')")
    assert has(errors, 'test:', "Cat/0.png: class 'Cat' is not among the 2", "did you mean 'cat'?")
    assert has(
        errors, 'validation:', '1 of 10 rows (10.0%) are exact copies', 'copy.png = ', 'train/dog/3.png'
    )
    assert has(
        warnings, 'validation:', '1 pictures', 'look like those of training rows', 'worse.jpg = ', 'cat/5.png'
    )
    assert has(warnings, 'train:', '2 sizes', '24x30 x1')
    assert has(warnings, 'train:', '1 of 26 pictures', 'do not have 1 channels')
    skipping = photo_settings(photos, **{'data.on_error': 'skip'})
    _, errors, warnings = found(PHOTOS, skipping)
    assert not has(errors, 'broken records') and has(warnings, 'train:', '2 broken records')
    _, errors, _ = found(PHOTOS, {**skipping, 'data.error_limit': '1'})
    assert has(errors, 'train:', '2 broken records')


def test_what_cannot_even_be_opened_is_an_error_of_its_split(photos):
    missing = photo_settings(photos, **{'data.test': str(photos / 'tset')})
    rows, errors, _ = found(PHOTOS, missing)
    assert set(rows) == {'train', 'validation'}
    assert has(errors, 'test:', "config.data.test='", "did you mean 'test'")
    one = photo_settings(photos, **{'data.train': str(photos / 'train' / 'cat' / '*.png')})
    _, errors, _ = found(PHOTOS, one)
    assert has(errors, 'train: the task cannot be prepared:', "no 'label'")


def write_table(path, rows, end='\n'):
    path.write_text(
        'size,color,kind\n' + ''.join(f'{size},{color},{kind}\n' for size, color, kind in rows) + end
    )


def table_settings(folder, **more):
    files = {f'data.{split}': str(folder / f'{split}.csv') for split in ('train', 'validation', 'test')}
    given = {
        'data.columns': '',
        'data.fields': 'kind:label',
        'task.strip': '.',
        'data.name': '',
        'data.reader': 'csv',
    }
    return {**files, **given, **more}


def test_every_fault_planted_in_a_table_is_found(tmp_path):
    rows = [(number, ['red', 'blue'][number % 3 == 0], ['a', 'b'][number % 2]) for number in range(40)]
    write_table(tmp_path / 'train.csv', rows, 'too,many,cells,here\n"open quote,red,a\n')
    write_table(tmp_path / 'validation.csv', [(0.5, 'green', 'a'), (3, 'blue', 'b'), (99, 'red', 'c')])
    write_table(tmp_path / 'test.csv', [(50, 'red', 'a'), ('many', 'red', 'b')])
    counts, errors, warnings = found('configs/adult.py:tiny', table_settings(tmp_path))
    assert counts == {'train': 40, 'validation': 3, 'test': 2}
    assert has(errors, 'train:', '2 broken records', 'train.csv, line 42: 4 cells', 'line 43: not CSV')
    assert has(errors, 'validation:', "class names differ from those of train: 'c' x1")
    assert has(errors, 'validation:', "line 4: class 'c' is not among the 2")
    assert has(errors, 'test:', "test.csv, line 3: column 'size': 'many' is not a number")
    assert has(warnings, 'validation:', "column 'color' has values that train never has: 'green' x1")
    assert has(
        warnings, 'validation:', '1 of 3 rows', 'exact copies of training rows', 'validation.csv, line 3 = '
    )


def test_clean_table_and_labels_that_only_the_task_understands(tmp_path):
    rows = [(number + 0.5, ['red', 'blue'][number % 3 == 0], ['a', 'b'][number % 2]) for number in range(40)]
    write_table(tmp_path / 'train.csv', rows[:20])
    write_table(tmp_path / 'validation.csv', rows[20:30])
    write_table(tmp_path / 'test.csv', [(size, color, f'{kind}.') for size, color, kind in rows[30:]])
    assert found('configs/adult.py:tiny', table_settings(tmp_path))[1:] == ([], [])
    _, errors, _ = found('configs/adult.py:tiny', table_settings(tmp_path, **{'task.strip': ''}))
    assert has(errors, 'test:', "class names differ from those of train: 'a.' x5, 'b.' x5")


def test_parallel_files_of_different_length_are_an_error(tmp_path):
    (tmp_path / 'x').write_text('1\n2\n3\n')
    (tmp_path / 'y').write_text('a\nb\n')
    settings = {
        'data.reader': 'lines',
        'data.name': '',
        'data.train': f'text={tmp_path}/x,label={tmp_path}/y',
    }
    _, errors, _ = found('configs/adult.py:tiny', settings)
    assert has(errors, 'parallel files must have equal numbers of rows', 'has 3 and', 'has 2')


def run(*arguments):
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    command = [sys.executable, '-m', 'launch.check_data', *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_program_exits_by_what_it_found(photos):
    fine = run('--config=configs/adult.py:tiny')
    assert fine.returncode == 0, fine.stderr
    assert fine.stdout.splitlines()[-1] == 'verdict: fit, nothing found'
    assert 'train 345' in fine.stdout and 'malignant' in fine.stdout
    (photos / 'train' / 'cat' / '0.png').write_bytes(b'')
    flags = [f'--config.{name}={value}' for name, value in photo_settings(photos).items()]
    bad = run(f'--config={PHOTOS}', '--json', *flags)
    assert bad.returncode == 1
    report = json.loads(bad.stdout)
    assert report['rows']['train'] == 23 and report['verdict'] == 'verdict: NOT FIT, 1 error and 0 warnings'
    assert 'cat/0.png' in report['findings'][0]['text']
