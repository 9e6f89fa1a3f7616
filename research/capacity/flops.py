"""Counts floating-point operations from the jaxpr, before anything compiles.

The compiler's own `cost_analysis` counts the body of a scan once, whatever its length, so it cannot be used
for stacked layers. Here every loop whose length is known is multiplied out.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Operations that only move, name or reinterpret values.
MOVES = frozenset(
    'reshape broadcast_in_dim transpose squeeze expand_dims slice dynamic_slice dynamic_update_slice '
    'concatenate pad rev gather iota convert_element_type reduce_precision bitcast_convert_type copy copy_p '
    'device_put stop_gradient '
    'sharding_constraint reshard split select_n pvary pcast all_gather all_to_all ppermute axis_index '
    'random_seed random_wrap random_unwrap random_fold_in random_split random_clone create_token '
    'optimization_barrier layout_constraint name full empty get swap debug_callback broadcast mesh_cast '
    'real imag scatter zeros_like'.split()
)
# One operation for every element read.
REDUCTIONS = frozenset(
    'reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin reduce '
    'cumsum cumprod cummax cummin cumlogsumexp select_and_scatter_add sort top_k '
    'psum psum_invariant pmax pmin reduce_scatter'.split()
)
# Their cost has no simple form: one per output element is a lower bound, and the result says so.
LOWER_BOUND = frozenset(
    'fft cholesky eigh svd lu qr householder_product triangular_solve custom_linear_solve eig schur '
    'tridiagonal pure_callback io_callback ffi_call custom_call custom_partitioning tridiagonal_solve'.split()
)


def count_flops(function: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """Counts the floating-point operations of `function(*args)` over all devices, without running it.

    A multiply-add counts as two. Matrix products and convolutions are exact: a convolution counts the kernel
    positions that meet a real input element, not padding and not the holes of a dilated input, so a
    convolution and its two gradients cost the same. An elementwise operation counts one per output element
    and a reduction one per input element. A scan counts its length, a conditional its dearest branch.

    Args:
      function: any traceable function; jitted ones are opened.
      *args: trees of arrays or `jax.ShapeDtypeStruct`.

    Returns:
      {'total', 'matrix' (products and convolutions alone), 'operations': {primitive: count}, dearest first,
      'notes': sentences on what could not be counted exactly}.
    """
    operations, notes = _count(jax.make_jaxpr(function)(*args).jaxpr)
    return {
        'total': sum(operations.values()),
        'matrix': sum(operations[name] for name in MATRIX),
        'operations': {name: count for name, count in operations.most_common() if count},
        'notes': sorted(notes),
    }


def _count(jaxpr: Any) -> tuple[Counter, set[str]]:
    """Returns the operations of an open jaxpr by primitive, and notes."""
    operations, notes = Counter(), set()
    for equation in jaxpr.eqns:
        inner, more = _equation(equation)
        operations.update(inner)
        notes |= more
    return operations, notes


def _equation(equation: Any) -> tuple[Counter, set[str]]:
    """Returns the operations of one equation by primitive, and notes."""
    name, params = equation.primitive.name, equation.params
    if name in MATRIX:
        return Counter({name: MATRIX[name](equation)}), set()
    if name == 'cond':
        branches = [_count(_open(branch)) for branch in params['branches']]
        notes = set().union(*(note for _, note in branches))
        if len({sum(operations.values()) for operations, _ in branches}) > 1:
            notes.add('a conditional counts its dearest branch')
        return max((operations for operations, _ in branches), key=lambda each: sum(each.values())), notes
    inner = list(_inner(params))
    if inner:
        operations, notes = Counter(), set()
        for jaxpr in inner:
            more, said = _count(jaxpr)
            operations.update(more)
            notes |= said
        if name == 'while':
            notes.add('a while loop counts one turn: its length is known only when it runs')
        times = _times(name, params)
        return Counter({key: count * times for key, count in operations.items()}), notes
    return Counter({name: _elementwise(name, equation)}), _remark(name)


def _times(name: str, params: dict[str, Any]) -> int:
    """Returns how often the body of an equation runs, over all devices."""
    if name == 'scan':
        return params['length']
    if name == 'shard_map':  # shapes inside are those of one device
        axes = params.get('manual_axes') or params['mesh'].axis_names
        return math.prod(params['mesh'].shape[axis] for axis in axes)
    if name == 'pallas_call':
        return math.prod(size for size in params['grid_mapping'].grid if isinstance(size, int))
    return 1


def _open(jaxpr: Any) -> Any:
    """Returns the jaxpr inside a closed one."""
    return getattr(jaxpr, 'jaxpr', jaxpr)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """Yields the jaxprs that an equation runs; rules of custom derivatives are thunks there, not jaxprs."""
    for value in params.values():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(_open(each), 'eqns'):
                yield _open(each)


def _remark(name: str) -> set[str]:
    if name in LOWER_BOUND or 'dot_product_attention' in name:
        return {f'{name} counts one per output element: a lower bound'}
    return set()


def _size(variable: Any) -> int:
    return math.prod(getattr(variable.aval, 'shape', ()))


def _elementwise(name: str, equation: Any) -> int:
    """Returns the operations of an equation without a jaxpr of its own."""
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
    """Counts [m, k] x [groups, k, n]: every row meets the matrix of one group."""
    (rows, inner), width = equation.invars[0].aval.shape, equation.invars[1].aval.shape[-1]
    return 2 * rows * inner * width


def _convolution(equation: Any) -> int:
    params, (inputs, kernel) = equation.params, (variable.aval.shape for variable in equation.invars[:2])
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
    """Returns how many (output, kernel) positions along one axis meet a real input element."""
    # Position in the dilated input: output * stride + kernel * dilation - padding. The shorter side loops.
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
    """Returns the FLOP per second of a float32 matrix product on the first device, the best of three, measured now."""
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
    """Returns a rough time of one step before any was made, at a third of the rate of a matrix product.

    A third is what small models reach here and large ones on accelerators; fake CPU devices share one CPU.
    """
    return 3 * flops / matrix_rate() / (1 if platform == 'cpu' else devices)
