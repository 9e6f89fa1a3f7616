"""What a compiled program sends between devices, read from its HLO text.

Every collective is counted once for each time it runs: a loop's body as often as the loop turns, nested loops
multiplied. How often is read from the compiler's own `known_trip_count` where it says so, else from the
constant that the loop's condition compares with. A collective that the TPU compiler spreads over several
fusions, or writes as a start and a done, keeps one channel and counts once.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute', 'collective-broadcast')
SIZES = {'pred': 1, 's4': 0.5, 'u4': 0.5, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'f16': 2, 'bf16': 2, 's32': 4,
         'u32': 4, 'f32': 4, 's64': 8, 'u64': 8, 'f64': 8, 'c64': 8, 'c128': 16}  # fmt: skip

SHAPE = re.compile(r'\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\]')
HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$')
OPERATION = re.compile(r'(?:^|[\s)}\]])([a-z][a-z\d\-]*)\(')
CALLED = re.compile(r'\b(calls|body|condition|to_apply|branch_computations|true_computation|false_computation)='
                    r'(\{[^}]*\}|%?[\w.\-]+)')  # fmt: skip


class Collective(NamedTuple):
    """One collective: the data it makes whole or sums on each device, in how large a group, how often."""

    kind: str
    bytes: float  # of the gathered, summed, exchanged or sent data of one device
    group: int  # devices that take part together
    times: int  # a step
    overlaps: bool = False  # whether the compiler runs it beside other work

    @property
    def sent(self) -> float:
        """Bytes that each device sends in one run, by a ring (Thakur et al. 2005, sections 4.1 to 4.5)."""
        share = (self.group - 1) / self.group
        return self.bytes * {'all-reduce': 2 * share, 'collective-permute': 1.0}.get(self.kind, share)


class Instruction(NamedTuple):
    """One line of HLO text: its name, operation, and the text before and from the operation on."""

    name: str
    operation: str
    shape: str
    rest: str


def read_collectives(text: str, devices: int) -> tuple[list[Collective], list[str]]:
    """Returns every collective of an optimized HLO module, and sentences on what could not be counted.

    Args:
      text: `compiled.as_text()`.
      devices: how many run the program, for groups that name none.
    """
    computations, entry = read_computations(text)
    notes: list[str] = []
    memory: dict[str, list] = {}
    found = walk(entry, computations, devices, notes, memory)
    return [each for _, each in found if each.group > 1], sorted(set(notes))


def summarize(collectives: Sequence[Collective]) -> dict[str, dict[str, float]]:
    """Returns {kind: {'count', 'bytes', 'sent'}} of one step and one device, loops multiplied out."""
    table: dict[str, dict[str, float]] = {}
    for each in collectives:
        row = table.setdefault(each.kind, {'count': 0, 'bytes': 0.0, 'sent': 0.0})
        row['count'] += each.times
        row['bytes'] += each.bytes * each.times
        row['sent'] += each.sent * each.times
    return dict(sorted(table.items()))


def read_computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Returns {computation: its instructions} and the name of the entry."""
    computations: dict[str, list[Instruction]] = {}
    current, entry = '', ''
    for line in text.splitlines():
        if header := HEADER.match(line):
            current = header[2]
            computations[current] = []
            entry = current if header[1] else entry
        elif current and (found := INSTRUCTION.match(line)):
            if operation := OPERATION.search(found[2]):
                start = operation.start(1)
                computations[current].append(
                    Instruction(found[1], operation[1], found[2][:start], found[2][start:])
                )
    return computations, entry


def walk(
    name: str, computations: Mapping[str, list[Instruction]], devices: int, notes: list[str], memory: dict[str, list]
) -> list[tuple[str, Collective]]:
    """Returns (channel, collective) of everything that one run of a computation does, itself or in what it calls."""
    if name in memory:
        return memory[name]
    here: dict[str, Collective] = {}
    loops: list[tuple[str, Collective]] = []
    for each in computations.get(name, ()):
        kind = kind_of(each.operation)
        called = dict(called_by(each))
        if kind:
            if name.startswith('all-reduce-scatter'):  # TPU: a sum of which each device keeps its part
                kind = 'reduce-scatter'
            keep(here, channel(each), read_one(each, kind, devices))
        elif each.operation == 'while':
            times = trip_count(each, computations.get(called['condition'][0], ()), notes)
            for key, inner in walk(called['body'][0], computations, devices, notes, memory):
                loops.append((key, inner._replace(times=inner.times * times)))
        elif each.operation == 'conditional':
            names = [branch for names in called.values() for branch in names]
            branches = [walk(branch, computations, devices, notes, memory) for branch in names]
            loops += max(branches, key=lambda branch: sum(c.sent * c.times for _, c in branch), default=[])
        elif each.operation in ('call', 'custom-call'):
            for names in called.values():
                for inner in names:
                    loops += walk(inner, computations, devices, notes, memory)
        elif 'calls' in called:  # a fusion or an asynchronous part: the same channel is the same collective
            for key, inner in walk(called['calls'][0], computations, devices, notes, memory):
                keep(here, key, inner)
    others = []
    for key, each in loops:
        if each.overlaps and here.get(key, each).overlaps:
            keep(here, key, each)
        else:
            others.append((key, each))
    memory[name] = [*here.items(), *others]
    return memory[name]


