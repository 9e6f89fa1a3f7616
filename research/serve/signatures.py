"""Tensors of the Open Inference Protocol from the inputs of a task, and outputs as tensors.

The signature `raw` has the fields of a request: a BYTES element is a text, a class, the content of a file, or the JSON
of a list; numbers and arrays are numeric. Every tensor has one row for each request. The signature `encoded` has the
arrays that `task.encode` makes.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.core.task import Input
from research.serve.answers import with_files
from research.serve.errors import RequestError
from research.serve.limits import parse_json
from research.serve.tensors import datatype_of
from research.serve.values import FILES, read_base64, read_value

MAX_ROWS = 256  # requests in one body
DECODED = 'decoded'  # the output with the decoded answer as JSON


def input_tensors(inputs: Mapping[str, Input]) -> list[dict[str, Any]]:
    """The metadata of the inputs of the signature `raw`; a number is FP64, as in JSON, and any numeric type is read."""
    return [{'name': name, **tensor_of(field)} for name, field in inputs.items()]


def tensor_of(field: Input) -> dict[str, Any]:
    """Data type and shape of one field."""
    if field.kind == 'number':
        return {'datatype': 'FP64', 'shape': [-1, *(field.shape or (1,))]}
    if field.kind == 'array':
        return {'datatype': 'FP32', 'shape': [-1, *(size or -1 for size in field.shape)]}
    return {'datatype': 'BYTES', 'shape': [-1, 1]}


def raw_rows(inputs: Mapping[str, Input], tensors: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The requests in the rows of tensors; one without fields if there are no tensors.

    Raises:
      RequestError: 400, names the tensor and what it should be.
    """
    count, raws = row_count(tensors), []
    for row in range(count):
        raws.append({})
        for name, values in tensors.items():
            if name not in inputs:
                raise RequestError(
                    400, f'input {name!r:.80} is unknown; this model reads {", ".join(inputs)}', name[:80]
                )
            raws[-1][name] = row_value(inputs[name], name, values[row])
    return raws


def row_count(tensors: Mapping[str, np.ndarray]) -> int:
    """The number of rows that all tensors have."""
    counts = {values.shape[0] if values.ndim else 0 for values in tensors.values()} or {1}
    if len(counts) > 1 or 0 in counts or max(counts) > MAX_ROWS:
        raise RequestError(
            400, f'the first axis of every input is the number of requests, 1 to {MAX_ROWS} and equal for all; got '
            + ', '.join(f'{name[:80]} {list(values.shape)}' for name, values in list(tensors.items())[:8]), 'inputs',
        )  # fmt: skip
    return max(counts)


def row_value(field: Input, name: str, values: Any) -> Any:
    """The value of a field in one row of its tensor."""
    array = np.asarray(values, object) if isinstance(values, (bytes, str)) else np.asarray(values)
    if array.dtype.kind == 'O':
        return element_value(field, name, only(array, name))
    if array.dtype.kind == 'f' or array.dtype.name == 'bfloat16':
        array = array.astype(np.float32 if array.dtype.itemsize < 8 else np.float64)
        if not np.isfinite(array).all():
            raise RequestError(400, f'{name}: the numbers must be finite', name)
    if field.kind in (*FILES, 'array') or (field.kind == 'number' and field.shape):
        return array.astype(np.float32) if array.dtype == np.float64 else array
    if field.kind == 'number':
        return only(array, name).item() if array.dtype.kind != 'b' else int(only(array, name))
    if field.kind == 'category' and array.dtype.kind in 'iu':
        return int(only(array, name))
    expected = tensor_of(field)
    raise RequestError(400, f'{name}: expected {expected["datatype"]} {expected["shape"]}, a {field.kind}', name)


def element_value(field: Input, name: str, element: bytes | str) -> Any:
    """The value of a field from an element of a BYTES tensor; a file that came in JSON is base64."""
    if field.kind in FILES:
        return element if isinstance(element, bytes) else read_base64(element, name)
    text = utf8(element, name) if isinstance(element, bytes) else element
    if field.kind in ('text', 'sequence', 'category'):
        return text
    if field.kind == 'list':
        return read_value(field, parse_json(text.encode()), name)
    expected = tensor_of(field)
    raise RequestError(400, f'{name}: expected {expected["datatype"]} {expected["shape"]}, not BYTES', name)


def utf8(content: bytes, name: str) -> str:
    """The text of UTF-8 bytes."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise RequestError(400, f'{name}: not UTF-8 text', name) from None


def only(array: np.ndarray, name: str) -> Any:
    """The only element of one row."""
    if array.size != 1:
        raise RequestError(400, f'{name}: expected one element in each row, got {list(array.shape)}', name)
    return array.reshape(-1)[0]


def output_tensors(outputs: Mapping[str, Any], varies: bool) -> list[dict[str, Any]]:
    """The metadata of outputs from those of one example, or from their shapes and types.

    Args:
      outputs: by name, without batch axis.
      varies: whether their shapes depend on the request.
    """
    described = []
    for name, value in outputs.items():
        array = value if hasattr(value, 'dtype') else np.asarray(value)
        shape = [-1 if varies else int(size) for size in array.shape]
        described.append({'name': name, 'datatype': datatype_of(np.dtype(array.dtype)), 'shape': [-1, *shape]})
    return described


def stacked(outputs: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """One output of several requests as a tensor.

    Raises:
      RequestError: 400, if its shape differs between the requests.
    """
    arrays = [np.asarray(row[name]) for row in outputs]
    if len({array.shape for array in arrays}) > 1:
        raise RequestError(
            400, f"output {name!r} has another shape for each row: send one row at a time, or ask for '{DECODED}' only",
            'outputs',
        )  # fmt: skip
    array = np.stack(arrays)
    return array.astype(object) if array.dtype.kind in 'US' else array


def decoded_tensor(answers: Sequence[Any]) -> np.ndarray:
    """Decoded answers as JSON texts, [rows]."""
    return np.array([*(json.dumps(with_files(answer), ensure_ascii=False) for answer in answers), None], object)[:-1]


def best_classes(values: np.ndarray, count: int, name: str) -> np.ndarray:
    """The classification extension: 'score:index' of the `count` largest scores of each row, [rows, count].

    Raises:
      RequestError: 400, if the output has no scores of classes.
    """
    if values.ndim != 2 or values.dtype.kind not in 'fiu':
        raise RequestError(400, f'output {name!r} has no scores of classes', 'outputs')
    order = np.argsort(-values.astype(np.float64), axis=1, kind='stable')[:, :count]
    rows = [[f'{values[row, index]:f}:{index}' for index in indices] for row, indices in enumerate(order)]
    return np.array(rows, object).reshape(len(values), -1)
