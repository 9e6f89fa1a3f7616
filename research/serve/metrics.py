"""Prometheus metrics of a server; every server has its own registry."""

from typing import Any, NamedTuple

import jax

from research.extras import require

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
FILLS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
COMPILATION = '/jax/core/compile/backend_compile_duration'


class Metrics(NamedTuple):
    """The metrics, and the registry that they belong to."""

    registry: Any
    requests: Any  # {model, route, code}
    seconds: Any  # {model, route}
    first_token: Any  # {model}
    per_token: Any  # {model}
    tokens: Any  # {model, kind}: prompt, generated, cached
    slots: Any  # {model, state}
    queue: Any  # {model}
    batch_fill: Any  # {model}
    compilations: Any
    build: Any


def make_metrics() -> Metrics:
    """Creates the metrics of a server, with counters of the compilations of this process."""
    prometheus = require('prometheus_client')
    registry = prometheus.CollectorRegistry()

    def counter(name: str, about: str, labels: tuple[str, ...] = ()) -> Any:
        return prometheus.Counter(f'tessera_{name}', about, labels, registry=registry)

    def gauge(name: str, about: str, labels: tuple[str, ...] = ()) -> Any:
        return prometheus.Gauge(f'tessera_{name}', about, labels, registry=registry)

    def histogram(name: str, about: str, labels: tuple[str, ...], buckets: tuple[float, ...] = SECONDS) -> Any:
        return prometheus.Histogram(f'tessera_{name}', about, labels, registry=registry, buckets=buckets)

    metrics = Metrics(
        registry,
        counter('requests', 'Requests answered', ('model', 'route', 'code')),
        histogram('request_seconds', 'Time from the request to the end of its answer', ('model', 'route')),
        histogram('time_to_first_token_seconds', 'Time from the request to its first token', ('model',)),
        histogram('time_per_output_token_seconds', 'Time of each further token', ('model',)),
        counter('tokens', 'Tokens read and generated', ('model', 'kind')),
        gauge('slots', 'Places for texts that are generated at the same time', ('model', 'state')),
        gauge('queue_requests', 'Requests that wait or run', ('model',)),
        histogram('batch_fill_ratio', 'Share of a batch that is requests, not padding', ('model',), FILLS),
        counter('compilations', 'Programs compiled by this process; must not grow after the server is ready'),
        gauge('build_info', 'Versions and fingerprints', ('model', 'version', 'jax', 'fingerprint')),
    )

    def count(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == COMPILATION:
            metrics.compilations.inc()

    jax.monitoring.register_event_duration_secs_listener(count)
    return metrics


def text(metrics: Metrics) -> bytes:
    """All metrics in the text format of Prometheus."""
    return require('prometheus_client').generate_latest(metrics.registry)
