"""How a run ended, as values."""

import enum
from typing import Any, NamedTuple


class Stop(enum.Enum):
    """Why a run stopped."""

    DONE = 'done'  # all steps
    ALREADY_DONE = 'already done'  # it was finished before this start
    PATIENCE = 'patience'  # no better metric in `train.patience` evaluations
    SIGNAL = 'signal'  # saved, but not done: the same command goes on


class Summary(NamedTuple):
    """What a run returns."""

    step: int
    stop: Stop
    signal: int = 0  # its number, where a signal stopped the run
    metrics: dict[str, Any] = {}  # {split: stored entry}, see `core.metrics.record`
    failures: tuple[str, ...] = ()  # 'split/metric' of each value outside its expected range
    report: str = ''  # the path of the report
    seconds: float = 0.0
    waited: float = 0.0  # share of the training time spent waiting for data
