"""Several processes as one run: started by a TPU pod, SLURM or Kubernetes, or with explicit flags."""

import os
from collections.abc import Mapping

import jax

from research.errors import UserError


def cluster(environment: Mapping[str, str]) -> str:
    """Returns the kind of cluster this process was started on as one of several, '' for a single process."""
    if int(environment.get('SLURM_NTASKS', '1')) > 1 and 'SLURM_PROCID' in environment:
        return 'SLURM'
    if ',' in environment.get('TPU_WORKER_HOSTNAMES', ''):
        return 'a TPU pod'
    if 'MEGASCALE_COORDINATOR_ADDRESS' in environment:
        return 'several TPU slices'
    if 'JOBSET_NAME' in environment and 'JOB_COMPLETION_INDEX' in environment:
        return 'a Kubernetes JobSet'
    if int(environment.get('OMPI_COMM_WORLD_SIZE', '1')) > 1:
        return 'Open MPI'
    return ''


def start(coordinator: str = '', num_processes: int = 0, process_id: int = -1, timeout: int = 120) -> str:
    """Joins the other processes of this run, if there are any; returns a sentence about it, '' for one process.

    Args:
      coordinator: 'host:port' of process 0; empty: what the cluster says.
      num_processes: how many there are; with `coordinator`.
      process_id: which of them this is, from 0; with `coordinator`.
      timeout: seconds to wait for the others at the start, and after which a dead one ends the rest.

    Raises:
      UserError: when the flags do not go together, or a process is missing after `timeout`.
    """
    explicit = (bool(coordinator), num_processes > 0, process_id >= 0)
    if any(explicit) and not all(explicit):
        raise UserError('--coordinator, --num_processes and --process_id go together: give all three or none')
    if coordinator and process_id >= num_processes:
        raise UserError(f'--process_id={process_id} must be below --num_processes={num_processes}')
    where = f'--coordinator={coordinator}' if coordinator else cluster(os.environ)
    if not where:
        return ''
    print(f'waiting up to {timeout} s for the other processes ({where})', flush=True)
    named = {'coordinator_address': coordinator, 'num_processes': num_processes, 'process_id': process_id}
    try:
        jax.distributed.initialize(
            **(named if coordinator else {}), initialization_timeout=timeout, heartbeat_timeout_seconds=timeout
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f'the processes of this run did not find each other ({where}) within {timeout} s: '
            f'{str(error).splitlines()[0]}. Start one process per host with the same --coordinator and '
            '--num_processes, and open the port between them'
        ) from None
    return f'process {jax.process_index()} of {jax.process_count()} ({where}), {jax.local_device_count()} devices here'
