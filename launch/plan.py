"""Says what a run would take on chips you do not have: memory, work, communication, time, the largest batch.

    python -m launch.plan --config=configs/gpt.py:8b --topology=v5e:8x8 --mesh=data:8,fsdp:8
    python -m launch.plan --config=configs/gpt.py:1b --topology=h100:8

Compiles the real step for a TPU slice with libtpu (pip install '.[plan]', Linux), without a TPU; for GPUs, or
without libtpu, for fake CPU devices, and says that this is an estimate. Exit status 1 where it does not fit.
"""

import dataclasses
import json
import sys
import tempfile

from absl import flags

import launch.flags

CONFIG = flags.DEFINE_string('config', '', 'A file of configs/, with :variant where it has some.')
TOPOLOGY = flags.DEFINE_string('topology', '', 'Chips: v4:4x4x4, v5e:8x8, v5p:4x4x4, v6e:8x8, a100:8, h100:8, h200:8.')
MESH = flags.DEFINE_string('mesh', '', 'Chips along each axis, as data:8,fsdp:8; default: config.mesh.')
SEARCH = flags.DEFINE_integer('search', 3, 'Compiles for the largest batch, and for settings that fit; 0: none.', 0)
SYNTHETIC = flags.DEFINE_bool('synthetic', False, "Read no data: config.data becomes the task's made-up data set.")
COMPILER = flags.DEFINE_enum('compiler', 'auto', ['auto', 'tpu', 'cpu'], 'What compiles; cpu gives an estimate.')
JSON = flags.DEFINE_bool('json', False, 'Print the plan as JSON instead of text.')


def main(overrides: dict[str, str]) -> int:
    """Prints the plan; returns 1 where it does not fit."""
    import jax
    from etils import epath

    from research import api
    from research.capacity.aot import find_target
    from research.capacity.chips import read_topology
    from research.capacity.planner import Planner, make_report, read_mesh
    from research.capacity.text import print_plan
    from research.errors import UserError

    for flag, name, example in ((CONFIG, 'config', 'configs/gpt.py:8b'), (TOPOLOGY, 'topology', 'v5e:8x8')):
        if not flag.value:
            raise UserError(f'--{name} is missing, for example --{name}={example}')
    topology = read_topology(TOPOLOGY.value)
    config = api.read(CONFIG.value, overrides)
    mesh = read_mesh(MESH.value, topology, config.mesh)
    data = {'name': 'synthetic'} if SYNTHETIC.value else config.data
    config = dataclasses.replace(config, mesh=mesh, data=data)
    jax.config.update('jax_platforms', 'cpu')  # this process computes nothing, whatever chips are here
    jax.config.update('jax_enable_compilation_cache', False)  # programs for absent chips are stored, never read
    target = find_target(topology, COMPILER.value)
    with tempfile.TemporaryDirectory() as name:
        folder = epath.Path(name)
        api.prepare(config, folder)
        planner = Planner(target, lambda each: api.build(each, folder), lambda text: print(text, file=sys.stderr))
        report = make_report(planner, config, SEARCH.value, lambda larger: find_target(larger, COMPILER.value))
    report = {'config': CONFIG.value, **report}
    if JSON.value:
        print(json.dumps(report, indent=2))
    else:
        print_plan(report)
    return int(not report['memory']['fits'])


if __name__ == '__main__':
    launch.flags.run(main)
