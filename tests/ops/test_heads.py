"""Metrics of several labels and of numbers against scikit-learn and SciPy; one unit against two."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as sklearn_metrics

from research.ops import heads
from research.ops.regression import ranks, spearman


def in_batches(function, *arrays, size=7):
    """Sums over batches of `size`, the last one padded with rows of mask 0."""
    totals = {}
    for start in range(0, len(arrays[0]), size):
        parts = [array[start : start + size] for array in arrays]
        short = size - len(parts[0])
        mask = np.pad(np.ones(len(parts[0]), np.float32), (0, short))
        padded = [np.pad(part, [(0, short)] + [(0, 0)] * (part.ndim - 1), constant_values=3) for part in parts]
        for name, value in function(*map(jnp.asarray, padded), mask).items():
            totals[name] = totals.get(name, 0) + np.asarray(value, np.float64)
    return totals


def test_several_labels_are_measured_as_scikit_learn_does():
    generator = np.random.default_rng(0)
    truth = (generator.random((40, 4)) < [0.5, 0.2, 0.9, 0.0]).astype(np.float32)
    scores = generator.normal(size=(40, 4)).astype(np.float32) + truth
    head = heads.multi(list('abcd'), [20, 8, 36, 0], 40, threshold=0.6)
    metrics = head.metrics(in_batches(head.sums, scores, truth))
    given = 1 / (1 + np.exp(-scores)) > 0.6
    for kind in ('micro', 'macro'):
        for name, function in (('f1', 'f1_score'), ('precision', 'precision_score'), ('recall', 'recall_score')):
            expected = getattr(sklearn_metrics, function)(truth, given, average=kind, zero_division=0)
            assert metrics[f'{name}_{kind}'].value == pytest.approx(expected, abs=1e-6)
    every = sklearn_metrics.f1_score(truth, np.ones_like(truth), average='micro')
    assert metrics['f1_micro'].baseline == pytest.approx(every)
    assert metrics['exact'].value == pytest.approx(sklearn_metrics.accuracy_score(truth, given))
    assert metrics['hamming'].value == pytest.approx(sklearn_metrics.hamming_loss(truth, given))
    usual = np.tile([0, 0, 1, 0], (40, 1))  # a label that half of the rows have is not usual
    assert metrics['hamming'].baseline == pytest.approx(sklearn_metrics.hamming_loss(truth, usual))
    probability = 1 / (1 + np.exp(-scores.astype(np.float64)))
    loss = np.mean([sklearn_metrics.log_loss(truth[:, k], probability[:, k], labels=[0, 1]) for k in range(4)])
    assert metrics['loss'].value == pytest.approx(loss, rel=1e-5)
    each = sklearn_metrics.f1_score(truth, given, average=None, zero_division=0)
    assert metrics['f1_per_class'].value == pytest.approx(each.tolist())
    assert np.mean(np.asarray(head.loss(scores, truth))) == pytest.approx(loss, rel=1e-5)
    answer = head.decode({name: np.asarray(value)[0] for name, value in head.answer(jnp.asarray(scores)).items()})
    assert set(answer['labels']) == {'abcd'[k] for k in np.flatnonzero(given[0])} and len(answer['probability']) == 4


def test_numbers_are_measured_as_scipy_does():
    generator = np.random.default_rng(1)
    truth = (50 + 10 * generator.normal(size=60)).round()
    scores = ((truth - 52) / 9 + 0.4 * generator.normal(size=60)).astype(np.float32)[:, None]
    head = heads.regression(52.0, 9.0)
    metrics = head.metrics(in_batches(head.sums, scores, truth.astype(np.float32)))
    predicted = scores[:, 0] * 9.0 + 52
    assert metrics['mse'].value == pytest.approx(sklearn_metrics.mean_squared_error(truth, predicted), rel=1e-4)
    assert metrics['mae'].value == pytest.approx(sklearn_metrics.mean_absolute_error(truth, predicted), rel=1e-4)
    assert metrics['mse'].baseline == pytest.approx(np.mean((truth - 52) ** 2), rel=1e-5)
    assert metrics['mae'].baseline == pytest.approx(np.mean(np.abs(truth - 52)), rel=1e-5)
    assert metrics['pearson'].value == pytest.approx(scipy.stats.pearsonr(truth, predicted)[0], abs=1e-5)
    assert spearman(predicted, truth) == pytest.approx(scipy.stats.spearmanr(predicted, truth)[0], abs=1e-9)
    np.testing.assert_allclose(ranks([3, 1, 3, 2]), scipy.stats.rankdata([3, 1, 3, 2]))
    assert spearman([1, 1, 1], [1, 2, 3]) == 0
    assert head.decode({'value': np.float32(7)}) == {'value': 7.0}


def test_one_unit_is_the_sigmoid_of_two_classes():
    scores, labels = jnp.array([[2.0], [-1.0]]), jnp.array([1, 1])
    head = heads.single(['no', 'yes'], [3, 5], one_unit=True)
    assert head.units == 1
    probability = 1 / (1 + np.exp(-np.array([2.0, -1.0])))
    np.testing.assert_allclose(head.loss(scores, labels), -np.log(probability), rtol=1e-6)
    np.testing.assert_allclose(head.answer(scores)['probability'][:, 1], probability, rtol=1e-6)
    assert head.logs(scores, labels, jnp.ones(2))['accuracy'] == 1
    metrics = head.metrics(in_batches(head.sums, np.asarray(scores), np.asarray(labels), size=2))
    assert metrics['accuracy'].value == 0.5 and metrics['loss'].value == pytest.approx(-np.log(probability).mean())


def test_probabilities_as_labels_are_labels_where_one_is_1():
    scores, labels = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32), jnp.array([0, 2, 1, 1, 0])
    head, soft, mask = heads.single(list('abc'), [2, 2, 1], 0.1), jnp.eye(3)[labels], jnp.ones(5)
    np.testing.assert_allclose(head.loss(scores, soft), head.loss(scores, labels), rtol=1e-5)
    assert head.logs(scores, soft, mask)['accuracy'] == head.logs(scores, labels, mask)['accuracy']
    mixed = head.loss(scores, (soft + jnp.roll(soft, 1, axis=1)) / 2)
    shifted = head.loss(scores, (labels + 1) % 3)
    np.testing.assert_allclose(mixed, (head.loss(scores, labels) + shifted) / 2, rtol=1e-5)


@pytest.mark.parametrize(('top', 'listed', 'measured'), [(0, 2, set()), (1, 2, set()), (3, 3, {'top_3'})])
def test_an_answer_lists_the_classes_that_are_measured_and_two_at_least(top, listed, measured):
    classes = list('ab') if top == 0 else list('abcd')
    head = heads.single(classes, [1] * len(classes), top=top)
    probability = np.linspace(0.1, 0.4, len(classes))
    answer = head.decode({'probability': probability})
    assert answer['label'] == classes[-1] and len(answer['top']) == listed
    assert answer['top'][1] == {'label': classes[-2], 'probability': round(probability[-2], 6)}
    sums = head.sums(jnp.zeros((2, len(classes))), jnp.array([0, 1]), jnp.ones(2))
    metrics = head.metrics({name: np.asarray(value) for name, value in sums.items()})
    assert {name for name in metrics if name.startswith('top_')} == measured
