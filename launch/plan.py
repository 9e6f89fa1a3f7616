"""Plans a run for chips you do not have: memory, FLOPs, communication, time, the largest batch.

    python -m launch.plan --config=configs/gpt.py:8b --topology=v5e:8x8 --mesh=data:8,fsdp:8
    python -m launch.plan --config=configs/gpt.py:1b --topology=h100:8

Compiles the actual step for a TPU slice with libtpu (pip install '.[plan]', Linux), without a TPU. For GPUs, or without
libtpu, compiles for fake CPU devices and marks the plan as an estimate. The exit status is 1 if the run does not fit.
"""

import dataclasses
import json
import sys
import tempfile

from absl import flags

import launch.flags

CONFIG = flags.DEFINE_string('config', '', 'A file of configs/, optionally with :variant.')
TOPOLOGY = flags.DEFINE_string('topology', '', 'Chips: v4:4x4x4, v5e:8x8, v5p:4x4x4, v6e:8x8, a100:8, h100:8, h200:8.')
MESH = flags.DEFINE_string('mesh', '', 'Chips along each axis, as data:8,fsdp:8; default: config.mesh.')
SEARCH = flags.DEFINE_integer('search', 3, 'Compilations to find the largest batch, and settings that fit.', 0)
SYNTHETIC = flags.DEFINE_bool('synthetic', False, "Read no data; use the task's synthetic data set.")
COMPILER = flags.DEFINE_enum('compiler', 'auto', ['auto', 'tpu', 'cpu'], 'Compiler; cpu gives an estimate.')
JSON = flags.DEFINE_bool('json', False, 'Print the plan as JSON instead of text.')


def main(overrides: dict[str, str]) -> int:
    """Prints the plan; returns 1 if the run does not fit."""
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
    jax.config.update('jax_platforms', 'cpu')  # this process only compiles, regardless of local chips
    jax.config.update('jax_enable_compilation_cache', False)  # programs for absent chips would be stored but never read
    target = find_target(topology, COMPILER.value)
    with tempfile.TemporaryDirectory() as name:
        folder = epath.Path(name)
        api.prepare(config, folder)
        planner = Planner(target, lambda changed: api.build(changed, folder), lambda text: print(text, file=sys.stderr))
        report = make_report(planner, config, SEARCH.value, lambda larger: find_target(larger, COMPILER.value))
    report = {'config': CONFIG.value, **report}
    if JSON.value:
        print(json.dumps(report, indent=2))
    else:
        print_plan(report)
    return int(not report['memory']['fits'])


if __name__ == '__main__':
    launch.flags.run(main)
