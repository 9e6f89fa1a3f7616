"""Plans a run on absent devices: memory, cost, the largest batch, and alternative settings that fit."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from research.capacity import aot
from research.capacity.aot import CompiledStep, CompileTarget
from research.capacity.chips import Topology
from research.capacity.collectives import read_collectives, summarize
from research.capacity.flops import count_flops
from research.capacity.roofline import FORMULA, Cost, estimate
from research.core.config import Config, MeshSettings
from research.core.runspec import RunSpec, make_run_spec
from research.core.sharding import AXES
from research.core.task import Task
from research.errors import UserError, nearest
from research.units import bytes_text

MAX_BATCH_ROWS = 2**20  # limit of the search
UNREADABLE = (
    'collectives are not counted and no communication is in the time: this jaxlib cannot parse the programs of this '
    "libtpu; pip install '.[plan]' installs the matching one"
)


class Planner(NamedTuple):
    """Compiles the steps of configs for one target."""

    target: CompileTarget
    make: Callable[[Config], Task]  # builds the task of a config, whose files are prepared
    log: Callable[[str], None] = lambda text: None

    def plan(self, config: Config) -> RunSpec:
        """Creates shapes, shardings and the step for the target's devices."""
        return make_run_spec(config, self.make(config), self.target.devices)

    def build(self, config: Config, description: str) -> CompiledStep:
        """Compiles the step of a config, unless its state alone exceeds the memory."""
        plan = self.plan(config)
        fixed = aot.fixed_bytes(plan)
        usable = self.target.topology.chip.usable
        if fixed > usable:
            return CompiledStep({'total': fixed}, '', 0.0, usable)
        self.log(f'compiling {description} with {self.target.compiler}')
        return aot.build(plan, self.target)

    def usable(self, compiled: CompiledStep) -> float:
        """Bytes available to a program, as reported by the compiler or else as listed for the chip."""
        return compiled.usable or self.target.topology.chip.usable

    def fits(self, compiled: CompiledStep) -> bool:
        """Whether a step fits into memory."""
        return not compiled.usable and compiled.memory['total'] <= self.usable(compiled)


class Search(NamedTuple):
    """Result of the search for a batch size: the bounds, and all sizes that were compiled."""

    largest: int  # that fits; 0: none of those tried
    smallest_over: int  # that does not fit; 0: none of those tried
    tried: Mapping[int, float]  # rows -> bytes per device
    unit: int  # divisor of all sizes


class Attempt(NamedTuple):
    """Alternative settings, and whether a step with them fits."""

    flags: str
    about: str
    fits: bool
    total: float
    compiled: bool  # False: its state alone is too large


def read_mesh(text: str, topology: Topology, settings: MeshSettings) -> MeshSettings:
    """Parses a mesh such as 'data:8,fsdp:8' (other axes are 1); '' is the mesh of the config.

    Raises:
      UserError: for an unknown axis, or sizes whose product is not the number of chips.
    """
    if not text:
        return settings
    sizes: dict[str, int] = dict.fromkeys(AXES, 1)
    for part in text.split(','):
        axis, _, size = part.partition(':')
        if axis not in AXES:
            raise UserError(f'--mesh={text}: unknown axis {axis!r}; {nearest(axis, AXES)}')
        if not (size.lstrip('-').isdigit() and (int(size) > 0 or int(size) == -1)):
            raise UserError(f'--mesh={text}: write {axis}:8, a size above zero (or -1 for the remaining chips)')
        sizes[axis] = int(size)
    product = math.prod(size for size in sizes.values() if size != -1)
    if -1 in sizes.values() and topology.count % product or -1 not in sizes.values() and product != topology.count:
        raise UserError(
            f'--mesh={text} makes {product} devices and {topology.text} has {topology.count} chips: the '
            f'product of the sizes must {"divide" if -1 in sizes.values() else "equal"} the number of chips'
        )
    return dataclasses.replace(settings, **sizes)


