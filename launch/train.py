"""Trains, evaluates and reports a config; the same command resumes an interrupted run.

    python -m launch.train --config=configs/digits.py --workdir=runs/digits
    python -m launch.train --config=configs/digits.py:tiny --config.train.steps=20 --config.methods=lora

On a TPU pod, SLURM or a Kubernetes JobSet, start the same command on every host; the processes find each other.
Elsewhere, give the address of process 0: --coordinator=HOST:PORT --num_processes=2 --process_id=0 (and 1).
"""

import pathlib

from absl import flags

import launch.flags
import research

CONFIG = flags.DEFINE_string('config', '', 'A file of configs/, optionally with :variant.')
WORKDIR = flags.DEFINE_string('workdir', '', 'The folder of the run, local or gs://; default runs/<config>.')
COORDINATOR = flags.DEFINE_string('coordinator', '', 'HOST:PORT of process 0, if no cluster provides it.')
NUM_PROCESSES = flags.DEFINE_integer('num_processes', 0, 'Number of processes; with --coordinator.')
PROCESS_ID = flags.DEFINE_integer('process_id', -1, 'Index of this process, from 0; with --coordinator.')
TIMEOUT = flags.DEFINE_integer('timeout', 120, 'Seconds until a missing or dead process ends the others.', 10)
flags.declare_key_flag('fetch')


def main(overrides: dict[str, str]) -> int:
    """Runs the config of the flags; the exit status of a run stopped by a signal is 128 + its number."""
    from research.cluster import join as distributed
    from research.core.outcome import Stop
    from research.errors import UserError
    from research.locations import split_variant

    if not CONFIG.value:
        raise UserError('--config is missing, for example --config=configs/digits.py')
    path, variant = split_variant(CONFIG.value)
    name = pathlib.Path(path).stem
    workdir = WORKDIR.value or f'runs/{name}{"_" + variant if variant else ""}'
    config = research.read(CONFIG.value, overrides)
    flags_of_cluster = (COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, TIMEOUT.value)
    with distributed.joined(*flags_of_cluster, advice=lambda: resume_text(workdir)) as status:
        if status:
            print(status, flush=True)
        summary = research.run(config, workdir).summary
    return 128 + summary.signal if summary.stop == Stop.SIGNAL else 0  # nonzero: a cluster should restart the run


def resume_text(workdir: str) -> str:
    """A line on what to do after the death of one of several processes."""
    from research.checkpoint.manifest import finished_steps
    from research.locations import run_folder

    steps = finished_steps(run_folder(workdir))
    where = f'from its checkpoint of step {steps[-1]}' if steps else 'from the start, as it has no checkpoint yet'
    return f'Start the same command again in every process: the run in {workdir} resumes {where}\n'


if __name__ == '__main__':
    launch.flags.run(main)
