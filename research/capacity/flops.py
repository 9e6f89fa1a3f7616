"""Counts floating-point operations from the jaxpr, before anything compiles.

The compiler's `cost_analysis` counts the body of a scan once, regardless of its length, which is wrong for stacked
layers. Here, loops of known length are multiplied out.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Operations that only move, rename or reinterpret values: 0 FLOPs.
MOVES = frozenset(
    'reshape broadcast_in_dim transpose squeeze expand_dims slice dynamic_slice dynamic_update_slice '
    'concatenate pad rev gather iota convert_element_type reduce_precision bitcast_convert_type copy copy_p '
    'device_put stop_gradient '
    'sharding_constraint reshard split select_n pvary pcast all_gather all_to_all ppermute axis_index '
    'random_seed random_wrap random_unwrap random_fold_in random_split random_clone create_token '
    'optimization_barrier layout_constraint name full empty get swap debug_callback broadcast mesh_cast '
    'real imag scatter zeros_like'.split()
)
# One FLOP per input element.
REDUCTIONS = frozenset(
    'reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin reduce '
    'cumsum cumprod cummax cummin cumlogsumexp select_and_scatter_add sort top_k '
    'psum psum_invariant pmax pmin reduce_scatter'.split()
)
# No simple formula: one FLOP per output element is a lower bound, and a note is added.
LOWER_BOUND = frozenset(
    'fft cholesky eigh svd lu qr householder_product triangular_solve custom_linear_solve eig schur '
    'tridiagonal pure_callback io_callback ffi_call custom_call custom_partitioning tridiagonal_solve'.split()
)


def count_flops(function: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """Counts the floating-point operations of `function(*args)` over all devices, without running it.

    A multiply-add counts as two. Matrix products and convolutions are exact: a convolution counts kernel positions at
    actual input elements, excluding padding and the holes of a dilated input, so a convolution and its two gradients
    have equal counts. An elementwise operation counts one per output element and a reduction one per input element. A
    scan is multiplied by its length; a conditional counts as its most expensive branch.

    Args:
      function: any traceable function, which may call jitted ones.
      *args: pytrees of arrays or `jax.ShapeDtypeStruct`.

    Returns:
      {'total', 'matrix' (only products and convolutions), 'operations': {primitive: count}, largest first,
      'notes': sentences on inexact counts}.
    """
    operations, notes = _count(jax.make_jaxpr(function)(*args).jaxpr)
    return {
        'total': sum(operations.values()),
        'matrix': sum(operations[name] for name in MATRIX),
        'operations': {name: count for name, count in operations.most_common() if count},
        'notes': sorted(notes),
    }


def _count(jaxpr: Any) -> tuple[Counter, set[str]]:
    """Counts the operations of an open jaxpr by primitive; also returns notes."""
    operations, notes = Counter(), set()
    for equation in jaxpr.eqns:
        equation_operations, equation_notes = _equation(equation)
        operations.update(equation_operations)
        notes |= equation_notes
    return operations, notes


def _equation(equation: Any) -> tuple[Counter, set[str]]:
    """Counts the operations of one equation by primitive; also returns notes."""
    name, params = equation.primitive.name, equation.params
    if name in MATRIX:
        return Counter({name: MATRIX[name](equation)}), set()
    if name == 'cond':
        branches = [_count(_open(branch)) for branch in params['branches']]
        notes = set().union(*(note for _, note in branches))
        if len({sum(operations.values()) for operations, _ in branches}) > 1:
            notes.add('a conditional counts as its most expensive branch')
        return max((operations for operations, _ in branches), key=lambda counts: sum(counts.values())), notes
    jaxprs = list(_inner(params))
    if jaxprs:
        operations, notes = Counter(), set()
        for jaxpr in jaxprs:
            inner_operations, inner_notes = _count(jaxpr)
            operations.update(inner_operations)
            notes |= inner_notes
        if name == 'while':
            notes.add('a while loop counts one iteration, as its length is only known at run time')
        times = _times(name, params)
        return Counter({key: count * times for key, count in operations.items()}), notes
    return Counter({name: _elementwise(name, equation)}), _remark(name)


def _times(name: str, params: dict[str, Any]) -> int:
    """Number of executions of an equation's body, over all devices."""
    if name == 'scan':
        return params['length']
    if name == 'shard_map':  # inner shapes are per device
        axes = params.get('manual_axes') or params['mesh'].axis_names
        return math.prod(params['mesh'].shape[axis] for axis in axes)
    if name == 'pallas_call':
        return math.prod(size for size in params['grid_mapping'].grid if isinstance(size, int))
    return 1


