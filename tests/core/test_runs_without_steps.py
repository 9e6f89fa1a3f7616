"""A run with train.steps=0 evaluates the weights it starts from, can predict, and can be trained further."""

import json

import pytest

from research import api
from research.errors import UserError

TINY = 'configs/digits.py:tiny'
pytestmark = pytest.mark.slow


def notes_of(run):
    return json.loads((run.workdir / 'description.json').read_text())['notes']


def test_untrained_weights_are_measured_with_a_warning_and_trained_later(tmp_path, capsys):
    run = api.run(TINY, tmp_path / 'run', {'train.steps': 0})
    assert run.step == 0 and {'validation', 'test'} <= set(run.metrics)
    assert 'the model is untrained: train.steps is 0' in notes_of(run)[0]
    assert 'note: the model is untrained' in capsys.readouterr().out
    assert 'the model is untrained' in (run.workdir / 'report.html').read_text()
    assert run.model().evaluate('test').metrics['accuracy'].value == pytest.approx(run.metrics['test']['accuracy'])
    again = api.run(TINY, tmp_path / 'run', {'train.steps': 0})
    assert again.stop == api.Stop.ALREADY_DONE and again.metrics == run.metrics
    other = api.run(TINY, tmp_path / 'run', {'train.steps': 0, 'train.test_split': ''})
    assert 'the model is untrained' in notes_of(other)[0]  # known from the checkpoint
    trained = api.run(TINY, tmp_path / 'run', {'train.steps': 2})
    assert trained.step == 2 and not any('untrained' in note for note in notes_of(trained))


def test_the_weights_of_another_run_are_measured_as_they_are(tmp_path):
    source = api.run(TINY, tmp_path / 'source', {'train.steps': 3, 'train.best': ''})
    settings = {'train.steps': 0, 'train.best': '', 'train.init_from': str(tmp_path / 'source')}
    run = api.run(TINY, tmp_path / 'run', settings)
    assert run.metrics['test']['loss'] == pytest.approx(source.metrics['test']['loss'])
    assert not any('untrained' in note for note in notes_of(run))


def test_parameters_without_weights_are_named(tmp_path):
    api.run(TINY, tmp_path / 'source', {'train.steps': 1})
    adapted = {'methods': 'lora', 'train.init_from': str(tmp_path / 'source'), 'train.steps': 0}
    note, *_ = notes_of(api.run(TINY, tmp_path / 'run', adapted))
    assert 'parameter arrays are untrained' in note and 'no weights have model/' in note


def test_privacy_needs_a_step(tmp_path):
    pytest.importorskip('dp_accounting')
    with pytest.raises(UserError, match='privacy is a property of training'):
        api.run('configs/adult.py:tiny', tmp_path / 'run', {'methods': 'privacy', 'train.steps': 0})
