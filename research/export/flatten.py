"""Flattens a device function for converters: no calls, no loops of fixed length, constants folded, matrices in 2-D.

    flat = flatten(function, specs)      specs: {name: jax.ShapeDtypeStruct}, whose batch size may be symbolic
    flat.call({'image': array})          as `function`, from {name: array} to {name: array}

Converters read few kinds of operations, and read weights only where these are constants of the right shape. So the
function is traced and interpreted: calls are inlined, scans are written out, operations on constants alone are done
here (slices and transposes of weights, never what enlarges them), and products with a constant matrix become 2-D.
Random draws become inputs: no format but StableHLO has the same random numbers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from research.errors import UserError
from research.export.jaxprs import inner_jaxpr, used_inputs

LONGEST = 512  # turns of a loop that is written out
DRAWS = {  # {name of a function of jax.random: what its input holds}
    '_normal': 'standard normal numbers', '_uniform': 'uniform numbers in [0, 1)', '_gumbel': 'standard Gumbel numbers',
    '_truncated_normal': 'standard normal numbers, drawn again while outside the truncation',
}  # fmt: skip
IDENTITY = ('optimization_barrier', 'sharding_constraint', 'name', 'stop_gradient', 'copy', 'copy_p')
LOOPS = ('while', 'cond', 'scan')
RANDOM = ('random_bits', 'random_fold_in', 'random_seed', 'random_split', 'threefry2x32')

Value = Any  # a tracer, or an array that is known
MOVES: dict[str, Callable[..., Any]] = {  # operations on constants that NumPy does without compiling
    'slice': lambda x, start_indices, limit_indices, strides, **_: x[
        tuple(map(slice, start_indices, limit_indices, strides or [1] * x.ndim))
    ],
    'squeeze': lambda x, dimensions, **_: np.squeeze(x, dimensions),
    'reshape': lambda x, new_sizes, **_: x.reshape(new_sizes),
    'transpose': lambda x, permutation, **_: np.transpose(x, permutation),
    'convert_element_type': lambda x, new_dtype, **_: x.astype(new_dtype),
}


class Flat(NamedTuple):
    """A flat function: its jaxpr takes `inputs` in their order and gives `outputs` in theirs."""

    closed: Any
    inputs: dict[str, jax.ShapeDtypeStruct]
    outputs: tuple[str, ...]
    draws: dict[str, str]  # {input that replaces a random draw: what it holds}

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs for named inputs; others are ignored."""
        values = core.jaxpr_as_fun(self.closed)(*(inputs[name] for name in self.inputs))
        return dict(zip(self.outputs, values, strict=True))


def flatten(function: Callable, specs: Mapping[str, jax.ShapeDtypeStruct]) -> Flat:
    """Flattens `function({name: array}) -> {name: array}`; inputs that no output depends on are left out.

    Raises:
      UserError: if a loop is too long to be written out.
    """
    names = tuple(specs)
    traced, shapes = jax.make_jaxpr(
        lambda *values: dict(sorted(function(dict(zip(names, values, strict=True))).items())), return_shape=True
    )(*specs.values())
    draws: dict[str, tuple[str, Any]] = {}
    jax.make_jaxpr(lambda *values: interpret(traced, values, recorder(draws)))(*specs.values())
    everything = {**specs, **{name: spec for name, (_, spec) in draws.items()}}

    def rewritten(inputs: Mapping[str, Value]) -> tuple:
        def value_of(name: str) -> Value:
            return inputs[name] if name in inputs else jax.lax.full(everything[name].shape, 0, everything[name].dtype)

        remaining = iter(draws)
        return interpret(traced, [value_of(name) for name in names], lambda *_: value_of(next(remaining)))

    used = dict(zip(sorted(everything), used_inputs(jax.make_jaxpr(rewritten)(everything)), strict=True))
    inputs = {name: everything[name] for name in sorted(used) if used[name]}
    closed = without_unused(jax.make_jaxpr(rewritten)(inputs))
    return Flat(closed, inputs, tuple(shapes), {name: draws[name][0] for name in draws if used[name]})


def recorder(draws: dict[str, tuple[str, Any]]) -> Callable[[str, Any], Value]:
    """A function (name of a draw, its shape) -> placeholder, which records the draws in order."""

    def record(name: str, aval: Any) -> Value:
        number = sum(key.startswith('noise') for key in draws)
        draws[f'noise_{number}' if number else 'noise'] = DRAWS[name], jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        return jax.lax.full(aval.shape, 0.5, aval.dtype)

    return record


