"""The card of a model: which metric and which examples a client sees first."""

import types

import pytest

pytest.importorskip('orjson', reason='needs the extra serve')

from serve_toy import toy_task  # noqa: E402

from research.serve import card  # noqa: E402
from research.serve.samples import example_inputs  # noqa: E402


@pytest.mark.parametrize(('expected', 'first'), [({'test': {'f1': (1, 2)}}, 'f1'), ({}, 'loss')])
def test_the_metric_that_the_config_expects_is_first(monkeypatch, expected, first):
    metrics = {name: {'value': 1.0} for name in ('loss', 'f1')}
    monkeypatch.setattr(card, 'read_metrics', lambda workdir: {'test': {'metrics': metrics}})
    config = types.SimpleNamespace(expected=expected, train=types.SimpleNamespace(test_split='test'))
    measured = card.measured(types.SimpleNamespace(workdir='', config=config))  # pyright: ignore[reportArgumentType]
    assert next(iter(measured)) == first and len(measured) == 2


def test_rows_without_the_inputs_of_a_request_are_no_examples():
    """Rows of restoration have a clean picture only; the degraded one is made when they are encoded."""
    task = toy_task()._replace(examples=(), source=lambda split: [{'target': 1}, {'target': 2}])
    assert all(example.keys() == task.inputs.keys() for example in example_inputs(task))
