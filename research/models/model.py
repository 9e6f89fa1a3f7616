"""A model as pure functions of `Variables`, and the defaults of its settings.

`research/models/<kind>.py` builds models for one kind of input from `config.model` and the sizes of the data. Each
module has `SETTINGS`, {model name: {setting: its type, range and default}}: every setting that a config may give.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import PRNGKeyArray

from research.core.task import Batch, Context, Variables
from research.errors import Setting, UserError, in_section, settings_of
from research.nn.apply import initialize, run_group

GROUP = 'model'  # the parameter group of a task that has one model


class Model(NamedTuple):
    """A model as a task uses it; `module` is the Flax module, for code that needs its internals."""

    init: Callable[[PRNGKeyArray], Variables]
    apply: Callable[[Variables, Batch, Context], tuple[Any, dict[str, Any]]]  # -> (scores, changed collections)
    load: Callable[[], Variables] | None = None  # pretrained weights, as `Task.load`
    module: Any = None


def model_of(
    module: Any, inputs: Callable[[Batch], tuple], blank: Batch, load: Callable | None = None, group: str = GROUP
) -> Model:
    """Builds the model of one module.

    Args:
      module: a module of `research/nn`.
      inputs: (batch) -> arguments of the module.
      blank: a batch of one row with the fields that `inputs` reads, used to initialize the parameters.
      load: see `Model`.
      group: name of the parameter group.
    """

    def init(key: PRNGKeyArray) -> Variables:
        with in_section('model'):
            params, collections = initialize(module, key, *inputs(blank))
        return Variables({group: params}, {group: collections} if collections else {})

    def apply(variables: Variables, batch: Batch, context: Context) -> tuple[Any, dict[str, Any]]:
        return run_group(module, variables, group, context, *inputs(batch))

    return Model(init, apply, load, module)


def builder_outside(name: str, function: str) -> Callable[..., Any] | None:
    """Returns the function `function` of the module `name` if `name` is a dotted path, and None otherwise.

    Raises:
      UserError: if the module cannot be imported or lacks the function.
    """
    if '.' not in name:
        return None
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise UserError(f'config.model.name={name!r}: its module cannot be imported ({error})') from error
    if not hasattr(module, function):
        raise UserError(f'config.model.name={name!r}: the module has no function {function}, which this task needs')
    return getattr(module, function)


def defaults_of(kind: Any, *without: str, **changed: Any) -> dict[str, Setting]:
    """Returns the parameters of `kind` that have a default, except `without`, which the task provides.

    `changed` holds other defaults.
    """
    return {
        name: setting._replace(default=changed.get(name, setting.default))
        for name, setting in settings_of(kind, without).items()
        if setting.has_default
    }