def keep(here: dict[str, Collective], key: str, new: Collective) -> None:
    """Puts a collective under its channel; parts of one keep its largest size, and run as often as its start.

    The TPU compiler lets the parts of one gather run inside a loop that begins after it: fewest times is how often.
    """
    old = here.get(key)
    if old is not None:
        kind = 'reduce-scatter' if 'reduce-scatter' in (old.kind, new.kind) else new.kind
        size, times = max(old.bytes, new.bytes), min(old.times, new.times)
        new = new._replace(kind=kind, bytes=size, times=times, overlaps=True)
    here[key] = new


def kind_of(operation: str) -> str:
    """Returns the kind of collective an operation begins, '' for any other; '-done' ends one already counted."""
    name = operation.removesuffix('-start')
    return name if name in KINDS else ''


def channel(instruction: Instruction) -> str:
    """Returns what the parts of one collective share."""
    found = re.search(r'channel_id=(\d+)', instruction.rest)
    return found[1] if found else instruction.name


def read_one(instruction: Instruction, kind: str, devices: int) -> Collective:
    """Returns a collective from its line; it runs once a run of its computation."""
    group = group_size(instruction.rest, devices)
    arrays = [array_bytes(*found) for found in SHAPE.findall(instruction.shape)]
    started = instruction.operation.endswith('-start')
    if started and kind in ('all-gather', 'collective-permute'):  # (operands, results, ...)
        arrays = [size for size in arrays if size > 4] or arrays
        arrays = arrays[len(arrays) // 2 :]
    size = sum(arrays) * (group if kind == 'reduce-scatter' and instruction.operation != 'all-reduce' else 1)
    overlaps = started or 'async_collective' in instruction.rest or 'chain_id' in instruction.rest
    if kind == 'collective-permute':
        group = max(group, 2)
    return Collective(kind, size, group, 1, overlaps)


def array_bytes(kind: str, dimensions: str) -> float:
    """Returns the bytes of 'f32', '8,128'; 0 for what is no array (tokens)."""
    size = SIZES.get(kind, 1 if kind.startswith('f8') else 0)
    return size * math.prod(int(each) for each in dimensions.split(',') if each)


def group_size(text: str, devices: int) -> int:
    """Returns how many devices a collective joins, from any of the ways in which HLO writes groups.

    {{0,1},{2,3}} lists them, [2,4]<=[8] is 2 groups of 4, mesh['a'=2,'b'=4] {'b'} names axes of a mesh.
    """
    if found := re.search(r"replica_groups=\w*mesh\[([^\]]*)\]\s*\{([^}]*)\}", text):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", found[1])}
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(size) if size else sizes.get(name, 1) for name, size in parts)
    if found := re.search(r'replica_groups=\[(\d+),(\d+)\]<=', text):
        return int(found[2])
    if found := re.search(r'replica_groups=\{\{([\d,]+)\}', text):
        return len(found[1].split(','))
    if 'source_target_pairs' in text:
        return 2
    return devices


def called_by(instruction: Instruction) -> Iterator[tuple[str, list[str]]]:
    """Yields (how, names) of the computations that an instruction runs."""
    for how, names in CALLED.findall(instruction.rest):
        yield how, [each.strip().lstrip('%') for each in names.strip('{}').split(',') if each.strip()]


def trip_count(loop: Instruction, condition: Sequence[Any], notes: list[str]) -> int:
    """Returns how often a loop turns: known, or the only whole number that its condition compares with."""
    if found := re.search(r'known_trip_count[^\d]*(\d+)', loop.rest):
        return int(found[1])
    constants = {
        int(found[1])
        for each in condition
        if each.operation == 'constant' and (found := re.match(r'constant\((\d+)\)', each.rest))
    }
    if len(constants) == 1:
        return constants.pop()
    notes.append('a loop of unknown length counts once')
    return 1
