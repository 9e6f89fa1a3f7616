"""Classification metrics against scikit-learn, whatever the batches and the padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from research.ops.classification import CALIBRATION_BINS, classification_metrics, classification_sums


def example(count, classes, seed, sharpness=2.0):
    """Returns logits that are right more often than not, and labels; not every class need occur."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(max(1, classes - 1), size=count)
    logits = rng.normal(size=(count, classes)) + sharpness * np.eye(classes)[labels] * rng.random((count, 1))
    return np.float32(logits), np.int32(labels)


sums_of = jax.jit(classification_sums, static_argnums=3)


def metrics_of(logits, labels, train_counts, top=0):
    """Returns the metrics of one batch, padded to whole hundreds so that few shapes compile."""
    padding = -len(labels) % 100
    mask = np.float32(np.arange(len(labels) + padding) < len(labels))
    logits, labels = np.pad(logits, ((0, padding), (0, 0))), np.pad(labels, (0, padding))
    return classification_metrics(jax.device_get(sums_of(logits, labels, mask, top)), train_counts, top)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 40), st.sampled_from([2, 5]), st.integers(0, 10_000))
def test_metrics_equal_scikit_learn(count, classes, seed):
    logits, labels = example(count, classes, seed)
    metrics = metrics_of(logits, labels, np.ones(classes), top=2)
    predicted = logits.argmax(-1)
    assert metrics['accuracy'].value == pytest.approx(reference.accuracy_score(labels, predicted))
    everything = range(classes)
    np.testing.assert_array_equal(
        metrics['confusion'].value, reference.confusion_matrix(labels, predicted, labels=everything)
    )
    for name, function in (
        ('precision', reference.precision_score), ('recall', reference.recall_score), ('f1', reference.f1_score),
    ):  # fmt: skip
        macro = function(labels, predicted, average='macro', zero_division=0)
        each = function(labels, predicted, average=None, labels=everything, zero_division=0)
        assert metrics[name].value == pytest.approx(macro)
        np.testing.assert_allclose(metrics[f'{name}_per_class'].value, each)
    probability = np.asarray(jax.nn.softmax(logits))
    assert metrics['loss'].value == pytest.approx(
        reference.log_loss(labels, probability, labels=everything), rel=1e-4, abs=1e-5
    )
    if classes > 2:
        top = reference.top_k_accuracy_score(labels, logits, k=2, labels=everything)
        assert metrics['top_2'].value == pytest.approx(top)


def test_calibration_error_equals_a_loop_over_bins():
    logits, labels = example(500, 4, 3, sharpness=6.0)
    probability = np.asarray(jax.nn.softmax(logits), np.float64)
    confidence, right = probability.max(-1), probability.argmax(-1) == labels
    expected = 0.0
    for low in np.arange(CALIBRATION_BINS) / CALIBRATION_BINS:
        inside = (confidence > low) & (confidence <= low + 1 / CALIBRATION_BINS)
        if inside.any():
            expected += abs(right[inside].mean() - confidence[inside].mean()) * inside.mean()
    value = metrics_of(logits, labels, np.ones(4))['calibration_error'].value
    assert value == pytest.approx(expected, abs=1e-4)


def test_a_classifier_that_is_always_sure_and_right_is_calibrated():
    labels = np.arange(6, dtype=np.int32) % 3
    metrics = metrics_of(np.float32(np.eye(3)[labels] * 100), labels, np.ones(3))
    assert metrics['calibration_error'].value == pytest.approx(0, abs=1e-6)
    wrong = metrics_of(np.float32(np.eye(3)[(labels + 1) % 3] * 100), labels, np.ones(3))
    assert wrong['calibration_error'].value == pytest.approx(1, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 30), st.sampled_from([3, 8]), st.integers(0, 1000))
def test_batches_and_padding_do_not_matter(count, size, seed):
    logits, labels = example(count, 4, seed)
    whole = metrics_of(logits, labels, np.ones(4), top=2)
    totals = {}
    for start in range(0, count, size):
        padding = size - len(labels[start : start + size])
        # Padding may hold anything at all, even what is not a number.
        part = np.concatenate([logits[start : start + size], np.full((padding, 4), np.nan, np.float32)])
        names = np.concatenate([labels[start : start + size], np.full(padding, 77, np.int32)])
        mask = np.float32(np.arange(size) < size - padding)
        for name, value in sums_of(part, np.int32(names), mask, 2).items():
            totals[name] = totals.get(name, 0) + np.asarray(value, np.float64)
    for name, metric in classification_metrics(totals, np.ones(4), 2).items():
        np.testing.assert_allclose(metric.value, whole[name].value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_ties_rank_by_class_and_not_a_number_is_never_a_hit():
    same, labels, mask = jnp.zeros((4, 4)), jnp.arange(4), jnp.ones(4)
    assert classification_sums(same, labels, mask, 2)['top'] == 2  # not 4: a constant knows nothing
    assert (
        classification_sums(same, labels, mask, 1)['top']
        == classification_sums(same, labels, mask)['confusion'][0, 0]
    )
    assert classification_sums(same * np.nan, labels, mask, 2)['top'] == 0


def test_baselines_are_those_of_the_commonest_training_class():
    logits, labels = example(200, 4, 5)
    counts = np.array([10, 50, 30, 0])
    metrics = metrics_of(logits, labels, counts, top=2)
    constant = np.full(200, 1)
    assert metrics['accuracy'].baseline == pytest.approx((labels == 1).mean())
    assert metrics['top_2'].baseline == pytest.approx(np.isin(labels, (1, 2)).mean())
    assert metrics['f1'].baseline == pytest.approx(reference.f1_score(labels, constant, average='macro'))
    prior = (counts + 1) / (counts + 1).sum()
    assert metrics['loss'].baseline == pytest.approx(-np.log(prior[labels]).mean())
    assert 'commonest' in metrics['accuracy'].baseline_about
