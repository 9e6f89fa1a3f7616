"""The application: all models behind all groups of routes, health, metrics and the page."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import fastapi
import jax
import orjson
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from research.serve import metrics as metrics_module
from research.serve.context import notes
from research.serve.errors import RequestError, content
from research.serve.hosted import Hosted
from research.serve.metrics import Metrics
from research.serve.page import PageFile, page_files
from research.serve.routes import openai, own, tasks, v1, v2
from research.serve.security import Guard, internal_error
from research.serve.settings import ServerSettings


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer of JSON values."""
    return Response(orjson.dumps(value), status, headers, 'application/json')


def service_routes(models: Mapping[str, Hosted], server: ServerSettings, metrics: Metrics) -> fastapi.APIRouter:
    """Health checks and metrics."""
    router = fastapi.APIRouter(tags=['service'])

    @router.get('/health')
    async def health() -> Response:
        return json_response({'ready': server.ready, 'phase': server.status.phase.value}, 200 if server.ready else 503)

    @router.get('/health/live')
    async def live() -> Response:
        return json_response({'live': True})

    @router.get('/metrics')
    async def prometheus() -> Response:
        for hosted in models.values():
            metrics.queue.labels(hosted.name).set(hosted.admission.total)
            if hosted.engine is not None:
                metrics.slots.labels(hosted.name, 'used').set(hosted.engine.running)
                metrics.slots.labels(hosted.name, 'free').set(hosted.engine.slots - hosted.engine.running)
        return Response(metrics_module.text(metrics), media_type='text/plain; version=0.0.4; charset=utf-8')

    return router


def page_routes() -> fastapi.APIRouter:
    """The page, from memory."""
    router = fastapi.APIRouter(include_in_schema=False)

    def add(address: str, file: PageFile) -> None:
        @router.get(address)
        async def page(request: fastapi.Request) -> Response:
            headers, body = file.response(request.headers.get('accept-encoding', ''))
            return Response(body, headers=dict(headers))

    for address, file in page_files().items():
        add(address, file)
    return router


def handle_errors(app: fastapi.FastAPI) -> None:
    """Renders every error in the shape of its path."""

    def answer(request: fastapi.Request, error: RequestError) -> Response:
        return json_response(content(error, request.url.path), error.status, error.headers)

    @app.exception_handler(RequestError)
    async def refused(request: fastapi.Request, error: RequestError) -> Response:
        return answer(request, error)

    @app.exception_handler(Exception)
    async def failed(request: fastapi.Request, error: Exception) -> Response:
        del error  # it is raised again, and the guard writes it to the log
        return answer(request, internal_error(notes().request_id))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: fastapi.Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        field = '.'.join(str(part) for part in problem['loc'] if part != 'body')
        return answer(request, RequestError(422, f'{field or "the body"}: {problem["msg"]}'[:500], field))

    @app.exception_handler(HTTPException)
    async def http(request: fastapi.Request, error: HTTPException) -> Response:
        messages = {404: 'there is no such address', 405: 'this address does not accept that method'}
        result = answer(request, RequestError(error.status_code, messages.get(error.status_code, str(error.detail))))
        result.headers.update(error.headers or {})
        return result


def make_app(
    models: Mapping[str, Hosted], server: ServerSettings, metrics: Metrics, write: Callable[[str], None],
    lifespan: Callable[[Any], Any] | None = None,
) -> Guard:  # fmt: skip
    """The ASGI application.

    Args:
      models: by name.
      server: its settings.
      metrics: where requests are counted.
      write: writes a line of the log.
      lifespan: an asynchronous context around the life of the server.
    """

    @contextlib.asynccontextmanager
    async def nothing(app: Any) -> AsyncIterator[None]:
        yield

    app = fastapi.FastAPI(
        title='Tessera',
        version=server.version,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan or nothing,
        description='Trained models behind one address. Errors are {"error": {"message", "field", "code"}}.',
    )
    handle_errors(app)
    for hosted in models.values():
        metrics.build.labels(hosted.name, server.version, jax.__version__, hosted.fingerprint).set(1)
    app.include_router(service_routes(models, server, metrics))
    for dialect in (own, v2, tasks, openai, v1):
        app.include_router(dialect.routes(models, server))
    app.include_router(page_routes())
    return Guard(app, server, metrics, write)
