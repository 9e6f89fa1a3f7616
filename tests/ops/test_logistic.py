"""The logistic regression that a table's model is compared with: scikit-learn's own answers are the reference."""

import json

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from research.ops import logistic

SIZES = (3, 4)


@pytest.mark.parametrize(('classes', 'sizes', 'width'), [(2, SIZES, 2), (4, SIZES, 2), (3, (), 2), (3, SIZES, 0)])
def test_scores_are_those_of_scikit_learn(classes, sizes, width):
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(60, width)).astype(np.float32)
    categories = np.stack([rng.integers(size, size=60) for size in sizes], 1) if sizes else np.zeros((60, 0), int)
    labels = rng.permutation(np.arange(60) % classes)
    weights = logistic.fit_logistic(numbers, categories, sizes, labels)
    assert weights == logistic.Logistic(**json.loads(json.dumps(weights._asdict())))
    one_hot = [(categories[:, [column]] == np.arange(size)) for column, size in enumerate(sizes)]
    features = np.hstack([numbers, *one_hot]).astype(float)
    expected = LogisticRegression(max_iter=300).fit(features, labels).predict_proba(features)
    scores = logistic.logistic_scores(weights, numbers, categories)
    np.testing.assert_allclose(jax.nn.softmax(scores), expected, atol=1e-3)


def test_too_many_weights_are_not_fitted(monkeypatch):
    monkeypatch.setattr(logistic, 'MOST_WEIGHTS', 9)
    numbers, none = np.eye(5, dtype=np.float32), np.zeros((5, 0), np.int32)
    assert logistic.fit_logistic(numbers, none, (), np.array([0, 1, 0, 1, 0])) is None
