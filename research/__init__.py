"""Tessera: train, measure, fine-tune, plan and predict with models of many kinds, from one functional codebase.

    import research
    run = research.run('configs/digits.py', 'runs/digits')
    model = run.model()                                     # or research.load('runs/digits')
    model('a_digit.png')
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research.api import Run as Run
    from research.api import load as load
    from research.api import read as read
    from research.api import run as run
    from research.core.config import Config as Config
    from research.core.config import base as base
    from research.core.evaluate import Evaluation as Evaluation
    from research.core.outcome import Stop as Stop
    from research.core.task import Aux as Aux
    from research.core.task import Context as Context
    from research.core.task import Input as Input
    from research.core.task import Metric as Metric
    from research.core.task import Task as Task
    from research.core.task import Variables as Variables
    from research.errors import UserError as UserError
    from research.inference.model import Model as Model

WHERE = {  # imported on first use, so that `import research.errors` stays cheap
    'Run': 'api', 'load': 'api', 'read': 'api', 'run': 'api',
    'Config': 'core.config', 'base': 'core.config', 'Evaluation': 'core.evaluate', 'Model': 'inference.model',
    'Stop': 'core.outcome', 'Aux': 'core.task', 'Context': 'core.task', 'Input': 'core.task', 'Metric': 'core.task',
    'Task': 'core.task', 'Variables': 'core.task', 'UserError': 'errors',
}  # fmt: skip
__all__ = [
    'Aux', 'Config', 'Context', 'Evaluation', 'Input', 'Metric', 'Model', 'Run', 'Stop', 'Task', 'UserError',
    'Variables', 'base', 'load', 'read', 'run',
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in WHERE:
        return getattr(importlib.import_module(f'research.{WHERE[name]}'), name)
    if name == '__version__':
        try:
            return importlib.metadata.version('tessera')
        except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
            return '0+unknown'
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, '__version__'])
