"""How long a step should take: a roofline of published rates. An estimate, with its formula."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from research.capacity.chips import Topology, rate
from research.capacity.collectives import Collective

FORMULA = (
    'step = max(compute, memory) + exposed communication',
    'compute = FLOPs of matrix products / (chips x peak)',
    'memory = (arguments read + written, temporaries and gathered weights written + read) / HBM bandwidth',
    'communication = sum over collectives of bytes sent by a ring / links of the axes they span',
    'exposed = what the compiler runs beside nothing + what is left of the rest beyond max(compute, memory)',
)


class Cost(NamedTuple):
    """Seconds of one step, and the share of the chips' peak that it would reach."""

    compute: float
    memory: float
    communication: float
    exposed: float
    expected: float
    share: float  # of peak, by the FLOPs that run
    useful: float  # of peak, without what remat computes again (0 where it is not known)
    bound: str  # 'compute', 'memory' or 'communication'


def estimate(
    topology: Topology,
    memory: Mapping[str, float],
    flops: float,
    useful: float,
    collectives: Sequence[Collective],
    overlap: bool,
) -> Cost:
    """Returns the expected time of a step (Williams et al. 2009, the roofline model, with communication added).

    Args:
      topology: its rates.
      memory: bytes on each device, from `memory_of`.
      flops: of matrix products over all devices, recomputation included.
      useful: the same without recomputation; 0 where it is not known.
      collectives: of one device.
      overlap: whether every collective may run beside other work (where the text does not say which do).
    """
    chip, peak = topology.chip, topology.count * topology.chip.flops
    compute = flops / peak
    gathered = sum(each.bytes * each.times for each in collectives if each.kind == 'all-gather')
    state = memory['total'] - memory['temporaries']
    traffic = 2 * (state + memory['temporaries'] + gathered)
    moved = traffic / chip.bandwidth
    beside = alone = 0.0
    for each in collectives:
        seconds = each.sent * each.times / rate(topology, each.group)
        if each.overlaps or overlap:
            beside += seconds
        else:
            alone += seconds
    work = max(compute, moved)
    exposed = alone + max(0.0, beside - work)
    expected = work + exposed
    bound = 'communication' if exposed > work else 'compute' if compute >= moved else 'memory'
    return Cost(
        compute, moved, alone + beside, exposed, expected, compute / expected, useful / peak / expected, bound
    )
