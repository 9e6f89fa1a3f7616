"""Plans a run before it is paid for: does it fit, what does it cost, the largest batch, what else would fit."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from research.capacity import aot as ahead
from research.capacity.aot import Built, Target
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

LARGEST = 2**20  # rows: where the search for a batch stops
UNREADABLE = (
    "collectives are not counted and no communication is in the time: this jaxlib cannot read what this libtpu "
    "compiled; pip install '.[plan]' takes the libtpu that belongs to it"
)


class Planner(NamedTuple):
    """What every plan of one command shares."""

    target: Target
    make: Callable[[Config], Task]  # the task of a config; its prepared files are there
    say: Callable[[str], None] = lambda text: None  # what is compiled now

    def plan(self, config: Config) -> RunSpec:
        """Returns shapes, shardings and the step for the target's devices."""
        return make_run_spec(config, self.make(config), self.target.devices)

    def build(self, config: Config, what: str) -> Built:
        """Compiles the step of a config; one whose state alone is too large is not compiled."""
        plan = self.plan(config)
        fixed, usable = ahead.fixed_bytes(plan), self.target.topology.chip.usable
        if fixed > usable:
            return Built({'total': fixed}, '', 0.0, usable)
        self.say(f'compiling {what} with {self.target.compiler}')
        return ahead.build(plan, self.target)

    def usable(self, built: Built) -> float:
        """Returns the bytes a program may use: what the compiler said, else what is known of the chip."""
        return built.usable or self.target.topology.chip.usable

    def fits(self, built: Built) -> bool:
        """Returns whether a step fits."""
        return not built.usable and built.memory['total'] <= self.usable(built)


class Search(NamedTuple):
    """What is known of batch sizes: the largest that fits, the smallest that does not, and all that were compiled."""

    largest: int  # 0: none that was tried
    smallest_over: int  # 0: none that was tried
    tried: Mapping[int, float]  # rows -> bytes on each device
    unit: int


class Attempt(NamedTuple):
    """Other settings, and whether a step with them fits."""

    flags: str
    about: str
    fits: bool
    total: float
    compiled: bool  # else its state alone is too large


def read_mesh(text: str, topology: Topology, settings: MeshSettings) -> MeshSettings:
    """Returns the mesh of 'data:8,fsdp:8' (axes not named are 1), or that of the config where text is ''.

    Raises:
      UserError: for an unknown axis or sizes that do not multiply to the number of chips.
    """
    if not text:
        return settings
    sizes: dict[str, int] = dict.fromkeys(AXES, 1)
    for part in text.split(','):
        axis, _, size = part.partition(':')
        if axis not in AXES:
            raise UserError(f'--mesh={text}: there is no axis {axis!r}; {nearest(axis, AXES)}')
        if not (size.lstrip('-').isdigit() and (int(size) > 0 or int(size) == -1)):
            raise UserError(f'--mesh={text}: write {axis}:8, a size above zero (or one -1: all that are left)')
        sizes[axis] = int(size)
    product = math.prod(size for size in sizes.values() if size != -1)
    if -1 in sizes.values() and topology.count % product or -1 not in sizes.values() and product != topology.count:
        raise UserError(
            f'--mesh={text} makes {product} devices and {topology.text} has {topology.count} chips: '
            f'the sizes must {"divide" if -1 in sizes.values() else "multiply to"} them'
        )
    return dataclasses.replace(settings, **sizes)


def with_batch(config: Config, rows: int) -> Config:
    """Returns the config with another batch size."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=rows))


def with_parts(config: Config, parts: int) -> Config:
    """Returns the config with another number of microbatches."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, microbatches=parts))


def with_model(config: Config, **values: Any) -> Config:
    """Returns the config with other settings of the model."""
    return dataclasses.replace(config, model={**config.model, **values})


def step_flops(plan: RunSpec) -> dict[str, Any]:
    """Returns the FLOPs of one step over all devices, from its jaxpr."""
    with jax.set_mesh(plan.mesh):
        return count_flops(plan.step(), plan.state, plan.batch)


def useful_flops(planner: Planner, config: Config, flops: Mapping[str, Any]) -> float:
    """Returns the FLOPs of matrix products without what `remat` computes again."""
    if not config.model.get('remat'):
        return flops['matrix']
    return step_flops(planner.plan(with_model(config, remat=False)))['matrix']