def with_batch(config: Config, rows: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=rows))


def with_parts(config: Config, parts: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, microbatches=parts))


def with_model(config: Config, **values: Any) -> Config:
    return dataclasses.replace(config, model={**config.model, **values})


def step_flops(plan: RunSpec) -> dict[str, Any]:
    """FLOPs of one step over all devices, from its jaxpr."""
    with jax.set_mesh(plan.mesh):
        return count_flops(plan.step(), plan.state, plan.batch)


def useful_flops(planner: Planner, config: Config, flops: Mapping[str, Any]) -> float:
    """FLOPs of matrix products without recomputation by `remat`."""
    if not config.model.get('remat'):
        return flops['matrix']
    return step_flops(planner.plan(with_model(config, remat=False)))['matrix']


def unit_of(config: Config, plan: RunSpec) -> int:
    """Number of rows that divides all valid batch sizes."""
    return plan.mesh.shape['data'] * plan.mesh.shape['fsdp'] * config.train.microbatches


def next_size(known: Mapping[int, float], fixed: float, limit: float) -> int:
    """Chooses the next batch size to try, in units; 0 ends the search.

    Interpolates memory linearly between the largest size that fits and the smallest that does not, or extrapolates
    from the two largest while all fit. Ends when the bounds are within a sixteenth of each other.
    """
    fit = max((size for size, total in known.items() if total <= limit), default=0)
    over = min((size for size, total in known.items() if total > limit), default=0)
    if over == 1 or (over and fit and over - fit <= max(1, fit // 16)):
        return 0
    if over and not fit:
        slope = max((known[over] - fixed) / over, 1.0)
        return max(1, min(over - 1, int((limit - fixed) / slope)))
    below = max((size for size in known if size < fit), default=0)
    base, start = (known[below], below) if below else (fixed, 0)
    slope = max((known[fit] - base) / (fit - start), 1.0)
    if over:
        slope = max((known[over] - known[fit]) / (over - fit), 1.0)
    guess = fit + int((limit - known[fit]) / slope)
    return min(max(guess, fit + 1), over - 1 if over else 64 * fit)


def search_batch(
    measure: Callable[[int], float], unit: int, first: int, total: float, fixed: float, limit: float, max_compiles: int
) -> Search:
    """Searches for the largest batch that fits, with at most `max_compiles` further compilations.

    Args:
      measure: (rows) -> bytes per device.
      unit: divisor of all sizes, in rows.
      first: a size that was already compiled.
      total: its bytes per device.
      fixed: bytes that do not depend on the batch.
      limit: bytes available to a program.
      max_compiles: limit of compilations.
    """
    known = {first // unit: total}
    for _ in range(max_compiles):
        size = next_size(known, fixed, limit)
        if not size or size in known or size * unit > MAX_BATCH_ROWS:
            break
        known[size] = measure(size * unit)
    fit = max((size for size, needed in known.items() if needed <= limit), default=0)
    over = min((size for size, needed in known.items() if needed > limit), default=0)
    tried = {size * unit: needed for size, needed in sorted(known.items())}
    return Search(fit * unit, over * unit, tried, unit)


def changes(config: Config, plan: RunSpec, search: Search | None) -> Iterator[tuple[str, str, Config]]:
    """Yields (flags, description, config) of settings that need less memory, cheapest first."""
    train, mesh = config.train, plan.mesh.shape
    rows = train.batch_size
    parts = train.microbatches
    ways = mesh['data'] * mesh['fsdp']
    largest = search.largest if search else 0
    need = max(2, -(-rows // largest)) if largest else 4
    options = [count for count in range(parts + 1, rows + 1) if rows % count == 0 and rows // count % ways == 0]
    enough = [count for count in options if count >= parts * need]
    if config.model.get('dtype') == 'float32':
        yield '--config.model.dtype=bfloat16', 'activations in 16 bits', with_model(config, dtype='bfloat16')
    if config.model.get('remat') is False:
        yield '--config.model.remat=True', 'activations recomputed in the backward pass', with_model(config, remat=True)
    if enough:
        about = f'the same batch in {enough[0]} parts'
        yield f'--config.train.microbatches={enough[0]}', about, with_parts(config, enough[0])
    sizes = {axis: mesh[axis] for axis in AXES}
    if sizes['data'] > 1:
        split = {**sizes, 'data': 1, 'fsdp': sizes['fsdp'] * sizes['data']}
        yield mesh_flag(split), 'parameters and optimizer state sharded further', with_mesh(config, split)
    if options and (not enough or options[-1] != enough[0]):
        about = f'the same batch in {options[-1]} parts, the most that this mesh allows'
        yield f'--config.train.microbatches={options[-1]}', about, with_parts(config, options[-1])
    if sizes['fsdp'] % 2 == 0:
        split = {**sizes, 'fsdp': sizes['fsdp'] // 2, 'tensor': sizes['tensor'] * 2}
        yield mesh_flag(split), 'each layer sharded over more chips', with_mesh(config, split)
    if not largest and rows > ways * parts:
        size = ways * parts
        yield f'--config.train.batch_size={size}', 'the smallest batch', with_batch(config, size)
    if config.model.get('remat') is False and options:
        both = with_parts(with_model(config, remat=True), options[-1])
        flags = f'--config.model.remat=True --config.train.microbatches={options[-1]}'
        yield flags, 'both changes', both


def mesh_flag(sizes: Mapping[str, int]) -> str:
    """Formats axis sizes as the flag --mesh."""
    return '--mesh=' + ','.join(f'{axis}:{size}' for axis, size in sizes.items() if size > 1)


def with_mesh(config: Config, sizes: Mapping[str, int]) -> Config:
    return dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, **sizes))


def try_changes(
    planner: Planner, config: Config, plan: RunSpec, search: Search | None, wanted: int, max_compiles: int
) -> list[Attempt]:
    """Tries other settings until `wanted` fit or `max_compiles` were compiled; a smaller batch counts."""
    attempts: list[Attempt] = []
    if search and search.largest:
        flags = f'--config.train.batch_size={search.largest}'
        attempts.append(Attempt(flags, 'a smaller batch', True, search.tried[search.largest], True))
    for flags, about, changed in changes(config, plan, search):
        compiles = sum(attempt.compiled for attempt in attempts)
        if sum(attempt.fits for attempt in attempts) >= wanted or compiles >= max_compiles:
            break
        try:
            compiled = planner.build(changed, flags)
        except UserError:
            continue  # the mesh does not divide the batch, or the model rejects the setting
        fits = planner.fits(compiled)
        needed = compiled.memory['total']
        attempts.append(Attempt(flags, about, fits, needed, compiled.seconds > 0))
    return attempts


def add_topologies(planner: Planner, config: Config, find: Callable[[Topology], CompileTarget]) -> list[Attempt]:
    """Tries twice the chips, on the `fsdp` axis."""
    topology = planner.target.topology
    shape = list(topology.shape)
    shape[shape.index(min(shape))] *= 2
    larger = topology._replace(shape=tuple(shape))
    if topology.chip.pod and any(a > b for a, b in zip(sorted(shape), sorted(topology.chip.pod), strict=True)):
        return []
    flags = f'--topology={larger.text}'
    try:
        wide = planner._replace(target=find(larger))
        sizes = {axis: getattr(config.mesh, axis) for axis in AXES}
        sizes['fsdp'] = sizes['fsdp'] * 2 if sizes['fsdp'] > 0 else -1
        changed = with_mesh(config, sizes)
        if -1 not in sizes.values():
            flags += f' {mesh_flag(sizes)}'
        compiled = wide.build(changed, flags)
    except UserError:
        return []
    return [Attempt(flags, 'twice the chips', wide.fits(compiled), compiled.memory['total'], compiled.seconds > 0)]


def make_report(
    planner: Planner, config: Config, compiles: int, find: Callable[[Topology], CompileTarget]
) -> dict[str, Any]:
    """Creates the report of a plan as JSON-able values.

    Args:
      planner: compiles the steps.
      config: with the mesh to plan for.
      compiles: maximum number of compilations in the search for a batch, and again for other settings.
      find: topology -> target, to try more chips.
    """
    plan = planner.plan(config)
    target = planner.target
    chip = planner.target.topology.chip
    compiled = planner.build(config, 'the step')
    usable = planner.usable(compiled)
    fits = planner.fits(compiled)
    fixed = aot.fixed_bytes(plan)
    flops = step_flops(plan)
    useful = useful_flops(planner, config, flops)
    unit = unit_of(config, plan)
    search = None
    attempts = []
    if fixed <= usable and compiles:
        search = search_batch(
            lambda rows: planner.build(with_batch(config, rows), f'a batch of {rows:,}').memory['total'],
            unit, config.train.batch_size, compiled.memory['total'], fixed, usable, compiles,
        )  # fmt: skip
    if not fits and compiles:
        attempts = try_changes(planner, config, plan, search, 3, compiles + 2)
        if sum(attempt.fits for attempt in attempts) < 3:
            attempts += add_topologies(planner, config, find)
    report = {
        'topology': target.topology.text,
        'chips': target.topology.count,
        'mesh': {axis: int(size) for axis, size in plan.mesh.shape.items()},
        'batch_size': config.train.batch_size,
        'microbatches': config.train.microbatches,
        'compiler': target.compiler,
        'exact': target.exact,
        'compile_seconds': compiled.seconds,
        'parameters': sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(plan.state.variables.params)),
        'memory': {
            **aot.state_parts(plan), **compiled.memory, 'usable': usable, 'capacity': chip.memory, 'fits': fits,
            'compiled': compiled.seconds > 0, 'over': max(0.0, compiled.memory['total'] - usable),
        },
        'flops': {'total': flops['total'], 'matrix': flops['matrix'], 'useful': useful, 'notes': flops['notes']},
        'search': search_values(search),
        'attempts': [attempt._asdict() for attempt in attempts],
    }  # fmt: skip
    if 'temporaries' in compiled.memory:
        report.update(costs(target, compiled, flops['matrix'], useful))
    return report


def search_values(search: Search | None) -> dict[str, Any]:
    """Converts a search to JSON-able values; {} if there was none."""
    return {} if search is None else {**search._asdict(), 'tried': {str(k): v for k, v in search.tried.items()}}


def costs(target: CompileTarget, compiled: CompiledStep, flops: float, useful: float) -> dict[str, Any]:
    """Computes the collectives and the expected time of a compiled step."""
    collectives = []
    notes = [UNREADABLE]
    if compiled.text:
        collectives, notes = read_collectives(compiled.text, target.topology.count)
    cost: Cost = estimate(target.topology, compiled.memory, flops, useful, collectives, not target.exact)
    chip = target.topology.chip
    return {
        'collectives': summarize(collectives),
        'notes': notes,
        'time': {**cost._asdict(), 'formula': list(FORMULA)},
        'rates': {'flops': chip.flops, 'bandwidth': chip.bandwidth, 'interconnect': chip.interconnect},
    }


def overflow_text(report: Mapping[str, Any]) -> str:
    """One sentence on missing memory; '' if the step fits."""
    memory = report['memory']
    if memory['fits']:
        return ''
    least = '' if memory['compiled'] else 'at least '
    reason = '' if memory['compiled'] else ' (parameters, gradients and optimizer state alone; nothing was compiled)'
    return (
        f'does not fit: each chip needs {least}{bytes_text(memory["total"])} and has {bytes_text(memory["usable"])} '
        f'available: {bytes_text(memory["over"])} too much{reason}'
    )