def interpret(closed: Any, values: Sequence[Value], draw: Callable[[str, Any], Value]) -> tuple:
    """Evaluates a closed jaxpr on tracers and known arrays, flat."""
    return tuple(run(closed.jaxpr, closed.consts, values, draw))


def run(jaxpr: Any, constants: Sequence[Any], values: Sequence[Value], draw: Callable) -> list[Value]:
    """Evaluates a jaxpr; see `flatten`."""
    known: dict[Any, Value] = dict(zip(jaxpr.constvars, constants, strict=True))
    known.update(zip(jaxpr.invars, values, strict=True))

    def read(variable: Any) -> Value:
        return variable.val if isinstance(variable, core.Literal) else known[variable]

    for equation in jaxpr.eqns:
        results = evaluate(equation, [read(variable) for variable in equation.invars], draw)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def evaluate(equation: Any, values: list[Value], draw: Callable) -> Sequence[Value]:
    """The outputs of one equation."""
    name, params = equation.primitive.name, equation.params
    inner = inner_jaxpr(equation)
    if inner:
        if params.get('name') in DRAWS and len(equation.outvars) == 1:
            return [draw(params['name'], equation.outvars[0].aval)]
        return run(*inner, values, draw)
    if name in IDENTITY:
        return values
    if name == 'platform_index':  # code for one platform: what a CPU runs, else what all others run
        return [np.int32(platform_of(params['platforms']))]
    if name == 'cond' and is_known(values[0]):
        branch = params['branches'][min(max(int(values[0]), 0), len(params['branches']) - 1)]
        return run(branch.jaxpr, branch.consts, values[1:], draw)
    if name == 'scan':
        return write_out(params, values, draw)
    if name == 'select_n' and is_known(values[0]) and same_everywhere(values[0]):
        return [values[1 + int(np.asarray(values[0]).flat[0])]]
    if all(map(is_known, values)) and may_fold(equation, values):
        return fold(equation, values)
    if name == 'dot_general':
        product = flat_product(params, *values)
        if product is not None:
            return [product]
    if name == 'scatter' and is_known(values[1]):
        replaced = replaced_slice(params, *values)
        if replaced is not None:
            return [replaced]
    results = equation.primitive.bind(*values, **params)
    return results if equation.primitive.multiple_results else [results]


def platform_of(platforms: Sequence[Any]) -> int:
    """The number of the branch for a CPU among branches for platforms; None marks the branch of all others."""
    named = [number for number, names in enumerate(platforms) if names and 'cpu' in names]
    return named[0] if named else next(number for number, names in enumerate(platforms) if names is None)


def is_known(value: Value) -> bool:
    return not isinstance(value, jax.core.Tracer)  # pyright: ignore[reportAttributeAccessIssue]


def same_everywhere(value: Value) -> bool:
    array = np.asarray(value)
    return array.size > 0 and bool(np.all(array == array.flat[0]))


def size_of(value: Value) -> int:
    return math.prod(np.shape(value))


def may_fold(equation: Any, values: Sequence[Value]) -> bool:
    """Whether known operands give known outputs here: without effects, and no larger than the operands."""
    if not values or equation.effects or equation.primitive.name in (*LOOPS, *RANDOM):
        return False
    shapes = [variable.aval.shape for variable in equation.outvars]
    if not all(isinstance(size, int) for shape in shapes for size in shape):
        return False
    if equation.primitive.name == 'broadcast_in_dim':  # a condition that is the same in all rows chooses once
        condition = np.asarray(values[0]).dtype == bool and same_everywhere(values[0])
        return condition or math.prod(shapes[0]) <= size_of(values[0])
    return sum(map(math.prod, shapes)) <= max(map(size_of, values)) * len(shapes)


def fold(equation: Any, values: Sequence[Value]) -> Sequence[Value]:
    """The outputs of an equation of known operands."""
    name = equation.primitive.name
    if name in MOVES:
        return [MOVES[name](np.asarray(values[0]), **equation.params)]
    with jax.ensure_compile_time_eval():
        results = equation.primitive.bind(*values, **equation.params)
    return results if equation.primitive.multiple_results else [results]


