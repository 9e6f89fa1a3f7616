"""Multi-process runs: started by a TPU pod, SLURM or Kubernetes, or with explicit flags."""

import contextlib
import functools
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax._src import distributed as jax_distributed
from jax._src.clusters import ClusterEnv

from research.cluster.heartbeat import FAILED, Watch, end_process, failure
from research.cluster.relay import Relay
from research.cluster.rendezvous import is_local, meet, split_address
from research.cluster.signals import Interrupted
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
    coordinator: str = '', num_processes: int = 0, process_id: int = -1, timeout: int = 120,
    advice: Callable[[], str] = str,
) -> Iterator[str]:  # fmt: skip
    """Joins the other processes of this run, if any, and monitors them; yields a status line, '' for one process.

    If a process dies, the others print which one, then `advice()`, and exit with status 1. Every process stays until
    all are done.

    Args:
      coordinator: 'host:port' of process 0; empty: from the cluster's environment.
      num_processes: number of processes; with `coordinator`.
      process_id: index of this process, from 0; with `coordinator`.
      timeout: seconds to wait for the others at the start, and without heartbeats until a process counts as dead.
      advice: what to do after the death of a process.

    Raises:
      UserError: if the flags are inconsistent, or a process is missing after `timeout`.
    """
    status, lost = start(coordinator, num_processes, process_id, timeout)
    if jax.process_count() == 1:
        yield status
        return
    end = functools.partial(end_process, advice=advice)
    watch = Watch(service(), jax.process_count(), jax.process_index(), timeout, end, lost)
    watch.start()
    try:
        yield status
        wait_for_all('done')
    except BaseException as error:
        leave(watch, error)
        raise
    watch.close()
    timer = end_after(timeout, 'another process ended before all had left the run')
    jax.distributed.shutdown()
    timer.cancel()


def leave(watch: Watch, error: BaseException) -> None:
    """Ends this process after an error, once the others have been notified.

    A failed collective is usually a consequence: if another process died, the watch detects and names it.
    """
    if isinstance(error, jax.errors.JaxRuntimeError) or 'Gloo' in str(error):  # also raised as a ValueError
        watch.thread.join(watch.timeout + 3 * watch.interval + watch.grace)
    watch.close()
    expected = isinstance(error, (UserError, Interrupted))
    if not expected:
        traceback.print_exception(error)
    problem = str(error) if expected else failure(error)
    end_after(watch.timeout, problem)  # in case the service is gone
    watch.try_publish(FAILED + failure(error))
    time.sleep(watch.grace)
    end_process(problem)


def end_after(seconds: float, problem: str) -> threading.Timer:
    """Ends this process after `seconds`, unless the returned timer is cancelled."""
    timer = threading.Timer(seconds, end_process, [problem])
    timer.daemon = True
    timer.start()
    return timer


def start(coordinator: str, num_processes: int, process_id: int, timeout: int) -> tuple[str, threading.Event | None]:
    """Initializes jax for several processes.

    Returns a status line, '' for one process; and an event that is set when process 0 is lost, None in process 0.
    """
    explicit = (bool(coordinator), num_processes > 0, process_id >= 0)
    if any(explicit) and not all(explicit):
        raise UserError('--coordinator, --num_processes and --process_id belong together: give all three or none')
    if coordinator and process_id >= num_processes:
        raise UserError(f'--process_id={process_id} must be below --num_processes={num_processes}')
    origin = f'--coordinator={coordinator}' if coordinator else cluster(os.environ)
    if not origin:
        return '', None
    print(f'waiting up to {timeout} s for the other processes ({origin})', flush=True)
    if coordinator:
        meet(coordinator, num_processes, process_id, timeout)
    try:
        lost = initialize(coordinator, num_processes, process_id, timeout)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f'the processes of this run did not find each other ({origin}) within {timeout} s: '
            f'{str(error).splitlines()[0]}. Start one process per host with the same --coordinator and '
            '--num_processes, and open the port between them'
        ) from None
    status = (
        f'process {jax.process_index()} of {jax.process_count()} ({origin}), {jax.local_device_count()} devices here'
    )
    return status, lost


def initialize(coordinator: str, num_processes: int, process_id: int, timeout: int) -> threading.Event | None:
    """Initializes jax, in processes other than 0 by way of a relay; without `coordinator`, from the environment."""
    if not coordinator:  # as jax.distributed.initialize does; the relay needs the address
        detect = ClusterEnv.auto_detect_unset_distributed_params
        address, count, process, _ = detect(
            os.environ.get('JAX_COORDINATOR_ADDRESS'), None, None, None, None, timeout
        )
        if address is None or count is None or process is None:
            raise ValueError('the environment does not name the coordinator and the number of processes')
        coordinator, num_processes, process_id = address, count, process
    host, port = split_address(coordinator)
    relay = Relay(host, port) if process_id else None
    jax.distributed.initialize(
        relay.address if relay else coordinator, num_processes, process_id, initialization_timeout=timeout,
        coordinator_bind_address=coordinator if is_local(host) and not relay else None,
        heartbeat_timeout_seconds=2 * timeout + 30,  # our watch, which names the dead process, is faster
    )  # fmt: skip
    return relay.lost if relay else None


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
