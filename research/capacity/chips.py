"""Accelerators with their published rates, and the topologies they are available in."""

import math
import re
from typing import NamedTuple

from research.errors import UserError, choose, nearest

GIB = 2**30


class Chip(NamedTuple):
    """One accelerator. Rates are peaks, which no program reaches all at once."""

    name: str
    kind: str  # 'tpu' or 'gpu'
    memory: float  # bytes of high-bandwidth memory
    usable: float  # bytes of it available to a program
    flops: float  # bfloat16 matrix products, FLOP per second
    bandwidth: float  # of its memory, bytes per second
    interconnect: float  # to its neighbours, bytes per second, sum of both directions and all links
    axes: int  # dimensions of the torus; 0: a switch
    node: int = 0  # chips per switch
    network: float = 0.0  # per chip between nodes, bytes per second, one direction
    pod: tuple[int, ...] = ()  # the largest slice


class Topology(NamedTuple):
    """A slice of a TPU pod, or a number of GPUs."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)

    @property
    def text(self) -> str:
        """The command-line form: 'v5e:8x8', 'h100:8'."""
        return f'{self.chip.name}:{"x".join(map(str, self.shape))}'


def chips() -> dict[str, Chip]:
    """The supported chips by name.

    Sources. TPU: the pages 'TPU v4', 'TPU v5e', 'TPU v5p' and 'TPU v6e' of the Google Cloud documentation,
    cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, tables of specifications: peak compute per chip (bf16) 275,
    197, 459 and 918 TFLOP/s; HBM 32 GiB, 16, 95 and 32 GB at 1200, 819, 2765 and 1640 GB/s; bidirectional
    inter-chip interconnect per chip 400 GB/s (v5e), 1200 (v5p), 800 (v6e). The page of v4 has no such
    figure: its six links of 50 GB/s each way, 600 in total, are from Jouppi et al. 2023, arXiv:2304.01433, table 4.
    `usable` is the available memory that libtpu 0.0.52 reports for a program that exceeds it.

    GPU: NVIDIA's data sheets of the A100 (80 GB SXM: 312 TFLOP/s, 2039 GB/s, NVLink 600 GB/s), H100 (SXM:
    989 TFLOP/s dense, 3.35 TB/s, 900 GB/s) and H200 (SXM: 989 TFLOP/s, 141 GB, 4.8 TB/s, 900 GB/s); nodes of
    8, and one network port per GPU as in DGX A100 (200 Gbit/s) and DGX H100 and H200 (400 Gbit/s). `usable` is
    90%, a rule of thumb: the CUDA context, libraries and fragmentation take the rest.
    """
    tpu, gpu = 'tpu', 'gpu'
    known = (
        Chip('v4', tpu, 32 * GIB, 30.75 * GIB, 275e12, 1200e9, 600e9, 3, pod=(16, 16, 16)),
        Chip('v5e', tpu, 16 * GIB, 15.75 * GIB, 197e12, 819e9, 400e9, 2, pod=(16, 16)),
        Chip('v5p', tpu, 95 * GIB, 95.73 * GIB, 459e12, 2765e9, 1200e9, 3, pod=(16, 16, 24)),
        Chip('v6e', tpu, 32 * GIB, 31.24 * GIB, 918e12, 1640e9, 800e9, 2, pod=(16, 16)),
        Chip('a100', gpu, 80e9, 72e9, 312e12, 2039e9, 600e9, 0, 8, 25e9),
        Chip('h100', gpu, 80e9, 72e9, 989e12, 3350e9, 900e9, 0, 8, 50e9),
        Chip('h200', gpu, 141e9, 126.9e9, 989e12, 4800e9, 900e9, 0, 8, 50e9),
    )
    return {chip.name: chip for chip in known}


def read_topology(text: str) -> Topology:
    """Parses a topology such as 'v5e:8x8', 'v5p:4x4x4' or 'h100:16'.

    Raises:
      UserError: for an unknown chip (suggests the nearest) or an unsupported shape.
    """
    name, _, shape = text.partition(':')
    known = chips()
    if name not in known:
        hint = nearest(name, known)
        raise UserError(f'--topology={text}: unknown chip {name!r}; {hint} (written v5e:8x8, h100:8)')
    chip = choose(name, known, '--topology')
    example = {0: '8', 2: '8x8', 3: '4x4x4'}[chip.axes]
    if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', shape):
        raise UserError(f'--topology={text}: the shape is missing or invalid; write {name}:{example}')
    sizes = tuple(int(size) for size in shape.split('x'))
    if chip.axes and len(sizes) != chip.axes:
        raise UserError(f'--topology={text}: {name} comes in {chip.axes} dimensions, such as {name}:{example}')
    if chip.axes and any(size > largest for size, largest in zip(sorted(sizes), sorted(chip.pod), strict=True)):
        raise UserError(f'--topology={text}: the largest slice of {name} is {"x".join(map(str, chip.pod))}')
    return Topology(chip, sizes if chip.axes else (math.prod(sizes),))


def rate(topology: Topology, group: int) -> float:
    """Bytes per second that each chip can send in a collective of `group` chips.

    On a torus, the group is assumed to span whole axes, longest first, each of which contributes its links: in both
    directions if the axis wraps around, else in one (v5e and v6e wrap at 16 chips, v4 and v5p if all sides are
    multiples of 4). Between nodes of GPUs, the network is the limit.
    """
    chip = topology.chip
    if not chip.axes:
        return chip.interconnect / 2 if group <= chip.node else chip.network
    link = chip.interconnect / (4 * chip.axes)  # one link, one direction
    total = 0.0
    covered = 1
    for size in sorted(topology.shape, reverse=True):
        if covered >= group:
            break
        wraps = size == 16 if chip.axes == 2 else all(side % 4 == 0 for side in topology.shape)
        total += link * (2 if wraps else 1)
        covered *= size
    return total or 2 * link
