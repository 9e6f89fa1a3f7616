"""Ahead-of-time compilation for absent devices: TPU topologies by libtpu, others on fake CPU devices.

Nothing is allocated: the program is compiled for shapes with shardings. Set `jax.config.jax_platforms` to 'cpu' before
the first operation, so that libtpu only compiles and does not probe for chips.
"""

import importlib.metadata
import importlib.util
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from research.capacity.chips import Topology
from research.core.runspec import RunSpec
from research.core.task import Tree
from research.errors import UserError
from research.memory import is_out_of_memory

MAX_FAKE_DEVICES = 8192  # each takes threads and memory of this machine
UNIT_BYTES = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


class CompileTarget(NamedTuple):
    """The devices that a plan is compiled for, and the compiler."""

    topology: Topology
    devices: Sequence[Any]
    compiler: str  # 'libtpu 0.0.52', or 'fake CPU devices'
    exact: bool  # True: memory is exact for the chip; False: an estimate


class CompiledStep(NamedTuple):
    """A compiled step, or the memory that an out-of-memory compilation reports."""

    memory: dict[str, float]  # bytes per device by part, see `memory_of`; out of memory: only 'total'
    text: str  # HLO; '' if unreadable
    seconds: float
    usable: float  # out of memory: bytes available to a program, as reported by the compiler; else 0


def has_libtpu() -> bool:
    """Whether the TPU compiler is installed."""
    return importlib.util.find_spec('libtpu') is not None or bool(os.environ.get('TPU_LIBRARY_PATH'))


def find_target(topology: Topology, compiler: str = 'auto') -> CompileTarget:
    """Selects the devices to compile for.

    Args:
      topology: TPU slices are compiled by libtpu if it is installed.
      compiler: 'auto', 'tpu' (fail without libtpu) or 'cpu' (always fake devices).

    Raises:
      UserError: if libtpu is required but missing or in use, or does not support the topology.
    """
    if compiler == 'tpu' and topology.chip.kind != 'tpu':
        raise UserError(f'--compiler=tpu: {topology.text} is not a TPU')
    if compiler == 'tpu' and not has_libtpu():
        raise UserError("--compiler=tpu: libtpu is not installed: pip install '.[plan]' (Linux)")
    if topology.chip.kind == 'tpu' and compiler != 'cpu' and has_libtpu():
        return CompileTarget(topology, tpu_devices(topology), f'libtpu {libtpu_version()}', True)
    return CompileTarget(topology, fake_devices(topology.count), 'fake CPU devices', False)


def libtpu_version() -> str:
    """Version of the installed wheel; '' if libtpu was not installed as a wheel."""
    try:
        return importlib.metadata.version('libtpu')
    except importlib.metadata.PackageNotFoundError:
        return ''


def tpu_devices(topology: Topology) -> Sequence[Any]:
    """Creates the compile-only devices of a TPU slice.

    Raises:
      UserError: with libtpu's reason if it does not support the slice.
    """
    from jax.experimental import topologies

    # Skip the metadata server, allow several compiling processes, and provide what libtpu expects of a TPU machine
    # (host names, type), so that it neither searches for it nor logs errors.
    defaults = {
        'TPU_SKIP_MDS_QUERY': '1',
        'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
        'TPU_WORKER_HOSTNAMES': 'localhost',
        'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
        'TPU_MIN_LOG_LEVEL': '3',
        'TPU_STDERR_LOG_LEVEL': '3',
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    name = f'{topology.chip.name}:{"x".join(map(str, topology.shape))}'
    # On a v4 chip both cores form one device with all of its memory; without this setting, two devices.
    settings = {'chip_config_name': 'megacore'} if topology.chip.name == 'v4' else {}
    try:
        return topologies.get_topology_desc(name, 'tpu', **settings).devices
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f'--topology={topology.text}: libtpu does not compile for it ({reason[:300]}). '
            'Try another shape, or --compiler=cpu for an estimate'
        ) from None


