"""How a run ended, as values."""

import enum
from typing import Any, NamedTuple


class Stop(enum.Enum):
    """Why a run stopped."""

    DONE = 'done'  # all steps made
    ALREADY_DONE = 'already done'  # finished before this start
    PATIENCE = 'patience'  # no better metric in `train.patience` evaluations
    SIGNAL = 'signal'  # saved but not done: the same command resumes


class Summary(NamedTuple):
    """The result of a run."""

    step: int
    stop: Stop
    signal: int = 0  # number of the signal that stopped the run, else 0
    metrics: dict[str, Any] = {}  # {split: stored entry}, see `core.metrics.record`
    failures: tuple[str, ...] = ()  # 'split/metric' of each value outside its expected range
    report: str = ''  # the path of the report
    seconds: float = 0.0
    waited: float = 0.0  # fraction of the training time spent waiting for data
