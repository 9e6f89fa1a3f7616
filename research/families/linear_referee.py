"""A logistic regression as a reference: a larger model of a table should be more accurate."""

import jax.numpy as jnp

from research.core.task import Metric, Task
from research.ops.logistic import Logistic, logistic_scores


def with_linear(task: Task, weights: Logistic) -> Task:
    """Adds the metric `linear_accuracy`: the accuracy of a logistic regression on the evaluated split."""

    def metric_sums(variables, batch, context):
        scores = logistic_scores(weights, batch['numbers'], batch['categories'])
        right = (jnp.argmax(scores, axis=-1) == batch['label']) * batch['mask']
        return {**task.metric_sums(variables, batch, context), 'linear_right': jnp.sum(right)}

    def metrics(sums):
        share = float(sums['linear_right'] / sums['count'])
        about = 'accuracy of a logistic regression on the same columns and training rows, for comparison'
        accuracy, *others = task.metrics(sums).items()
        return dict([accuracy, ('linear_accuracy', Metric(share, better='', about=about)), *others])

    return task._replace(metric_sums=metric_sums, metrics=metrics)
