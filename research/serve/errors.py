"""Errors of a request, and their JSON in the shape that the clients of each group of routes expect."""

from typing import Any

TYPES = {400: 'invalid_request_error', 401: 'authentication_error', 404: 'not_found_error', 429: 'rate_limit_error'}
CODES = {
    400: 'invalid_request', 401: 'invalid_api_key', 403: 'forbidden', 404: 'not_found', 405: 'method_not_allowed',
    408: 'request_timeout', 413: 'too_large', 415: 'unsupported_media_type', 421: 'wrong_host', 422: 'invalid_request',
    429: 'too_many_requests', 431: 'headers_too_large', 500: 'internal_error', 503: 'unavailable', 504: 'timeout',
}  # fmt: skip


class RequestError(Exception):
    """A client's mistake or a refusal; every group of routes renders it in its own shape.

    Attributes:
      status: the HTTP status.
      message: for a person: what is wrong, where, and what to do; no paths of this machine.
      field: the field of the request, such as 'inputs.image', or ''.
      code: a short name for programs, such as 'model_not_found'.
      retry_after: seconds until a further try makes sense; 0 gives no such header.
    """

    def __init__(self, status: int, message: str, field: str = '', code: str = '', retry_after: int = 0):
        super().__init__(message)
        self.status, self.message, self.field = status, message, field
        self.code, self.retry_after = code or CODES.get(status, ''), retry_after

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        headers = {'Retry-After': str(self.retry_after)} if self.retry_after else {}
        return {**headers, 'WWW-Authenticate': 'Bearer'} if self.status == 401 else headers


def content(error: RequestError, path: str) -> dict[str, Any]:
    """The JSON of an error as the clients of `path` read it.

    Clients of the Open Inference Protocol, TF Serving and the Hugging Face tasks expect a text, the latter with the
    'error_type' of text-generation-inference; those of OpenAI an object with 'type' and 'param'.
    """
    if path.startswith(('/v2', '/v1/models/', '/ping')):
        return {'error': error.message}
    if path.startswith(('/hf', '/invocations')):
        name = 'overloaded' if error.status in (429, 503) else 'validation' if error.status < 500 else 'generation'
        return {'error': error.message, 'error_type': name}
    if path.startswith('/v1/'):
        kind = TYPES.get(error.status, 'invalid_request_error' if error.status < 500 else 'server_error')
        return {
            'error': {'message': error.message, 'type': kind, 'param': error.field or None, 'code': error.code or None}
        }
    return {'error': {'message': error.message, 'field': error.field, 'code': error.code}}
