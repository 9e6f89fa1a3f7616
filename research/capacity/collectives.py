"""The communication of a compiled program, from its HLO text.

Each collective counts once per execution: in a loop's body, once per iteration, with nested loops multiplied. The
number of iterations is the compiler's `known_trip_count`, or else the constant in the loop's condition. A collective
that the TPU compiler distributes over several fusions, or splits into start and done, has one channel and counts once.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

COLLECTIVE_KINDS = (
    'all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute', 'collective-broadcast',
)  # fmt: skip
DTYPE_BYTES = {
    'pred': 1, 's4': 0.5, 'u4': 0.5, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'f16': 2, 'bf16': 2, 's32': 4, 'u32': 4,
    'f32': 4, 's64': 8, 'u64': 8, 'f64': 8, 'c64': 8, 'c128': 16,
}  # fmt: skip

SHAPE = re.compile(r'\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\]')
HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$')
OPERATION = re.compile(r'(?:^|[\s)}\]])([a-z][a-z\d\-]*)\(')
CALLED = re.compile(r'\b(calls|body|condition|to_apply|branch_computations|true_computation|false_computation)='
                    r'(\{[^}]*\}|%?[\w.\-]+)')  # fmt: skip


class Collective(NamedTuple):
    """One collective: bytes, group size and executions per step."""

    kind: str
    bytes: float  # gathered, summed, exchanged or sent data per device
    group: int  # participating devices
    times: int  # executions per step
    overlaps: bool = False  # whether it runs concurrently with other work

    @property
    def sent(self) -> float:
        """Bytes that each device sends per execution, by ring algorithms (Thakur et al. 2005, sections 4.1 to 4.5)."""
        share = (self.group - 1) / self.group
        return self.bytes * {'all-reduce': 2 * share, 'collective-permute': 1.0}.get(self.kind, share)


class Instruction(NamedTuple):
    """One HLO instruction: name, operation, the text before the operation (`shape`) and from it on (`rest`)."""

    name: str
    operation: str
    shape: str
    rest: str


def read_collectives(text: str, devices: int) -> tuple[list[Collective], list[str]]:
    """Parses all collectives of an optimized HLO module; also returns notes on inexact counts.

    Args:
      text: `compiled.as_text()`.
      devices: number of devices, for collectives without explicit groups.
    """
    computations, entry = read_computations(text)
    notes: list[str] = []
    done: dict[str, list] = {}
    collectives = walk(entry, computations, devices, notes, done)
    return [collective for _, collective in collectives if collective.group > 1], sorted(set(notes))


def summarize(collectives: Sequence[Collective]) -> dict[str, dict[str, float]]:
    """Totals {kind: {'count', 'bytes', 'sent'}} per step and device."""
    table: dict[str, dict[str, float]] = {}
    for collective in collectives:
        row = table.setdefault(collective.kind, {'count': 0, 'bytes': 0.0, 'sent': 0.0})
        row['count'] += collective.times
        row['bytes'] += collective.bytes * collective.times
        row['sent'] += collective.sent * collective.times
    return dict(sorted(table.items()))


def read_computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Parses {computation: its instructions} and the name of the entry computation."""
    computations: dict[str, list[Instruction]] = {}
    current, entry = '', ''
    for line in text.splitlines():
        if header := HEADER.match(line):
            current = header[2]
            computations[current] = []
            entry = current if header[1] else entry
        elif current and (instruction := INSTRUCTION.match(line)):
            name, definition = instruction.groups()
            if operation := OPERATION.search(definition):
                start = operation.start(1)
                computations[current].append(
                    Instruction(name, operation[1], definition[:start], definition[start:])
                )
    return computations, entry


def walk(
    name: str, computations: Mapping[str, list[Instruction]], devices: int, notes: list[str], done: dict[str, list]
) -> list[tuple[str, Collective]]:
    """Collects (channel, collective) of one execution of a computation and all it calls; `done` caches results."""
    if name in done:
        return done[name]
    here: dict[str, Collective] = {}
    loops: list[tuple[str, Collective]] = []
    for instruction in computations.get(name, ()):
        operation = instruction.operation
        kind = kind_of(operation)
        called = dict(called_by(instruction))
        if kind:
            if name.startswith('all-reduce-scatter'):  # TPU: each device keeps its part of the sum
                kind = 'reduce-scatter'
            keep(here, channel(instruction), read_one(instruction, kind, devices))
        elif operation == 'while':
            times = trip_count(instruction, computations.get(called['condition'][0], ()), notes)
            for key, inner in walk(called['body'][0], computations, devices, notes, done):
                loops.append((key, inner._replace(times=inner.times * times)))
        elif operation == 'conditional':
            names = [branch for names in called.values() for branch in names]
            branches = [walk(branch, computations, devices, notes, done) for branch in names]
            loops += max(branches, key=lambda branch: sum(c.sent * c.times for _, c in branch), default=[])
        elif operation in ('call', 'custom-call'):
            for names in called.values():
                for inner in names:
                    loops += walk(inner, computations, devices, notes, done)
        elif 'calls' in called:  # a fusion or an asynchronous part; equal channels are one collective
            for key, inner in walk(called['calls'][0], computations, devices, notes, done):
                keep(here, key, inner)
    others = []
    for key, collective in loops:
        if collective.overlaps and here.get(key, collective).overlaps:
            keep(here, key, collective)
        else:
            others.append((key, collective))
    done[name] = [*here.items(), *others]
    return done[name]