def write_out(params: Mapping[str, Any], values: Sequence[Value], draw: Callable) -> list[Value]:
    """The outputs of a scan, turn by turn.

    Raises:
      UserError: if it has more than `LONGEST` turns.
    """
    length, body = params['length'], params['jaxpr']
    if not isinstance(length, int) or length > LONGEST:
        raise UserError(f'the program has a loop of {length} turns; formats without loops allow {LONGEST}')
    constants = values[: params['num_consts']]
    carry = list(values[params['num_consts'] : params['num_consts'] + params['num_carry']])
    sequences = values[params['num_consts'] + params['num_carry'] :]
    collected = []
    for turn in reversed(range(length)) if params['reverse'] else range(length):
        results = run(body.jaxpr, body.consts, [*constants, *carry, *(at(each, turn) for each in sequences)], draw)
        carry = results[: params['num_carry']]
        collected.append(results[params['num_carry'] :])
    if params['reverse']:
        collected.reverse()
    return [*carry, *map(stacked, zip(*collected, strict=True))]


def at(sequence: Value, turn: int) -> Value:
    return np.asarray(sequence)[turn] if is_known(sequence) else jax.lax.index_in_dim(sequence, turn, 0, keepdims=False)


def stacked(values: Sequence[Value]) -> Value:
    return np.stack(values) if all(map(is_known, values)) else jax.numpy.stack(values)


def flat_product(params: Mapping[str, Any], left: Value, right: Value) -> Value | None:
    """A product without batch dimensions as a product of matrices; None for any other, or if it is one already.

    It sums over trailing axes of `left` and any axes of `right`, which is a matrix or known.
    """
    (left_axes, right_axes), (left_batch, _) = params['dimension_numbers']
    free = left.ndim - len(left_axes)
    in_order = tuple(left_axes) == tuple(range(free, left.ndim))
    is_matrix = left.ndim == 2 and right.ndim == 2 and tuple(right_axes) == (0,)
    if left_batch or is_matrix or not in_order or not free or not (is_known(right) or right.ndim == 2):
        return None
    others = [axis for axis in range(right.ndim) if axis not in right_axes]
    order, outer = (*right_axes, *others), tuple(right.shape[axis] for axis in others)
    summed, columns = math.prod(left.shape[axis] for axis in left_axes), math.prod(outer)
    if is_known(right):
        matrix = np.transpose(np.asarray(right), order).reshape(summed, columns)
    else:
        matrix = jax.lax.transpose(right, order)
    rows = 1
    for size in left.shape[:free]:  # symbolic sizes multiply
        rows = rows * size
    result = jax.lax.dot_general(
        jax.lax.reshape(left, (rows, summed)), matrix, (((1,), (0,)), ((), ())),
        precision=params['precision'], preferred_element_type=params['preferred_element_type'],
    )  # fmt: skip
    return jax.lax.reshape(result, (*left.shape[:free], *outer))


def replaced_slice(params: Mapping[str, Any], operand: Value, indices: Value, updates: Value) -> Value | None:
    """A scatter that replaces one slice at a known place, as a concatenation; None for any other.

    Converters read scatters of whole slices wrongly or not at all.
    """
    numbers, starts = params['dimension_numbers'], np.asarray(indices)
    if len(numbers.update_window_dims) != operand.ndim or starts.ndim != 1 or params['update_jaxpr'] is not None:
        return None
    first = dict(zip(numbers.scatter_dims_to_operand_dims, starts.tolist(), strict=True))
    cut = [axis for axis in range(operand.ndim) if operand.shape[axis] != updates.shape[axis]]
    if any(first[axis] for axis in first if axis not in cut) or len(cut) > 1:
        return None
    if not cut:
        return updates
    axis, start = cut[0], first.get(cut[0], 0)
    end, size = start + updates.shape[axis], operand.shape[axis]
    if not 0 <= start <= end <= size:
        return None
    before, after = (jax.lax.slice_in_dim(operand, *ends, axis=axis) for ends in ((0, start), (end, size)))
    return jax.lax.concatenate([part for part in (before, updates, after) if part.shape[axis]], axis)


def without_unused(closed: Any) -> Any:
    """A flat jaxpr without the equations that no output depends on."""
    needed = {variable for variable in closed.jaxpr.outvars if not isinstance(variable, core.Literal)}
    kept = []
    for equation in reversed(closed.jaxpr.eqns):
        if equation.effects or any(variable in needed for variable in equation.outvars):
            kept.append(equation)
            needed.update(variable for variable in equation.invars if not isinstance(variable, core.Literal))
    return core.ClosedJaxpr(closed.jaxpr.replace(eqns=kept[::-1]), closed.consts)


def unsupported(flat: Flat) -> list[str]:
    """What formats without loops and random numbers cannot hold, for a message; [] if nothing."""
    names = {equation.primitive.name for equation in flat.closed.jaxpr.eqns}
    loops = ['a loop or branch that depends on values'] if names & {*LOOPS} else []
    return loops + (['random numbers'] if names & {*RANDOM} else [])
