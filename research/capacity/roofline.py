"""Estimates the time of a step by a roofline model with published rates."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from research.capacity.chips import Topology, rate
from research.capacity.collectives import Collective

FORMULA = (
    'step = max(compute, memory) + exposed communication',
    'compute = FLOPs of matrix products / (chips x peak)',
    'memory = (arguments read + written, temporaries and gathered weights written + read) / HBM bandwidth',
    'communication = sum over collectives of bytes sent by a ring / links of the axes they span',
    'exposed = communication without overlap + overlapped communication beyond max(compute, memory)',
)


class Cost(NamedTuple):
    """Seconds of one step, and its share of the chips' peak."""

    compute: float
    memory: float
    communication: float
    exposed: float
    expected: float
    share: float  # of peak, counting all executed FLOPs
    useful: float  # of peak, without recomputation by remat; 0 if unknown
    bound: str  # 'compute', 'memory' or 'communication'


def estimate(
    topology: Topology,
    memory: Mapping[str, float],
    flops: float,
    useful: float,
    collectives: Sequence[Collective],
    overlap: bool,
) -> Cost:
    """Estimates the time of a step (the roofline model, Williams et al. 2009, plus communication).

    Args:
      topology: provides the rates.
      memory: bytes per device, from `memory_of`.
      flops: of matrix products over all devices, including recomputation.
      useful: the same without recomputation; 0 if unknown.
      collectives: of one device.
      overlap: assume that all collectives overlap with other work, for HLO text without this information.
    """
    chip = topology.chip
    peak = topology.count * topology.chip.flops
    compute = flops / peak
    gathered = sum(item.bytes * item.times for item in collectives if item.kind == 'all-gather')
    state = memory['total'] - memory['temporaries']
    traffic = 2 * (state + memory['temporaries'] + gathered)
    moved = traffic / chip.bandwidth
    overlapped = blocking = 0.0
    for collective in collectives:
        seconds = collective.sent * collective.times / rate(topology, collective.group)
        if collective.overlaps or overlap:
            overlapped += seconds
        else:
            blocking += seconds
    work = max(compute, moved)
    exposed = blocking + max(0.0, overlapped - work)
    expected = work + exposed
    bound = 'communication' if exposed > work else 'compute' if compute >= moved else 'memory'
    return Cost(
        compute, moved, blocking + overlapped, exposed, expected, compute / expected, useful / peak / expected, bound
    )
