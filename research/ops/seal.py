"""JSON objects that contain their own SHA-256, so that reading detects changes."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = 'sha256'


def seal(values: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, independent of white space and the order of keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the SHA-256 as the first key; keys become strings and tuples lists, as after reading."""
    body = json.loads(json.dumps(values))
    return {KEY: seal(body), **body}


def unsealed(values: Any, required: bool = False) -> dict[str, Any]:
    """Verifies and removes the SHA-256.

    Args:
      values: the value read from JSON.
      required: whether to reject objects without a SHA-256, as written before version 0.2.

    Raises:
      ValueError: if the content has changed.
    """
    if not isinstance(values, dict):
        raise ValueError('it is not a JSON object')
    body = {name: value for name, value in values.items() if name != KEY}
    if (required or KEY in values) and values.get(KEY) != seal(body):
        raise ValueError('its content has changed')
    return body