def _open(jaxpr: Any) -> Any:
    return getattr(jaxpr, 'jaxpr', jaxpr)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """Yields the jaxprs that an equation executes; rules of custom derivatives are thunks, not jaxprs."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(_open(item), 'eqns'):
                yield _open(item)


def _remark(name: str) -> set[str]:
    if name in LOWER_BOUND or 'dot_product_attention' in name:
        return {f'{name} counts one per output element: a lower bound'}
    return set()


def _size(variable: Any) -> int:
    return math.prod(getattr(variable.aval, 'shape', ()))


def _elementwise(name: str, equation: Any) -> int:
    """Counts the operations of an equation without inner jaxprs."""
    if name in MOVES:
        return 0
    if name in REDUCTIONS:
        return max((_size(variable) for variable in equation.invars), default=0)
    if name.startswith('reduce_window'):
        return sum(map(_size, equation.outvars)) * math.prod(equation.params.get('window_dimensions', ()))
    if name.startswith('scatter'):  # operand, indices, updates
        return _size(equation.invars[2])
    return sum(map(_size, equation.outvars))


def _dot_general(equation: Any) -> int:
    (contracted, _), _ = equation.params['dimension_numbers']
    shape = equation.invars[0].aval.shape
    return 2 * _size(equation.outvars[0]) * math.prod(shape[axis] for axis in contracted)


def _ragged_dot(equation: Any) -> int:
    """Counts [m, k] x [groups, k, n]: each row is multiplied by the matrix of one group."""
    rows, inner = equation.invars[0].aval.shape
    width = equation.invars[1].aval.shape[-1]
    return 2 * rows * inner * width


def _convolution(equation: Any) -> int:
    params = equation.params
    inputs, kernel = (variable.aval.shape for variable in equation.invars[:2])
    numbers = params['dimension_numbers']
    output = equation.outvars[0].aval.shape
    batch, features = (output[axis] for axis in numbers.out_spec[:2])
    pairs = 1
    for axis in range(len(params['window_strides'])):
        pairs *= _pairs(
            inputs[numbers.lhs_spec[2 + axis]],
            kernel[numbers.rhs_spec[2 + axis]],
            output[numbers.out_spec[2 + axis]],
            params['window_strides'][axis],
            params['padding'][axis][0],
            params['lhs_dilation'][axis],
            params['rhs_dilation'][axis],
        )
    return 2 * batch * features * kernel[numbers.rhs_spec[1]] * pairs


def _pairs(
    inputs: int, kernel: int, outputs: int, stride: int, padding: int, holes: int, dilation: int
) -> int:
    """Number of (output, kernel) positions along one axis that read an actual input element."""
    # Position in the dilated input: output * stride + kernel * dilation - padding. Loops over the shorter side.
    long, short = np.arange(outputs) * stride - padding, range(0, kernel * dilation, dilation)
    if kernel > outputs:
        long, short = np.arange(kernel) * dilation - padding, range(0, outputs * stride, stride)
    last = (inputs - 1) * holes
    total = 0
    for start in short:
        position = long + start
        total += int(np.count_nonzero((position >= 0) & (position <= last) & (position % holes == 0)))
    return total


MATRIX = {
    'dot_general': _dot_general,
    'conv_general_dilated': _convolution,
    'ragged_dot': _ragged_dot,
    'ragged_dot_general': _ragged_dot,
}


def matrix_rate(size: int = 1024) -> float:
    """Measures the FLOP per second of a float32 matrix product on the first device, best of three."""
    square = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(square, square).block_until_ready()
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        product(square, square).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def expected_seconds(flops: float, devices: int, platform: str) -> float:
    """Estimates the time of one step, at a third of the rate of a matrix product.

    Small models on a CPU and large models on accelerators typically reach a third. Fake CPU devices share one CPU.
    """
    return 3 * flops / matrix_rate() / (1 if platform == 'cpu' else devices)