def unit_of(config: Config, plan: RunSpec) -> int:
    """Returns the number of rows that batch sizes are multiples of."""
    return plan.mesh.shape['data'] * plan.mesh.shape['fsdp'] * config.train.microbatches


def next_size(known: Mapping[int, float], fixed: float, limit: float) -> int:
    """Returns the next batch, in units, to try; 0 when the answer is near enough or the search has ended.

    Memory is taken for linear in the batch: through the last that fits and the first that does not, or, while all
    fit, through the two largest. Between the two bounds it stops at a sixteenth.
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
    measure: Callable[[int], float], unit: int, first: int, total: float, fixed: float, limit: float, most: int
) -> Search:
    """Looks for the largest batch that fits, with at most `most` more compiles.

    Args:
      measure: (rows) -> bytes on each device.
      unit: rows that every size is a multiple of.
      first: a size that was compiled.
      total: its bytes.
      fixed: bytes that no batch changes.
      limit: bytes a program may use.
      most: compiles.
    """
    known = {first // unit: total}
    for _ in range(most):
        size = next_size(known, fixed, limit)
        if not size or size in known or size * unit > LARGEST:
            break
        known[size] = measure(size * unit)
    fit = max((size for size, each in known.items() if each <= limit), default=0)
    over = min((size for size, each in known.items() if each > limit), default=0)
    tried = {size * unit: each for size, each in sorted(known.items())}
    return Search(fit * unit, over * unit, tried, unit)


def changes(config: Config, plan: RunSpec, search: Search | None) -> Iterator[tuple[str, str, Config]]:
    """Yields (flags, what it means, config) of settings that take less memory, the least costly first."""
    train, mesh = config.train, plan.mesh.shape
    rows, parts, ways = train.batch_size, train.microbatches, mesh['data'] * mesh['fsdp']
    largest = search.largest if search else 0
    need = max(2, -(-rows // largest)) if largest else 4
    options = [each for each in range(parts + 1, rows + 1) if rows % each == 0 and rows // each % ways == 0]
    enough = [each for each in options if each >= parts * need]
    if config.model.get('dtype') == 'float32':
        yield '--config.model.dtype=bfloat16', 'activations in 16 bits', with_model(config, dtype='bfloat16')
    if config.model.get('remat') is False:
        yield '--config.model.remat=True', 'activations computed again', with_model(config, remat=True)
    if enough:
        about = f'the same batch in {enough[0]} parts'
        yield f'--config.train.microbatches={enough[0]}', about, with_parts(config, enough[0])
    sizes = {axis: mesh[axis] for axis in AXES}
    if sizes['data'] > 1:
        split = {**sizes, 'data': 1, 'fsdp': sizes['fsdp'] * sizes['data']}
        yield mesh_flag(split), 'parameters and optimizer state split further', with_mesh(config, split)
    if options and (not enough or options[-1] != enough[0]):
        about = f'the same batch in {options[-1]} parts, the most that this mesh allows'
        yield f'--config.train.microbatches={options[-1]}', about, with_parts(config, options[-1])
    if sizes['fsdp'] % 2 == 0:
        split = {**sizes, 'fsdp': sizes['fsdp'] // 2, 'tensor': sizes['tensor'] * 2}
        yield mesh_flag(split), 'each layer split over more chips', with_mesh(config, split)
    if not largest and rows > ways * parts:
        size = ways * parts
        yield f'--config.train.batch_size={size}', 'the smallest batch', with_batch(config, size)
    if config.model.get('remat') is False and options:
        both = with_parts(with_model(config, remat=True), options[-1])
        flags = f'--config.model.remat=True --config.train.microbatches={options[-1]}'
        yield flags, 'both together', both


def mesh_flag(sizes: Mapping[str, int]) -> str:
    """Returns sizes as the flag --mesh writes them."""
    return '--mesh=' + ','.join(f'{axis}:{size}' for axis, size in sizes.items() if size > 1)


def with_mesh(config: Config, sizes: Mapping[str, int]) -> Config:
    """Returns the config with another mesh."""
    return dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, **sizes))


def try_changes(planner: Planner, config: Config, plan: RunSpec, search: Search | None, wanted: int, most: int):
    """Returns the attempts at other settings until `wanted` fit or `most` were compiled; a smaller batch counts."""
    attempts: list[Attempt] = []
    if search and search.largest:
        flags = f'--config.train.batch_size={search.largest}'
        attempts.append(Attempt(flags, 'a smaller batch', True, search.tried[search.largest], True))
    for flags, about, changed in changes(config, plan, search):
        compiles = sum(each.compiled for each in attempts)
        if sum(each.fits for each in attempts) >= wanted or compiles >= most:
            break
        try:
            built = planner.build(changed, flags)
        except UserError:
            continue  # the batch does not divide over that mesh, or the model refuses the setting
        attempts.append(Attempt(flags, about, planner.fits(built), built.memory['total'], built.seconds > 0))
    return attempts


def add_topologies(planner: Planner, config: Config, find: Callable[[Topology], Target]) -> list[Attempt]:
    """Returns an attempt with twice the chips, on the `fsdp` axis."""
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
        built = wide.build(changed, flags)
    except UserError:
        return []
    return [Attempt(flags, 'twice the chips', wide.fits(built), built.memory['total'], built.seconds > 0)]


def make_report(
    planner: Planner, config: Config, compiles: int, find: Callable[[Topology], Target]
) -> dict[str, Any]:
    """Returns everything that is printed, as JSON-able values.

    Args:
      planner: compiles.
      config: with the mesh to plan for.
      compiles: the most that the search for a batch may take, and again for other settings on an overflow.
      find: topology -> target, for the attempt at more chips.
    """
    plan = planner.plan(config)
    target, chip = planner.target, planner.target.topology.chip
    built = planner.build(config, 'the step')
    usable, fits, fixed = planner.usable(built), planner.fits(built), ahead.fixed_bytes(plan)
    flops = step_flops(plan)
    useful = useful_flops(planner, config, flops)
    unit = unit_of(config, plan)
    search, attempts = None, []
    if fixed <= usable and compiles:
        search = search_batch(
            lambda rows: planner.build(with_batch(config, rows), f'a batch of {rows:,}').memory['total'],
            unit, config.train.batch_size, built.memory['total'], fixed, usable, compiles,
        )  # fmt: skip
    if not fits and compiles:
        attempts = try_changes(planner, config, plan, search, 3, compiles + 2)
        if sum(each.fits for each in attempts) < 3:
            attempts += add_topologies(planner, config, find)
    report = {
        'topology': target.topology.text,
        'chips': target.topology.count,
        'mesh': {axis: int(size) for axis, size in plan.mesh.shape.items()},
        'batch_size': config.train.batch_size,
        'microbatches': config.train.microbatches,
        'compiler': target.compiler,
        'exact': target.exact,
        'compile_seconds': built.seconds,
        'parameters': sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(plan.state.variables.params)),
        'memory': {
            **ahead.state_parts(plan), **built.memory, 'usable': usable, 'capacity': chip.memory, 'fits': fits,
            'compiled': built.seconds > 0, 'over': max(0.0, built.memory['total'] - usable),
        },
        'flops': {'total': flops['total'], 'matrix': flops['matrix'], 'useful': useful, 'notes': flops['notes']},
        'search': search_values(search),
        'attempts': [each._asdict() for each in attempts],
    }  # fmt: skip
    if 'temporaries' in built.memory:
        report.update(costs(target, built, flops['matrix'], useful))
    return report


def search_values(search: Search | None) -> dict[str, Any]:
    """Returns a search as JSON-able values, {} where there was none."""
    return {} if search is None else {**search._asdict(), 'tried': {str(k): v for k, v in search.tried.items()}}


def costs(target: Target, built: Built, flops: float, useful: float) -> dict[str, Any]:
    """Returns the collectives and the expected time of a compiled step."""
    found, notes = read_collectives(built.text, target.topology.count) if built.text else ([], [UNREADABLE])
    cost: Cost = estimate(target.topology, built.memory, flops, useful, found, not target.exact)
    chip = target.topology.chip
    return {
        'collectives': summarize(found),
        'notes': notes,
        'time': {**cost._asdict(), 'formula': list(FORMULA)},
        'rates': {'flops': chip.flops, 'bandwidth': chip.bandwidth, 'interconnect': chip.interconnect},
    }


def overflow_text(report: Mapping[str, Any]) -> str:
    """Returns one sentence on an overflow: by how much; '' where the step fits."""
    memory = report['memory']
    if memory['fits']:
        return ''
    least = '' if memory['compiled'] else 'at least '
    why = '' if memory['compiled'] else ' (parameters, gradients and optimizer state alone; nothing was compiled)'
    return (
        f'does not fit: each chip needs {least}{bytes_text(memory["total"])} and has {bytes_text(memory["usable"])} '
        f'to use: {bytes_text(memory["over"])} too much{why}'
    )
