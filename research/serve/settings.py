"""Settings of a server, and the phase that it is in."""

import dataclasses
import enum


class Phase(enum.Enum):
    """The life of a server."""

    STARTING = 'starting'  # compiles; answers health checks only
    READY = 'ready'
    STOPPING = 'stopping'  # finishes what runs; accepts nothing new


@dataclasses.dataclass
class Status:
    """What changes while a server runs."""

    phase: Phase = Phase.STARTING
    running: int = 0  # requests other than health checks and metrics


@dataclasses.dataclass(frozen=True)
class ServerSettings:
    """Limits and secrets of a server; sizes in bytes, times in seconds."""

    host: str = '127.0.0.1'
    port: int = 8000
    slots: int = 0  # texts generated at the same time; 0: as many as fit
    token: bytes = b''  # b'': no token is required
    allowed_hosts: tuple[str, ...] = ()  # names in the Host header besides those of this machine's loopback
    max_body: int = 10 * 2**20
    timeout: float = 120.0  # the longest deadline of a request
    queue: int = 256  # requests of a model that wait or run
    max_batch: int = 32  # one-shot requests that run together
    exact: bool = False  # always run the largest batch: an answer is bit for bit the same under load
    head_seconds: float = 10.0  # for the head of a request, from the connection or the previous answer on
    body_seconds: float = 60.0  # for a body; it must also come at 1 kB/s after 5 s
    stalled_seconds: float = 30.0  # for a client that reads nothing of its answer
    connections: int = 64  # of one address
    version: str = ''  # of this package
    status: Status = dataclasses.field(default_factory=Status)

    @property
    def ready(self) -> bool:
        """Whether requests are accepted: everything is compiled, and the server is not stopping."""
        return self.status.phase is Phase.READY
