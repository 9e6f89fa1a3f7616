"""Meeting the other processes before jax does, so that a missing one is named instead of waited for in silence.

Process 0 listens on the coordinator's port, every other process connects and says its number; when all are
there, process 0 answers 'go' and frees the port for jax. Standard library only.
"""

import contextlib
import socket
import time
from collections.abc import Iterable

from research.errors import UserError

LONGEST = 200  # bytes of a message


def split_address(coordinator: str) -> tuple[str, int]:
    """Returns host and port of 'host:port'; raises a `UserError` where it is something else."""
    host, _, port = coordinator.rpartition(':')
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f'--coordinator={coordinator}: give HOST:PORT of process 0, such as 10.0.0.2:8476')
    return host.strip('[]'), int(port)


def is_local(host: str) -> bool:
    """Returns whether a host name stands for this machine alone."""
    return host in ('localhost', '127.0.0.1', '::1')


def meet(coordinator: str, count: int, process: int, timeout: float) -> None:
    """Waits until all `count` processes are there; `process` is the number of this one.

    Raises:
      UserError: names the processes that are missing after `timeout` seconds, or the number that came twice.
    """
    host, port = split_address(coordinator)
    deadline = time.monotonic() + timeout
    if process == 0:
        gather_others(host, port, count, deadline, timeout)
    else:
        report_to_first(host, port, process, deadline, timeout)


def gather_others(host: str, port: int, count: int, deadline: float, timeout: float) -> None:
    """Listens for processes 1 to `count` - 1 and answers all of them at once."""
    arrived: dict[int, socket.socket] = {}
    try:
        server = listen(host, port)
    except OSError as error:
        raise UserError(f'process 0 cannot listen on port {port}: {error.strerror}; choose another port') from None
    with server, contextlib.ExitStack() as connections:
        while len(arrived) < count - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                problem = missing(set(range(1, count)) - arrived.keys(), timeout)
                answer(arrived.values(), problem)
                raise UserError(problem) from None
            connections.enter_context(connection)
            number = read_number(connection, deadline)
            if number < 0:
                continue  # no process of ours: anything may knock at an open port
            if number in arrived or not 0 < number < count:
                problem = f'a process came with --process_id={number}, which another has or --num_processes excludes'
                answer([*arrived.values(), connection], problem)
                raise UserError(problem)
            arrived[number] = connection
        answer(arrived.values(), 'go')


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket: on this machine alone for a local host, on all addresses otherwise."""
    if is_local(host):
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(('', port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(('', port))


def report_to_first(host: str, port: int, process: int, deadline: float, timeout: float) -> None:
    """Connects to process 0, says this process' number, and waits for its answer."""
    silent = f'process 0 did not answer at {host}:{port} within {timeout:g} s: start it, and open the port to it'
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise UserError(silent)
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                connection.sendall(f'{process}\n'.encode())
                connection.settimeout(max(deadline - time.monotonic(), 0.0) + 5)  # process 0 may give up just now
                reply = connection.makefile('rb').readline(LONGEST).decode(errors='replace').strip()
        except (OSError, TimeoutError):
            time.sleep(0.2)  # process 0 may not listen yet
            continue
        if reply == 'go':
            return
        if reply:
            raise UserError(reply)
        time.sleep(0.2)


def read_number(connection: socket.socket, deadline: float) -> int:
    """Returns the number that a process says, -1 for anything else."""
    connection.settimeout(max(min(deadline - time.monotonic(), 5), 0.01))
    try:
        text = connection.makefile('rb').readline(LONGEST).strip()
    except (OSError, TimeoutError):
        return -1
    return int(text) if text.isdigit() else -1


def answer(connections: Iterable[socket.socket], text: str) -> None:
    """Sends one line to every process that came."""
    for connection in connections:
        with contextlib.suppress(OSError):  # it may have gone meanwhile
            connection.sendall(f'{text}\n'.encode()[:LONGEST])


def missing(numbers: Iterable[int], timeout: float) -> str:
    """Returns the sentence that names missing processes."""
    listed = sorted(numbers)
    names = f'process {listed[0]}' if len(listed) == 1 else 'processes ' + ', '.join(map(str, listed[:20]))
    return f'{names} did not come within {timeout:g} s: start every process, with the same --coordinator'
