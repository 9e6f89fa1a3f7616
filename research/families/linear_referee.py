"""A logistic regression beside a model of tables: what a model must beat to be worth its size."""

import jax.numpy as jnp

from research.core.task import Metric, Task
from research.ops.logistic import Logistic, logistic_scores


def with_linear(task: Task, weights: Logistic) -> Task:
    """Adds the metric `linear_accuracy`: of the logistic regression on the evaluated split."""

    def metric_sums(variables, batch, context):
        scores = logistic_scores(weights, batch['numbers'], batch['categories'])
        right = (jnp.argmax(scores, axis=-1) == batch['label']) * batch['mask']
        return {**task.metric_sums(variables, batch, context), 'linear_right': jnp.sum(right)}

    def metrics(sums):
        share = float(sums['linear_right'] / sums['count'])
        about = 'accuracy of a logistic regression on the same columns and training rows, to compare with'
        accuracy, *others = task.metrics(sums).items()
        return dict([accuracy, ('linear_accuracy', Metric(share, better='', about=about)), *others])

    return task._replace(metric_sums=metric_sums, metrics=metrics)