def fake_devices(count: int) -> Sequence[Any]:
    """Creates `count` CPU devices that stand for accelerators.

    Raises:
      UserError: for more than `MAX_FAKE_DEVICES`, or if JAX is already initialized with fewer.
    """
    if count > MAX_FAKE_DEVICES:
        raise UserError(f'--topology: {count:,} chips are more than the {MAX_FAKE_DEVICES:,} that can be simulated')
    try:
        jax.config.update('jax_num_cpu_devices', count)
    except RuntimeError:
        pass  # JAX is initialized; its devices may suffice
    devices = jax.devices('cpu')
    if len(devices) < count:
        raise UserError(
            f'{count} fake devices are needed, but JAX is initialized with {len(devices)}: plan in a separate process'
        )
    return devices[:count]


def build(plan: RunSpec, target: CompileTarget) -> CompiledStep:
    """Compiles the step of a plan; out of memory is a result, not an error."""
    start = time.perf_counter()
    try:
        compiled = plan.compile()
    except jax.errors.JaxRuntimeError as error:
        used = overflow(str(error))
        if not (is_out_of_memory(error) and used):
            raise
        return CompiledStep({'total': used[0]}, '', time.perf_counter() - start, used[1])
    memory = memory_of(plan, compiled.memory_analysis())
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError:  # jaxlib cannot parse operations of a newer libtpu
        text = ''
    return CompiledStep(memory, text, time.perf_counter() - start, 0)


def overflow(message: str) -> tuple[float, float] | None:
    """Parses (needed, usable) bytes from the TPU compiler's error message; None if it has none.

    The message is 'Used 16.92G of 15.75G hbm' for a whole program, and '(256.00G) exceeds available HBM (15.75G)' if
    temporaries alone are too large, which is a lower bound.
    """
    size = r'([\d.]+)([KMGT]?)i?B?'
    for pattern in (rf'[Uu]sed {size} of {size}', rf'\({size}\) exceeds available \w+ \({size}\)'):
        if sizes := re.search(pattern, message):
            return float(sizes[1]) * UNIT_BYTES[sizes[2]], float(sizes[3]) * UNIT_BYTES[sizes[4]]
    return None


def shard_bytes(tree: Tree) -> float:
    """Bytes per device of a tree of `jax.ShapeDtypeStruct`s with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(tuple(leaf.shape))) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )


def state_parts(plan: RunSpec) -> dict[str, float]:
    """Bytes per device of the step's inputs, from their shapes: exact except for padding to tiles."""
    state = plan.state
    return {
        'parameters': shard_bytes(state.variables.params),
        'statistics': shard_bytes(state.variables.extra),
        'average': shard_bytes(state.ema),
        'optimizer': shard_bytes(state.optimizer),
        'batch': shard_bytes(plan.batch),
    }


def memory_of(plan: RunSpec, stats: Any) -> dict[str, float]:
    """Bytes per device by part, and their sum 'total'.

    'padding' is the memory of arguments beyond their elements (tiles); 'temporaries' are activations, gradients and
    gathered weights at their peak; 'outputs' are results that share no memory with an argument.
    """
    parts = state_parts(plan)
    arguments = float(stats.argument_size_in_bytes)
    parts['padding'] = max(0.0, arguments - sum(parts.values()))
    parts['temporaries'] = float(stats.temp_size_in_bytes)
    parts['outputs'] = max(0.0, float(stats.output_size_in_bytes - stats.alias_size_in_bytes))
    parts['program'] = float(stats.generated_code_size_in_bytes)
    parts['total'] = sum(parts.values())
    return parts


def fixed_bytes(plan: RunSpec) -> float:
    """Bytes per device that do not depend on the batch size: the state, and gradients of the parameters' size."""
    parts: Mapping[str, float] = state_parts(plan)
    return sum(parts.values()) - parts['batch'] + parts['parameters']
