"""Requests made from the OpenAPI document (schemathesis), and a short soak; both against a real server."""

import concurrent.futures
import os
import pathlib
import time
from collections.abc import Iterator

import pytest

pytest.importorskip('fastapi', reason='needs the extra serve')
schemathesis = pytest.importorskip('schemathesis', reason='schemathesis is not installed')

import hypothesis  # noqa: E402
from serve_toy import Running, running, toy_model  # noqa: E402

EXAMPLES = int(os.environ.get('TESSERA_SCHEMA_EXAMPLES', '15'))
SOAK_SECONDS = float(os.environ.get('TESSERA_SOAK_SECONDS', '8'))
OWN = '^/(models|health)'


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the tests of this module."""
    with running({'toy': toy_model(tmp_path_factory.mktemp('toy'))}, max_body=2**20) as server:
        yield server


@pytest.mark.slow
def test_requests_of_the_openapi_document_are_answered_as_it_says(served: Running) -> None:
    schema = schemathesis.openapi.from_url(f'{served.url}/openapi.json').include(path_regex=OWN)
    checks = [
        getattr(schemathesis.checks, name, None) or schemathesis.checks.CHECKS.get_one(name)
        for name in ('not_a_server_error', 'status_code_conformance', 'content_type_conformance')
    ]
    for operation in schema.get_all_operations():
        found = operation.ok()
        strategy = found.as_strategy()

        @hypothesis.settings(
            max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        @hypothesis.given(case=strategy)
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=checks)

        check()
    assert served.client.get('/health').status_code == 200
    assert served.hosted.admission.total == 0


def resident() -> float:
    """Memory of this process in MB."""
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path('/proc/self/statm').exists(), reason='needs /proc')
def test_a_soak_grows_neither_memory_nor_files(served: Running) -> None:
    def client(seconds: float) -> set[int]:
        import httpx

        statuses, until = set(), time.monotonic() + seconds
        with httpx.Client(base_url=served.url, timeout=30) as http:
            while time.monotonic() < until:
                statuses.add(http.post('/models/toy/predict', json={'inputs': {'text': 'a' * 100}}).status_code)
                statuses.add(http.get('/health').status_code)
                statuses.add(http.post('/models/toy/predict', json={'inputs': {'texd': 1}}).status_code)
        return statuses

    def soak(seconds: float) -> set[int]:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return set().union(*pool.map(client, [seconds] * 8))

    soak(SOAK_SECONDS / 4)
    memory, files = resident(), len(os.listdir('/proc/self/fd'))
    assert soak(SOAK_SECONDS) <= {200, 422, 429}
    assert resident() - memory < 20
    assert len(os.listdir('/proc/self/fd')) <= files + 16
    assert served.hosted.admission.total == 0
