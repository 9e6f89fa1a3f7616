"""Multi-process runs: started by a TPU pod, SLURM or Kubernetes, or with explicit flags."""

import contextlib
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax._src import distributed as jax_distributed

from research.cluster.heartbeat import DONE, FAILED, Watch, end_process, failure
from research.cluster.rendezvous import is_local, meet, split_address
from research.data.fields import whole_number
from research.errors import UserError


def cluster(environment: Mapping[str, str]) -> str:
    """Detects the cluster that started this process as one of several; '' for a single process."""
    if processes(environment, 'SLURM_NTASKS') > 1 and 'SLURM_PROCID' in environment:
        return 'SLURM'
    if ',' in environment.get('TPU_WORKER_HOSTNAMES', ''):
        return 'a TPU pod'
    if 'MEGASCALE_COORDINATOR_ADDRESS' in environment:
        return 'several TPU slices'
    if 'JOBSET_NAME' in environment and 'JOB_COMPLETION_INDEX' in environment:
        return 'a Kubernetes JobSet'
    if processes(environment, 'OMPI_COMM_WORLD_SIZE') > 1:
        return 'Open MPI'
    return ''


def processes(environment: Mapping[str, str], name: str) -> int:
    """Number of processes in an environment variable; 1 if it is not set."""
    return int(whole_number(environment.get(name, '1'), f'the environment variable {name}', 0, 2**31 - 1))


@contextlib.contextmanager
def joined(
    coordinator: str = '', num_processes: int = 0, process_id: int = -1, timeout: int = 120
) -> Iterator[str]:
    """Joins the other processes of this run, if any, and monitors them; yields a status line, '' for one process.

    Args:
      coordinator: 'host:port' of process 0; empty: from the cluster's environment.
      num_processes: number of processes; with `coordinator`.
      process_id: index of this process, from 0; with `coordinator`.
      timeout: seconds to wait for the others at the start, and without heartbeats until a process counts as dead.

    Raises:
      UserError: if the flags are inconsistent, or a process is missing after `timeout`.
    """
    status = start(coordinator, num_processes, process_id, timeout)
    if jax.process_count() == 1:
        yield status
        return
    watch = Watch(service(), jax.process_count(), jax.process_index(), timeout, end_process)
    watch.thread.start()
    try:
        yield status
    except BaseException as error:
        leave(watch, error)
        raise
    watch.close(DONE)


def leave(watch: Watch, error: BaseException) -> None:
    """Ends this process after an error, once the others have been notified.

    A failed collective is usually a consequence: if another process died, the watch detects and names it.
    """
    if isinstance(error, jax.errors.JaxRuntimeError) or 'Gloo' in str(error):  # also raised as a ValueError
        watch.thread.join(watch.timeout + 2 * watch.interval)
    watch.close(FAILED + failure(error))
    if not isinstance(error, UserError):
        traceback.print_exception(error)
    time.sleep(3 * watch.interval if watch.process == 0 else 0)  # process 0 hosts the service that the others read
    end_process(failure(error) if not isinstance(error, UserError) else str(error))


def start(coordinator: str, num_processes: int, process_id: int, timeout: int) -> str:
    """Initializes jax for several processes; returns a status line, '' for one process."""
    explicit = (bool(coordinator), num_processes > 0, process_id >= 0)
    if any(explicit) and not all(explicit):
        raise UserError('--coordinator, --num_processes and --process_id belong together: give all three or none')
    if coordinator and process_id >= num_processes:
        raise UserError(f'--process_id={process_id} must be below --num_processes={num_processes}')
    origin = f'--coordinator={coordinator}' if coordinator else cluster(os.environ)
    if not origin:
        return ''
    print(f'waiting up to {timeout} s for the other processes ({origin})', flush=True)
    addresses = {}
    if coordinator:
        meet(coordinator, num_processes, process_id, timeout)
        host, port = split_address(coordinator)
        addresses = {'coordinator_address': coordinator, 'num_processes': num_processes, 'process_id': process_id}
        if is_local(host):
            addresses['coordinator_bind_address'] = f'{host}:{port}'
    try:  # our watch detects failures before jax's, which does not name the dead process
        jax.distributed.initialize(
            **addresses, initialization_timeout=timeout, heartbeat_timeout_seconds=2 * timeout + 30
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f'the processes of this run did not find each other ({origin}) within {timeout} s: '
            f'{str(error).splitlines()[0]}. Start one process per host with the same --coordinator and '
            '--num_processes, and open the port between them'
        ) from None
    return f'process {jax.process_index()} of {jax.process_count()} ({origin}), {jax.local_device_count()} devices here'


def service() -> Any:
    """The client of jax's coordination service, a key-value store shared by all processes.

    jax has no public name for it; Orbax uses the same private one.
    """
    return jax_distributed.global_state.client


def wait_for_all(name: str, seconds: float = 24 * 3600) -> None:
    """Waits until all processes reach this barrier; does nothing for a single process.

    Collectives on CPU fail if processes arrive half a minute apart. Use this before the first collective and the first
    step, which processes reach at different times.
    """
    if jax.process_count() > 1:
        service().wait_at_barrier(name, int(seconds * 1000))
