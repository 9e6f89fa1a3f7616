"""Logistic regression on encoded tables: the simple model that a trained one is held against."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

MOST_WEIGHTS = 200_000  # features x classes: beyond it a fit takes longer than the training of small tables
DIGITS = 6  # of a stored weight, so that linear-algebra libraries agree


class Logistic(NamedTuple):
    """The weights: scores are numbers @ `numbers` + the sum over columns of `categories[column][category]` + `bias`."""

    numbers: list  # [numbers, classes]
    categories: list  # of each column: [its categories, classes]
    bias: list  # [classes]


def fit_logistic(
    numbers: Float[np.ndarray, 'rows numbers'], categories: Int[np.ndarray, 'rows columns'], sizes: Sequence[int],
    labels: Int[np.ndarray, 'rows'],
) -> Logistic | None:  # fmt: skip
    """Scikit-learn's `LogisticRegression` with its defaults (L2 penalty, C=1), categories as one-hot vectors.

    Args:
      numbers: standardized.
      categories: from 0 to below the size of the column.
      sizes: categories of each column.
      labels: every class from 0 on occurs.

    Returns:
      None where the weights would be more than `MOST_WEIGHTS`.
    """
    classes, width = int(labels.max()) + 1, numbers.shape[1] + sum(sizes)
    if width * classes > MOST_WEIGHTS:
        return None
    from scipy import sparse
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression  # importing it takes a second

    one_hot = [sparse.csr_array(np.eye(size)[categories[:, column]]) for column, size in enumerate(sizes)]
    features = sparse.hstack([sparse.csr_array(np.asarray(numbers, np.float64)), *one_hot], format='csr')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # after 300 iterations it is good enough to compare with
        fitted = LogisticRegression(max_iter=300).fit(features, labels)
    weights, bias = fitted.coef_.T, fitted.intercept_
    if classes == 2:  # scikit-learn has one score for two classes: the log-odds of the second
        weights, bias = np.hstack([np.zeros_like(weights), weights]), np.array([0.0, bias[0]])
    parts = np.split(weights, np.cumsum([numbers.shape[1], *sizes])[:-1])
    first, *others = [np.round(part, DIGITS).tolist() for part in parts]
    return Logistic(first, others, np.round(bias, DIGITS).tolist())


def logistic_scores(
    weights: Logistic, numbers: Float[Array, 'batch numbers'], categories: Int[Array, 'batch columns']
) -> Float[Array, 'batch classes']:
    """Unnormalised log-probabilities."""
    scores = jnp.asarray(weights.bias, jnp.float32)
    if weights.numbers:
        scores = scores + jnp.dot(numbers, jnp.asarray(weights.numbers, jnp.float32), precision='highest')
    for column, table in enumerate(weights.categories):
        scores = scores + jnp.asarray(table, jnp.float32)[categories[:, column]]
    return jnp.broadcast_to(scores, (numbers.shape[0], len(weights.bias)))
