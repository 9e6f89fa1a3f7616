"""ONNX files answer as the task does, for any number of rows, and continue texts; int8 is kept only where it pays."""

import json
import runpy
import subprocess
import sys

import jax
import numpy as np
import pytest

pytest.importorskip('onnxruntime', reason='the extra export is not installed')
pytest.importorskip('jax2onnx', reason='launch/foreign.txt is not installed')

import types  # noqa: E402

from etils import epath  # noqa: E402
from export_cases import sampled_task, source_of  # noqa: E402

from research import api  # noqa: E402
from research.errors import UserError  # noqa: E402
from research.export import litert, onnx  # noqa: E402
from research.export.check import check_folder  # noqa: E402
from research.export.folder import write_folder  # noqa: E402
from research.export.programs import read_source  # noqa: E402
from research.ops.sampling import sample  # noqa: E402


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return source_of(sampled_task(), tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='module')
def exported(source, tmp_path_factory):
    return write_folder(source, 'onnx', onnx.export, tmp_path_factory.mktemp('exported') / 'onnx')


@pytest.fixture(scope='module')
def text_source(tmp_path_factory):
    """A language model with random weights."""
    workdir = epath.Path(tmp_path_factory.mktemp('lm'))
    config = api.read('configs/python_lm.py:tiny', {'task.max_new_tokens': '6', 'model.initial_scale': '0.5'})
    (workdir / 'prepared').mkdir()
    api.prepare(config, workdir / 'prepared')
    task = api.build(config, workdir / 'prepared')
    variables = task.init(jax.random.key(1))
    return read_source(
        types.SimpleNamespace(config=config, task=task, variables=variables, step=0, workdir=workdir)
    )


@pytest.fixture(scope='module')
def texts(text_source, tmp_path_factory):
    return write_folder(text_source, 'onnx', onnx.export, tmp_path_factory.mktemp('exported') / 'texts')


def run_here(folder):
    """The function of an exported folder, in this process."""
    return runpy.run_path(str(folder / 'run.py'))['load']()


def test_any_number_of_rows_with_noise_as_an_input(source, exported):
    weights, numbers = source.variables.params['model'], source.batch['numbers']
    for rows in (1, 3, 8):
        given = {'numbers': numbers[:rows], 'noise': np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)}
        got = run_here(exported)(given)
        np.testing.assert_allclose(got['logits'], numbers[:rows] @ weights['kernel'] + weights['bias'], atol=1e-5)
        np.testing.assert_array_equal(got['drawn'], given['noise'])


@pytest.mark.parametrize('name', ['exported', 'texts'])
def test_check_runs_it_elsewhere(name, request):
    folder = request.getfixturevalue(name)
    assert check_folder(folder).error <= 2e-5
    assert len((folder / 'run.py').read_text().splitlines()) <= 60


def test_greedy_texts_of_numpy_are_those_of_the_sampler(text_source, texts):
    generate = text_source.task.generate
    prompts = {name: np.asarray(value) for name, value in generate.prompts(text_source.batch).items()}
    keys = jax.random.split(jax.random.key(0), 8)
    wanted = jax.jit(lambda given: sample(generate, text_source.variables, given, keys, 6, temperature=0.0))(prompts)
    got = run_here(texts)(prompts)
    np.testing.assert_array_equal(got['tokens'], wanted.tokens)
    np.testing.assert_array_equal(got['length'], wanted.length)
    few = run_here(texts)({name: value[3:5] for name, value in prompts.items()})
    np.testing.assert_array_equal(few['tokens'], wanted.tokens[3:5])


def test_sampled_texts(text_source, texts):
    run, prompts = run_here(texts), text_source.task.generate.prompts(text_source.batch)
    greedy = run(prompts)['tokens']
    np.testing.assert_array_equal(run(prompts, temperature=1.0, top_k=1)['tokens'], greedy)
    np.testing.assert_array_equal(run(prompts, temperature=1.0, top_p=1e-9)['tokens'], greedy)
    first, again, other = (run(prompts, temperature=2.0, seed=seed)['tokens'] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != greedy).any()


def test_the_program_continues_a_typed_text(text_source, texts):
    command = [sys.executable, 'run.py', 'import os']
    done = subprocess.run(command, cwd=texts, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    encoded = text_source.task.encode({'text': 'import os'})
    answer = run_here(texts)({'tokens': encoded['tokens'][None], 'length': encoded['length'][None]})
    tokenizer = text_source.task.generate.tokenizer
    ids = answer['tokens'][0][: answer['length'][0]].tolist()
    assert done.stdout == f'import os{tokenizer.decode(ids)}\n'


def test_int8_is_kept_only_where_it_pays(source, monkeypatch, tmp_path):
    monkeypatch.setattr(litert, 'alternate', lambda *functions: [2e-3, 1e-3])
    with pytest.raises(UserError, match=r'--int8 is not faster: 2.00 ms against 1.00 ms a row'):
        write_folder(source, 'onnx', onnx.export, tmp_path / 'slower', int8=True)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(litert, 'alternate', lambda *functions: [1e-3, 2e-3])
    monkeypatch.setattr(litert, 'LARGEST_DROP', 2.0)
    folder = write_folder(source, 'onnx', onnx.export, tmp_path / 'better', int8=True)
    assert check_folder(folder).error <= 1e-3 and 'int8' in json.loads((folder / 'program.json').read_text())
    got = onnx.answers((folder / 'predict.onnx').read_bytes(), example(source))['logits']
    assert 0 < np.abs(got - logits(source)).max() < 0.1


def example(source):
    return {'numbers': source.batch['numbers'], 'noise': np.zeros((8, 2), np.float32)}


def logits(source):
    weights = source.variables.params['model']
    return source.batch['numbers'] @ weights['kernel'] + weights['bias']


def test_a_wrong_conversion_is_not_written(source, monkeypatch, tmp_path):
    wrong = source._replace(variables=jax.tree.map(lambda leaf: leaf + 1, source.variables))
    other = onnx.convert(onnx.flat_predict(wrong, 1).flat, 'predict')
    monkeypatch.setattr(onnx, 'convert', lambda *_: other)
    with pytest.raises(UserError, match="its output 'logits' differs by"):
        write_folder(source, 'onnx', onnx.export, tmp_path / 'wrong')
    monkeypatch.setattr(onnx, 'convert', lambda *_: other[:100])
    with pytest.raises(UserError, match='ONNX Runtime refuses'):
        write_folder(source, 'onnx', onnx.export, tmp_path / 'wrong')
    assert not list(tmp_path.iterdir())


def test_what_the_format_cannot_hold_is_one_message(source, text_source, tmp_path):
    def predict(variables, batch, context):
        return {'n': jax.lax.while_loop(lambda n: (n < batch['numbers']).any(), lambda n: n + 1, batch['numbers'] * 0)}

    with pytest.raises(UserError, match='contains a loop.*use --format=stablehlo'):
        onnx.export(source._replace(task=source.task._replace(predict=predict)), tmp_path)
    generate = text_source.task.generate
    beams = generate._replace(decoding=generate.decoding._replace(beams=4))
    with pytest.raises(UserError, match='beam search is a loop'):
        onnx.export(text_source._replace(task=text_source.task._replace(generate=beams)), tmp_path)
    with pytest.raises(UserError, match='for texts use --format=gguf'):
        onnx.export(text_source, tmp_path, int8=True)
