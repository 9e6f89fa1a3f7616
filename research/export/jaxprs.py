"""Reading jaxprs: calls, and which inputs the outputs depend on."""

from collections.abc import Sequence
from typing import Any

from jax.extend import core

# Parameters under which a call keeps the jaxpr that it runs on all its operands.
INNER = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')
CALLS = (
    'jit', 'pjit', 'closed_call', 'core_call', 'custom_jvp_call', 'custom_vjp_call', 'custom_vjp_call_jaxpr', 'remat',
    'remat2', 'checkpoint',
)  # fmt: skip


def inner_jaxpr(equation: Any) -> tuple[Any, Sequence[Any]] | None:
    """(jaxpr, constants) of an equation that only calls another function; None for any other."""
    if equation.primitive.name not in CALLS:
        return None
    inner = next(equation.params[name] for name in INNER if name in equation.params)
    return (inner.jaxpr, inner.consts) if hasattr(inner, 'consts') else (inner, ())


def used_inputs(closed: Any) -> list[bool]:
    """Whether the outputs depend on each input; a loop depends on all its operands."""
    return used_by(closed.jaxpr, [True] * len(closed.jaxpr.outvars))


def used_by(jaxpr: Any, wanted: Sequence[bool]) -> list[bool]:
    """Whether the wanted outputs of a jaxpr depend on each of its inputs."""
    needed = {
        variable for variable, want in zip(jaxpr.outvars, wanted, strict=True)
        if want and not isinstance(variable, core.Literal)
    }  # fmt: skip
    for equation in reversed(jaxpr.eqns):
        outputs = [variable in needed for variable in equation.outvars]
        if not any(outputs) and not equation.effects:
            continue
        inner = inner_jaxpr(equation)
        used = used_by(inner[0], outputs) if inner else [True] * len(equation.invars)
        needed.update(
            variable for variable, use in zip(equation.invars, used, strict=True)
            if use and not isinstance(variable, core.Literal)
        )  # fmt: skip
    return [variable in needed for variable in jaxpr.invars]
