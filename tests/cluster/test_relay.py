import contextlib
import socket
import threading
import time

import pytest

from research.cluster.relay import Relay


@contextlib.contextmanager
def echo_service():
    """A server that echoes one connection; yields its port, and the connection once there is one."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        connections = []

        def serve():
            connection, _ = server.accept()
            connections.append(connection)
            with contextlib.suppress(OSError):
                while data := connection.recv(100):
                    connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], connections
        for connection in connections:
            connection.close()


def connect(relay: Relay) -> socket.socket:
    host, port = relay.address.rsplit(':', 1)
    return socket.create_connection((host, int(port)), timeout=10)


def exchange(end: socket.socket, data: bytes) -> bytes:
    end.sendall(data)
    answer = b''
    while len(answer) < len(data):
        answer += end.recv(len(data))
    return answer


def test_a_lost_service_is_reported_and_jax_stays_connected():
    with echo_service() as (port, connections):
        relay = Relay('127.0.0.1', port)
        with connect(relay) as end:
            data = bytes(range(256)) * 1000
            assert exchange(end, data) == data and not relay.lost.is_set()
            connections[0].shutdown(socket.SHUT_RDWR)
            assert relay.lost.wait(10)
            end.settimeout(0.3)
            with pytest.raises(TimeoutError):
                end.recv(1)  # neither closed nor reset
            end.sendall(b'more')


def test_a_connection_that_jax_closes_is_no_loss():
    with echo_service() as (port, _):
        relay = Relay('127.0.0.1', port)
        with connect(relay) as end:
            assert exchange(end, b'hello') == b'hello'
        time.sleep(0.3)
        assert not relay.lost.is_set()


def test_a_service_that_is_not_up_yet_is_tried_again():
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
    relay = Relay('127.0.0.1', port)  # nothing listens here
    with connect(relay) as end:
        assert end.recv(1) == b'' and not relay.lost.is_set()
    with socket.create_server(('127.0.0.1', port)) as other, connect(relay) as end:  # a listener that goes away
        other.accept()[0].close()
        assert end.recv(1) == b'' and not relay.lost.is_set()
