"""A rendezvous before jax's own, which names missing processes instead of waiting silently.

Process 0 listens on the coordinator's port; every other process connects and sends its number. When all are connected,
process 0 replies 'go' and frees the port for jax. Standard library only.
"""

import contextlib
import socket
import time
from collections.abc import Iterable

from research.errors import UserError

MAX_MESSAGE_BYTES = 200


def split_address(coordinator: str) -> tuple[str, int]:
    """Parses 'host:port'; raises `UserError` for anything else."""
    host, _, port = coordinator.rpartition(':')
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f'--coordinator={coordinator}: give HOST:PORT of process 0, such as 10.0.0.2:8476')
    return host.strip('[]'), int(port)


def is_local(host: str) -> bool:
    """Whether a host name is the loopback interface."""
    return host in ('localhost', '127.0.0.1', '::1')


def meet(coordinator: str, count: int, process: int, timeout: float) -> None:
    """Waits until all `count` processes are connected; `process` is the number of this one.

    Raises:
      UserError: names the processes missing after `timeout` seconds, or a duplicate number.
    """
    host, port = split_address(coordinator)
    deadline = time.monotonic() + timeout
    if process == 0:
        gather_others(host, port, count, deadline, timeout)
    else:
        report_to_first(host, port, process, deadline, timeout)


def gather_others(host: str, port: int, count: int, deadline: float, timeout: float) -> None:
    """Accepts processes 1 to `count` - 1, then replies to all of them."""
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
                continue  # not one of our processes: any program may connect to an open port
            if number in arrived or not 0 < number < count:
                problem = f'--process_id={number} of a process is a duplicate, or not below --num_processes'
                answer([*arrived.values(), connection], problem)
                raise UserError(problem)
            arrived[number] = connection
        answer(arrived.values(), 'go')


def listen(host: str, port: int) -> socket.socket:
    """Opens a listening socket: on loopback for a local host, else on all addresses."""
    if is_local(host):
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(('', port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(('', port))


def report_to_first(host: str, port: int, process: int, deadline: float, timeout: float) -> None:
    """Connects to process 0, sends the number of this process, and awaits the reply."""
    no_answer = f'process 0 did not answer at {host}:{port} within {timeout:g} s: start it, and open the port to it'
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise UserError(no_answer)
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                connection.sendall(f'{process}\n'.encode())
                connection.settimeout(max(deadline - time.monotonic(), 0.0) + 5)  # process 0 may time out just now
                reply = connection.makefile('rb').readline(MAX_MESSAGE_BYTES).decode(errors='replace').strip()
        except (OSError, TimeoutError):
            time.sleep(0.2)  # process 0 may not be listening yet
            continue
        if reply == 'go':
            return
        if reply:
            raise UserError(reply)
        time.sleep(0.2)


def read_number(connection: socket.socket, deadline: float) -> int:
    """Reads the number of a process; -1 for anything else."""
    connection.settimeout(max(min(deadline - time.monotonic(), 5), 0.01))
    try:
        text = connection.makefile('rb').readline(MAX_MESSAGE_BYTES).strip()
    except (OSError, TimeoutError):
        return -1
    return int(text) if text.isdigit() else -1


def answer(connections: Iterable[socket.socket], text: str) -> None:
    """Sends one line to every connected process."""
    for connection in connections:
        with contextlib.suppress(OSError):  # it may have disconnected
            connection.sendall(f'{text}\n'.encode()[:MAX_MESSAGE_BYTES])


def missing(numbers: Iterable[int], timeout: float) -> str:
    """Error message that names missing processes."""
    listed = sorted(numbers)
    names = f'process {listed[0]}' if len(listed) == 1 else 'processes ' + ', '.join(map(str, listed[:20]))
    return f'{names} did not connect within {timeout:g} s: start all processes, with the same --coordinator'
