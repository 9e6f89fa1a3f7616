"""Several processes as one run: started by a TPU pod, SLURM or Kubernetes, or with explicit flags."""

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
    """Returns the kind of cluster this process was started on as one of several, '' for a single process."""
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
    """Returns how many processes an environment variable says there are, 1 where it is not set."""
    return int(whole_number(environment.get(name, '1'), f'the environment variable {name}', 0, 2**31 - 1))


@contextlib.contextmanager
def joined(
    coordinator: str = '', num_processes: int = 0, process_id: int = -1, timeout: int = 120
) -> Iterator[str]:
    """Joins the other processes of this run, if there are any, and watches them; yields a sentence about it.

    Args:
      coordinator: 'host:port' of process 0; empty: what the cluster says.
      num_processes: how many there are; with `coordinator`.
      process_id: which of them this is, from 0; with `coordinator`.
      timeout: seconds to wait for the others at the start, and after which a dead one ends the rest.

    Raises:
      UserError: when the flags do not go together, or a process is missing after `timeout`.
    """
    sentence = start(coordinator, num_processes, process_id, timeout)
    if jax.process_count() == 1:
        yield sentence
        return
    watch = Watch(service(), jax.process_count(), jax.process_index(), timeout, end_process)
    watch.thread.start()
    try:
        yield sentence
    except BaseException as error:
        leave(watch, error)
        raise
    watch.close(DONE)


def leave(watch: Watch, error: BaseException) -> None:
    """Ends this process after an error, once the others know of it.

    A broken collective is rarely the cause: when another process died, the watch finds it and names it.
    """
    if isinstance(error, jax.errors.JaxRuntimeError) or 'Gloo' in str(error):  # also raised as a ValueError
        watch.thread.join(watch.timeout + 2 * watch.interval)
    watch.close(FAILED + failure(error))
    if not isinstance(error, UserError):
        traceback.print_exception(error)
    time.sleep(3 * watch.interval if watch.own == 0 else 0)  # the others read it from the service of process 0
    end_process(failure(error) if not isinstance(error, UserError) else str(error))


def start(coordinator: str, num_processes: int, process_id: int, timeout: int) -> str:
    """Initialises jax for several processes; returns a sentence about it, '' for one process."""
    explicit = (bool(coordinator), num_processes > 0, process_id >= 0)
    if any(explicit) and not all(explicit):
        raise UserError('--coordinator, --num_processes and --process_id go together: give all three or none')
    if coordinator and process_id >= num_processes:
        raise UserError(f'--process_id={process_id} must be below --num_processes={num_processes}')
    where = f'--coordinator={coordinator}' if coordinator else cluster(os.environ)
    if not where:
        return ''
    print(f'waiting up to {timeout} s for the other processes ({where})', flush=True)
    named = {}
    if coordinator:
        meet(coordinator, num_processes, process_id, timeout)
        host, port = split_address(coordinator)
        named = {'coordinator_address': coordinator, 'num_processes': num_processes, 'process_id': process_id}
        if is_local(host):
            named['coordinator_bind_address'] = f'{host}:{port}'
    try:  # our own watch is faster than jax's, which ends a process without naming the dead one
        jax.distributed.initialize(
            **named, initialization_timeout=timeout, heartbeat_timeout_seconds=2 * timeout + 30
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f'the processes of this run did not find each other ({where}) within {timeout} s: '
            f'{str(error).splitlines()[0]}. Start one process per host with the same --coordinator and '
            '--num_processes, and open the port between them'
        ) from None
    return f'process {jax.process_index()} of {jax.process_count()} ({where}), {jax.local_device_count()} devices here'


def service() -> Any:
    """Returns the client of jax's coordination service, a store of keys that all processes see.

    jax has no public name for it; Orbax reaches for it in the same way.
    """
    return jax_distributed.global_state.client


def wait_for_all(name: str, seconds: float = 24 * 3600) -> None:
    """Waits until every process is here; nothing for a single one.

    Collectives on CPU give up when one process comes half a minute after another, so the first one and the
    first step, which processes reach at different times, have this before them.
    """
    if jax.process_count() > 1:
        service().wait_at_barrier(name, int(seconds * 1000))