def keep(here: dict[str, Collective], key: str, new: Collective) -> None:
    """Stores a collective under its channel; parts of one are merged to the largest size and the fewest executions.

    The TPU compiler may run parts of a gather inside a later loop, so the smallest count is that of the collective.
    """
    old = here.get(key)
    if old is not None:
        kind = 'reduce-scatter' if 'reduce-scatter' in (old.kind, new.kind) else new.kind
        size, times = max(old.bytes, new.bytes), min(old.times, new.times)
        new = new._replace(kind=kind, bytes=size, times=times, overlaps=True)
    here[key] = new


def kind_of(operation: str) -> str:
    """Kind of the collective that an operation starts, else ''; '-done' belongs to one already counted."""
    name = operation.removesuffix('-start')
    return name if name in COLLECTIVE_KINDS else ''


def channel(instruction: Instruction) -> str:
    """Key shared by all parts of one collective."""
    channel_id = re.search(r'channel_id=(\d+)', instruction.rest)
    return channel_id[1] if channel_id else instruction.name


def read_one(instruction: Instruction, kind: str, devices: int) -> Collective:
    """Parses one collective, which executes once per execution of its computation."""
    group = group_size(instruction.rest, devices)
    arrays = [array_bytes(*shape) for shape in SHAPE.findall(instruction.shape)]
    started = instruction.operation.endswith('-start')
    if started and kind in ('all-gather', 'collective-permute'):  # (operands, results, ...)
        arrays = [size for size in arrays if size > 4] or arrays
        arrays = arrays[len(arrays) // 2 :]
    size = sum(arrays) * (group if kind == 'reduce-scatter' and instruction.operation != 'all-reduce' else 1)
    overlaps = started or 'async_collective' in instruction.rest or 'chain_id' in instruction.rest
    if kind == 'collective-permute':
        group = max(group, 2)
    return Collective(kind, size, group, 1, overlaps)


def array_bytes(dtype: str, dimensions: str) -> float:
    """Bytes of an array such as 'f32', '8,128'; 0 for other types (tokens)."""
    size = DTYPE_BYTES.get(dtype, 1 if dtype.startswith('f8') else 0)
    return size * math.prod(int(length) for length in dimensions.split(',') if length)


def group_size(text: str, devices: int) -> int:
    """Number of devices in a group of a collective, for all HLO notations of groups.

    {{0,1},{2,3}} lists them, [2,4]<=[8] is 2 groups of 4, mesh['a'=2,'b'=4] {'b'} names axes of a mesh.
    """
    if match := re.search(r"replica_groups=\w*mesh\[([^\]]*)\]\s*\{([^}]*)\}", text):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(size) if size else sizes.get(name, 1) for name, size in parts)
    if match := re.search(r'replica_groups=\[(\d+),(\d+)\]<=', text):
        return int(match[2])
    if match := re.search(r'replica_groups=\{\{([\d,]+)\}', text):
        return len(match[1].split(','))
    if 'source_target_pairs' in text:
        return 2
    return devices


def called_by(instruction: Instruction) -> Iterator[tuple[str, list[str]]]:
    """Yields (attribute, names) of the computations that an instruction calls."""
    for attribute, names in CALLED.findall(instruction.rest):
        yield attribute, [name.strip().lstrip('%') for name in names.strip('{}').split(',') if name.strip()]


def trip_count(loop: Instruction, condition: Sequence[Any], notes: list[str]) -> int:
    """Number of iterations of a loop: known, or the only integer constant in its condition."""
    if match := re.search(r'known_trip_count[^\d]*(\d+)', loop.rest):
        return int(match[1])
    constants = {
        int(match[1])
        for instruction in condition
        if instruction.operation == 'constant' and (match := re.match(r'constant\((\d+)\)', instruction.rest))
    }
    if len(constants) == 1:
        return constants.pop()
    notes.append('a loop of unknown length counts once')
    return 1
