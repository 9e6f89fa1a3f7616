"""A relay between jax and the coordination service of process 0, so that the loss of the service can be reported.

jaxlib aborts its process, with C++ stack frames, as soon as the connection to the service breaks, and Python cannot
prevent it. So the other processes connect jax to a relay of their own. When process 0 dies, the relay keeps jax's
connection open and sets `lost`. Standard library only.
"""

import contextlib
import socket
import threading

CONNECT_SECONDS = 10


class Relay:
    """Forwards connections from a port of the loopback interface to the service at `host`:`port`."""

    def __init__(self, host: str, port: int):
        self.target = (host, port)
        self.lost = threading.Event()
        self.server = socket.create_server(('127.0.0.1', 0))
        self.address = f'127.0.0.1:{self.server.getsockname()[1]}'
        threading.Thread(target=self.accept, daemon=True, name='relay').start()

    def accept(self) -> None:
        """Serves each connection in two threads, one for each direction."""
        while True:
            jax_end, _ = self.server.accept()
            try:
                service_end = socket.create_connection(self.target, timeout=CONNECT_SECONDS)
            except OSError:  # the service does not listen yet: jax connects again
                jax_end.close()
                continue
            for end in (jax_end, service_end):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            left = threading.Event()
            threading.Thread(target=self.send_requests, args=(jax_end, service_end, left), daemon=True).start()
            threading.Thread(target=self.send_answers, args=(service_end, jax_end, left), daemon=True).start()

    def send_requests(self, jax_end: socket.socket, service_end: socket.socket, left: threading.Event) -> None:
        """Forwards what jax sends; when jax closes its connection, sets `left` and closes that to the service."""
        with contextlib.suppress(OSError):
            while data := jax_end.recv(65536):
                try:
                    service_end.sendall(data)
                except OSError:  # `send_answers` reports it
                    return
        left.set()
        with contextlib.suppress(OSError):
            service_end.shutdown(socket.SHUT_RDWR)

    def send_answers(self, service_end: socket.socket, jax_end: socket.socket, left: threading.Event) -> None:
        """Forwards what the service sends; sets `lost` when the service closes the connection."""
        answered = False
        with contextlib.suppress(OSError):
            while data := service_end.recv(65536):
                answered = True
                jax_end.sendall(data)
        if not answered:  # another listener had the port: jax connects again
            with contextlib.suppress(OSError):
                jax_end.shutdown(socket.SHUT_RDWR)  # unlike close, also while `send_requests` reads
        elif not left.is_set():
            self.lost.set()
