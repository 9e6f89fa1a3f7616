"""A model as pure functions of a task's variables, and the defaults of its settings.

`research/models/<kind>.py` builds models for one kind of input from the section `config.model` and what the task knows
of its data. Each module has `SETTINGS`, {name of a model: {setting: default}}: all that a config may set for it.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import PRNGKeyArray

from research.core.task import Batch, Context, Variables
from research.errors import UserError
from research.nn.apply import initialize, run_group

GROUP = 'model'  # the parameter group of a task that has one model


class Model(NamedTuple):
    """What a task needs of a model; `module` is for those that look inside (features before the head)."""

    init: Callable[[PRNGKeyArray], Variables]
    apply: Callable[[Variables, Batch, Context], tuple[Any, dict[str, Any]]]  # -> (scores, changed collections)
    load: Callable[[], Variables] | None = None  # pretrained weights, as `Task.load`
    module: Any = None


def model_of(
    module: Any, inputs: Callable[[Batch], tuple], blank: Batch, load: Callable | None = None, group: str = GROUP
) -> Model:
    """The model of one module whose parameters are the group `group`.

    Args:
      module: of `research/nn`.
      inputs: from a batch to the arguments of the module.
      blank: a batch of one row with the fields that `inputs` reads; the shapes of parameters follow from it.
      load: as of `Model`.
      group: of parameters.
    """

    def init(key: PRNGKeyArray) -> Variables:
        params, collections = initialize(module, key, *inputs(blank))
        return Variables({group: params}, {group: collections} if collections else {})

    def apply(variables: Variables, batch: Batch, context: Context) -> tuple[Any, dict[str, Any]]:
        return run_group(module, variables, group, context, *inputs(batch))

    return Model(init, apply, load, module)


def builder_outside(name: str, function: str) -> Callable[..., Model] | None:
    """The builder of a model that a dotted path names: the function of this name in that module; None for other names.

    Raises:
      UserError: for a module that cannot be imported or lacks the function.
    """
    if '.' not in name:
        return None
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise UserError(f'config.model.name={name!r}: its module cannot be imported ({error})') from error
    if not hasattr(module, function):
        raise UserError(f'config.model.name={name!r}: the module has no function {function}, as this task needs')
    return getattr(module, function)


def defaults_of(kind: Any, *without: str) -> dict[str, Any]:
    """The settings of a module or a settings type that have a default, but those in `without`, which the task gives."""
    parameters = inspect.signature(kind).parameters
    hidden = {*without, *({'parent', 'name'} if 'parent' in parameters else ())}  # flax adds those two
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in hidden and parameter.default is not parameter.empty
    }
