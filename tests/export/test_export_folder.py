"""An exported folder runs without this package, and its check finds every damage."""

import json
import re
import runpy
import shutil

import jax
import numpy as np
import pytest
from export_cases import CLASSES, sampled_task, source_of

from research.core.evaluate import make_evaluator
from research.errors import UserError
from research.export import stablehlo
from research.export.check import check_folder, probe, read_described
from research.export.folder import MANIFEST, write_folder, write_manifest
from research.export.programs import predict_program


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return source_of(sampled_task(), tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='module')
def exported(source, tmp_path_factory):
    return write_folder(source, 'stablehlo', stablehlo.export, tmp_path_factory.mktemp('exported') / 'sampled')


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / 'copy')


def test_the_program_has_only_what_its_outputs_depend_on(source):
    program = predict_program(source)
    assert set(program.weights) == {'params/model/kernel', 'params/model/bias'}
    assert set(program.inputs) == {'numbers', 'index', 'random_seed'}


def test_vectors_are_the_answers_of_predict(source, exported):
    device = jax.sharding.NamedSharding(jax.make_mesh((1,), ('data',), devices=jax.devices()[:1]), jax.P())
    measure = make_evaluator(source.task, 5, 8, device)
    wanted = measure.predict(source.variables, source.batch, 5)
    got = run_here(exported)({**source.batch, 'random_seed': np.int32(5)})
    three = {name: value[2:5] for name, value in source.batch.items()}
    few = run_here(exported)({**three, 'random_seed': np.int32(5)})
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, atol=1e-6)
        np.testing.assert_allclose(few[name], value[2:5], atol=1e-6)


def run_here(folder):
    """The function of an exported folder, in this process."""
    return runpy.run_path(str(folder / 'run.py'))['load']()


def test_check_runs_the_vectors_without_flax_and_this_package(exported):
    result = check_folder(exported)
    assert result.error <= 1e-6 and result.milliseconds > 0 and 'largest error' in str(result)
    assert probe(exported, read_described(exported))['modules'] == []


def test_the_folder_says_what_it_is(source, exported):
    assert json.loads((exported / 'labels.json').read_text()) == list(CLASSES)
    assert json.loads((exported / 'inputs.json').read_text())['numbers']['kind'] == 'array'
    readme = (exported / 'README.md').read_text()
    assert 'step 12, seed 5' in readme and '`numbers` | float32 | batch x 4' in readme
    assert len((exported / 'run.py').read_text().splitlines()) <= 60
    for file in exported.iterdir():
        assert b'site-packages' not in file.read_bytes() and b'export_cases' not in file.read_bytes(), file.name


def test_a_used_folder_is_not_overwritten(source, exported):
    with pytest.raises(UserError, match='exists and is not empty'):
        write_folder(source, 'stablehlo', stablehlo.export, exported)


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(('damage', 'message'), [
    (lambda folder: flip(folder / 'weights.safetensors'), 'weights.safetensors is damaged'),
    (lambda folder: (folder / 'run.py').unlink(), 'run.py is missing'),
    (lambda folder: (folder / 'new.txt').write_text('x'), 'new.txt is not listed'),
    (lambda folder: (folder / MANIFEST).unlink(), f'has no {MANIFEST}'),
    (lambda folder: (folder / MANIFEST).write_text(f'{"0" * 64}  ../other'), 'line 1 is damaged'),
    (lambda folder: rewritten(folder, 'program.json', '{'), 'program.json is missing or damaged'),
])  # fmt: skip
def test_damage_is_one_message(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=re.escape(message)):
        check_folder(folder)


def rewritten(folder, name, text):
    """Changes a file and the manifest with it, as an exporter of another version might."""
    (folder / name).write_text(text)
    write_manifest(folder)


@pytest.mark.parametrize(('change', 'message'), [
    (lambda folder: rewritten(folder, 'run.py', 'def load(:'), 'run.py fails: SyntaxError'),
    (lambda folder: rewritten(folder, 'run.py', 'import flax'), 'flax is not available'),
    (lambda folder: rewritten(folder, 'run.py', 'import os; os._exit(3)'), 'ended without a result: exit status 3'),
    (lambda folder: other_versions(folder), 'jax 0.1 at the export'),
    (lambda folder: other_vectors(folder), "output 'drawn' differs"),
])  # fmt: skip
def test_what_cannot_run_is_one_message(folder, change, message):
    change(folder)
    with pytest.raises(UserError, match=re.escape(message)):
        check_folder(folder)


def other_versions(folder):
    described = read_described(folder)
    described['packages']['jax'] = '0.1'
    (folder / 'predict.jax').write_bytes(b'from the future')
    rewritten(folder, 'program.json', json.dumps(described))


def other_vectors(folder):
    changed = "{**call(weights, given), 'drawn': np.ones((8, 2))}"
    text = (folder / 'run.py').read_text().replace('call(weights, given)', changed)
    rewritten(folder, 'run.py', text)
