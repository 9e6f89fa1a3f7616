"""LiteRT files answer as the task does; int8 is kept only where it pays."""

import numpy as np
import pytest

pytest.importorskip('ai_edge_litert', reason='the extra export is not installed')
pytest.importorskip('litert_converter', reason='launch/foreign.txt is not installed')

from export_cases import sampled_task, source_of  # noqa: E402

from research.errors import UserError  # noqa: E402
from research.export import litert  # noqa: E402
from research.export.check import check_folder  # noqa: E402
from research.export.flat_programs import flat_predict  # noqa: E402
from research.export.folder import write_folder  # noqa: E402


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return source_of(sampled_task(), tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='module')
def exported(source, tmp_path_factory):
    return write_folder(source, 'litert', litert.export, tmp_path_factory.mktemp('exported') / 'litert')


def test_the_file_answers_as_the_task_with_noise_as_an_input(source, exported):
    made = flat_predict(source)
    assert set(made.inputs) == {'numbers', 'noise'}
    got = litert.answers((exported / 'model.tflite').read_bytes(), made.inputs)
    weights = source.variables.params['model']
    logits = source.batch['numbers'] @ weights['kernel'] + weights['bias']
    np.testing.assert_allclose(got['logits'], logits, atol=1e-5)
    np.testing.assert_array_equal(got['drawn'], made.inputs['noise'])
    assert len((exported / 'run.py').read_text().splitlines()) <= 60


def test_check_runs_it_elsewhere(exported):
    assert check_folder(exported).error <= 1e-5


def test_int8_is_refused_where_it_does_not_pay(source, monkeypatch, tmp_path):
    pytest.importorskip('ai_edge_quantizer', reason='launch/foreign.txt is not installed')
    monkeypatch.setattr(litert, 'alternate', lambda *functions: [2e-3, 1e-3])
    with pytest.raises(UserError, match=r'--int8 is not faster: 2.00 ms against 1.00 ms a row, answers as in float32'):
        write_folder(source, 'litert', litert.export, tmp_path / 'slower', int8=True)
    assert not list(tmp_path.iterdir())  # nothing half-written stays
    monkeypatch.setattr(litert, 'alternate', lambda *functions: [1e-3, 2e-3])
    monkeypatch.setattr(litert, 'LARGEST_DROP', -2.0)
    with pytest.raises(UserError, match='loses more than half a point'):
        write_folder(source, 'litert', litert.export, tmp_path / 'worse', int8=True)
    monkeypatch.setattr(litert, 'LARGEST_DROP', 2.0)
    folder = write_folder(source, 'litert', litert.export, tmp_path / 'better', int8=True)
    assert 'int8' in (folder / 'program.json').read_text()


def test_a_task_without_classes_has_no_int8(source, tmp_path):
    def predict(*arguments):
        return {'value': source.task.predict(*arguments)['logits'][:, 0]}

    task = source._replace(task=source.task._replace(predict=predict))
    with pytest.raises(UserError, match='this task has no classes'):
        litert.export(task, tmp_path, int8=True)


def test_what_the_format_cannot_hold_is_one_message(source, tmp_path):
    import jax

    def predict(variables, batch, context):
        return {'n': jax.lax.while_loop(lambda n: (n < batch['numbers']).any(), lambda n: n + 1, batch['numbers'] * 0)}

    task = source._replace(task=source.task._replace(predict=predict))
    with pytest.raises(UserError, match='predict of sampled contains a loop.*use --format=stablehlo'):
        litert.export(task, tmp_path)
