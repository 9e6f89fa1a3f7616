"""Stored metrics as text: verdicts against the baseline, for rows of this and of earlier versions."""

import math

import pytest

from research.core.metrics import metrics_text, record, verdict
from research.core.task import Metric

ABOUT = 'always the commonest class'


@pytest.mark.parametrize(('value', 'better', 'judged', 'printed'), [
    (0.5, 'higher', 'better than its baseline', 'baseline 0.1'),
    (0.05, 'higher', 'WORSE than its baseline: no useful learning', f'WORSE than baseline 0.1 ({ABOUT}): no useful'),
    (0.5, 'lower', 'WORSE than its baseline: no useful learning', f'WORSE than baseline 0.1 ({ABOUT}): no useful'),
    (0.1, 'lower', 'no better than its baseline', f'no better than baseline 0.1 ({ABOUT})'),
    (math.nan, 'higher', 'not a number', 'WORSE than baseline'),
    (0.05, '', '', 'baseline 0.1'),
])  # fmt: skip
def test_a_metric_is_compared_with_its_baseline(value, better, judged, printed):
    metric = Metric(value, 0.1, better, baseline_about=ABOUT)
    assert verdict(metric) == judged
    entry = record({'accuracy': metric}, {}, {'split': 'test', 'examples': 10}, 3)
    entry['metrics']['accuracy']['verdict'] = f'WORSE than {ABOUT}'  # as runs of version 0.1 stored it
    lines = metrics_text(entry).split('\n')
    assert lines[0] == 'test: 10 examples, step 3' and printed in lines[1] and lines[1].count('baseline') == 1
