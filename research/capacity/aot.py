"""Compiles a step for devices that are not there: real TPU topologies by libtpu, others by fake CPU devices.

Nothing is allocated: a program is compiled for shapes with shardings. `jax.config.jax_platforms` must be 'cpu'
before the first operation, so that libtpu only compiles and looks for no chip.
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

UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


class Target(NamedTuple):
    """What a plan is compiled for, and by what."""

    topology: Topology
    devices: Sequence[Any]
    compiler: str  # 'libtpu 0.0.52', or 'fake CPU devices'
    exact: bool  # whether memory is what the chip will use, not an estimate


class Built(NamedTuple):
    """A compiled step: bytes on each device by part, and its text ('': unreadable); or how much an overflow needs."""

    memory: dict[str, float]  # see `memory_of`; of an overflow only 'total'
    text: str
    seconds: float
    usable: float  # bytes a program may use, as the compiler said when it was too much; else 0


def has_libtpu() -> bool:
    """Returns whether the compiler for TPUs is installed."""
    return importlib.util.find_spec('libtpu') is not None or bool(os.environ.get('TPU_LIBRARY_PATH'))


def find_target(topology: Topology, compiler: str = 'auto') -> Target:
    """Returns the devices to compile for.

    Args:
      topology: TPU slices are compiled by libtpu where it is installed.
      compiler: 'auto', 'tpu' (fail without libtpu) or 'cpu' (fake devices always).

    Raises:
      UserError: when libtpu is asked for and absent or in use, or does not know the topology.
    """
    if compiler == 'tpu' and topology.chip.kind != 'tpu':
        raise UserError(f'--compiler=tpu: {topology.text} is no TPU')
    if compiler == 'tpu' and not has_libtpu():
        raise UserError("--compiler=tpu: libtpu is not installed: pip install '.[plan]' (Linux)")
    if topology.chip.kind == 'tpu' and compiler != 'cpu' and has_libtpu():
        return Target(topology, tpu_devices(topology), f'libtpu {libtpu_version()}', True)
    return Target(topology, fake_devices(topology.count), 'fake CPU devices', False)


def libtpu_version() -> str:
    """Returns the version of the installed wheel, '' where the library came another way."""
    try:
        return importlib.metadata.version('libtpu')
    except importlib.metadata.PackageNotFoundError:
        return ''


def tpu_devices(topology: Topology) -> Sequence[Any]:
    """Returns the compile-only devices of a TPU slice.

    Raises:
      UserError: in the words of libtpu where it does not make such a slice.
    """
    from jax.experimental import topologies

    # No metadata server is asked, several processes may compile at once, and what libtpu misses of a TPU
    # machine (its host names, its type) is neither looked for nor complained about.
    quiet = {
        'TPU_SKIP_MDS_QUERY': '1',
        'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
        'TPU_WORKER_HOSTNAMES': 'localhost',
        'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
        'TPU_MIN_LOG_LEVEL': '3',
        'TPU_STDERR_LOG_LEVEL': '3',
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    name = f'{topology.chip.name}:{"x".join(map(str, topology.shape))}'
    # the two cores of a v4 chip run as one device there, with all of its memory; without this, as two
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
    """Returns `count` CPU devices that stand for accelerators.

    Raises:
      UserError: when JAX already runs with fewer.
    """
    try:
        jax.config.update('jax_num_cpu_devices', count)
    except RuntimeError:
        pass  # already running: there may still be enough
    devices = jax.devices('cpu')
    if len(devices) < count:
        raise UserError(
            f'{count} fake devices are needed and JAX runs with {len(devices)}: make the plan in a process of its own'
        )
    return devices[:count]


def build(plan: RunSpec, target: Target) -> Built:
    """Compiles the step of a plan and returns what it takes; an overflow is a result, not an error."""
    start = time.perf_counter()
    try:
        compiled = plan.compile()
    except jax.errors.JaxRuntimeError as error:
        used = overflow(str(error))
        if not (is_out_of_memory(error) and used):
            raise
        return Built({'total': used[0]}, '', time.perf_counter() - start, used[1])
    memory = memory_of(plan, compiled.memory_analysis())
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError:  # a libtpu newer than jaxlib writes operations that it cannot read
        text = ''
    return Built(memory, text, time.perf_counter() - start, 0)


def overflow(message: str) -> tuple[float, float] | None:
    """Returns (needed, usable) bytes from the TPU compiler's message, None where it names none.

    It writes 'Used 16.92G of 15.75G hbm' of a whole program, and '(256.00G) exceeds available HBM (15.75G)' where
    temporaries alone are too much: a lower bound.
    """
    size = r'([\d.]+)([KMGT]?)i?B?'
    for pattern in (rf'[Uu]sed {size} of {size}', rf'\({size}\) exceeds available \w+ \({size}\)'):
        if found := re.search(pattern, message):
            return float(found[1]) * UNITS[found[2]], float(found[3]) * UNITS[found[4]]
    return None


def shard_bytes(tree: Tree) -> float:
    """Returns the bytes of one device's part of a tree of `jax.ShapeDtypeStruct`s with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(tuple(leaf.shape))) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )


def state_parts(plan: RunSpec) -> dict[str, float]:
    """Returns bytes on each device of what the step is given: a closed formula, exact but for padding to tiles."""
    state = plan.state
    return {
        'parameters': shard_bytes(state.variables.params),
        'statistics': shard_bytes(state.variables.extra),
        'average': shard_bytes(state.ema),
        'optimizer': shard_bytes(state.optimizer),
        'batch': shard_bytes(plan.batch),
    }


def memory_of(plan: RunSpec, stats: Any) -> dict[str, float]:
    """Returns bytes on each device by part; they add up to 'total'.

    'padding' is what arguments take beyond their elements (tiles); 'temporaries' are activations, gradients and
    gathered weights at their worst moment; 'outputs' what is returned and shares no memory with an argument.
    'arguments' (a sum of others) is beside the total.
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
    """Returns the bytes on each device that no batch size changes: state, and gradients as large as parameters."""
    parts: Mapping[str, float] = state_parts(plan)
    return sum(parts.values()) - parts['batch'] + parts['parameters']
