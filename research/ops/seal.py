"""JSON objects that carry their own SHA-256, so that a changed byte is noticed when they are read."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = 'sha256'


def seal(values: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a JSON object; neither white space nor the order of its keys counts."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the object with its SHA-256, first, as it will be read: keys are strings and tuples are lists."""
    body = json.loads(json.dumps(values))
    return {KEY: seal(body), **body}


def unsealed(values: Any, required: bool = False) -> dict[str, Any]:
    """Returns the object without its SHA-256.

    Args:
      values: what was read.
      required: whether an object without a SHA-256, as written before version 0.2, is refused.

    Raises:
      ValueError: when it is not what was written.
    """
    if not isinstance(values, dict):
        raise ValueError('it is not a JSON object')
    body = {name: value for name, value in values.items() if name != KEY}
    if (required or KEY in values) and values.get(KEY) != seal(body):
        raise ValueError('its content has changed')
    return body
