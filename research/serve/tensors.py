"""Named arrays in bodies of the Open Inference Protocol v2 over HTTP, with its binary extension.

A body is JSON, or JSON followed by the raw bytes of its tensors; the header Inference-Header-Content-Length is then the
length of the JSON. Numbers are little-endian; an element of a BYTES tensor is its length (4 bytes, little-endian)
followed by its bytes. `read_body` reads a request and `write_body` writes an answer. Sources: the protocol
"open-inference-protocol" and its "binary tensor data extension"; what clients send in practice, of tritonclient 2.73
and kserve 0.21.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from research.serve.errors import RequestError

NUMBERS = {
    'BOOL': np.dtype('bool'), 'INT8': np.dtype('int8'), 'INT16': np.dtype('<i2'), 'INT32': np.dtype('<i4'),
    'INT64': np.dtype('<i8'), 'UINT8': np.dtype('uint8'), 'UINT16': np.dtype('<u2'), 'UINT32': np.dtype('<u4'),
    'UINT64': np.dtype('<u8'), 'FP16': np.dtype('<f2'), 'BF16': np.dtype(ml_dtypes.bfloat16),
    'FP32': np.dtype('<f4'), 'FP64': np.dtype('<f8'),
}  # fmt: skip
MAX_TENSORS, MAX_AXES, MAX_NAME, MAX_ELEMENTS = 1_024, 8, 256, 2**31
HEADER = 'Inference-Header-Content-Length'


class Wanted(NamedTuple):
    """An output that a request names."""

    name: str
    binary: bool
    classes: int = 0  # of the classification extension: the number of best classes; 0: the values themselves


class TensorRequest(NamedTuple):
    """A request of the protocol. Elements of BYTES inputs are `bytes`, or `str` where they came as JSON."""

    id: str
    inputs: dict[str, np.ndarray]
    outputs: tuple[Wanted, ...]  # (): all
    binary: bool  # whether outputs that are not named are wanted in binary form
    parameters: Mapping[str, Any]


def datatype_of(dtype: np.dtype) -> str:
    """The protocol's name of a NumPy type; texts, bytes and objects are BYTES."""
    if dtype.kind in 'OSU':
        return 'BYTES'
    return next(name for name, known in NUMBERS.items() if known == dtype.newbyteorder('<'))


def read_body(body: bytes, header_length: str | None, parse: Callable[[bytes], Mapping[str, Any]]) -> TensorRequest:
    """Reads the body of an inference request.

    Args:
      body: the whole body.
      header_length: the value of the header `HEADER`; None: the body is JSON only.
      parse: reads a JSON object within the limits of the server.

    Raises:
      RequestError: 400, for anything that does not follow the protocol.
    """
    length = len(body)
    if header_length is not None:
        if not re.fullmatch(r'[0-9]{1,12}', header_length) or int(header_length) > len(body):
            raise bad(f'{HEADER} must be the length of the JSON part, at most {len(body):,} bytes')
        length = int(header_length)
    request, rest = parse(body[:length]), memoryview(body)[length:]
    parameters = options_of(request, 'parameters')
    inputs = {}
    for number, item in enumerate(items_of(request, 'inputs')):
        name, where = name_of(item, f'inputs[{number}]'), f'inputs[{number}]'
        if name in inputs:
            raise bad(f'two inputs have the name {name!r}', where)
        inputs[name], rest = read_tensor(item, rest, where)
    if len(rest):
        raise bad(f'{len(rest):,} bytes follow the last tensor: check binary_data_size and {HEADER}', 'inputs')
    binary = flag_of(parameters, 'binary_data_output', False, 'parameters')
    identity = request.get('id', '')
    if not isinstance(identity, str) or len(identity) > MAX_NAME:
        raise bad(f'id must be a text of at most {MAX_NAME} characters', 'id')
    return TensorRequest(identity, inputs, wanted_outputs(request, binary), binary, parameters)


def wanted_outputs(request: Mapping[str, Any], binary: bool) -> tuple[Wanted, ...]:
    """The outputs that a request names."""
    wanted = {}
    for number, item in enumerate(items_of(request, 'outputs')):
        where = f'outputs[{number}]'
        name, parameters = name_of(item, where), options_of(item, f'{where}.parameters')
        classes = parameters.get('classification', 0)
        refuse_shared_memory(parameters, where)
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 0:
            raise bad('classification must be a number of classes', f'{where}.parameters')
        if name in wanted:
            raise bad(f'two outputs have the name {name!r}', where)
        wanted[name] = Wanted(name, flag_of(parameters, 'binary_data', binary, where), classes)
    return tuple(wanted.values())


def read_tensor(item: Mapping[str, Any], rest: memoryview, where: str) -> tuple[np.ndarray, memoryview]:
    """Reads one input; returns it and the bytes that follow it."""
    datatype, shape = item.get('datatype'), shape_of(item.get('shape'), where)
    if not isinstance(datatype, str) or (datatype != 'BYTES' and datatype not in NUMBERS):
        raise bad(f'datatype must be one of BYTES, {", ".join(NUMBERS)}, got {datatype!r:.40}', f'{where}.datatype')
    parameters, count = options_of(item, f'{where}.parameters'), math.prod(shape)
    refuse_shared_memory(parameters, where)
    size = parameters.get('binary_data_size')
    if (size is None) == ('data' not in item):
        raise bad("an input has either 'data' or the parameter binary_data_size", where)
    if size is None:
        return from_json(item['data'], datatype, count, where).reshape(shape), rest
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(rest):
        raise bad(f'binary_data_size must be at most the {len(rest):,} bytes that are left of the body', where)
    raw, rest = rest[:size], rest[size:]
    if datatype == 'BYTES':
        return strings_of(raw, count, where).reshape(shape), rest
    dtype = NUMBERS[datatype]
    if size != count * dtype.itemsize:
        wanted = f'{count} x {dtype.itemsize}'
        raise bad(f'{datatype} of shape {list(shape)} has {wanted} bytes, binary_data_size is {size}', where)
    if datatype == 'BOOL' and size and max(raw) > 1:
        raise bad('the bytes of BOOL are 0 or 1', where)
    return np.frombuffer(raw, dtype).reshape(shape), rest


def strings_of(raw: memoryview, count: int, where: str) -> np.ndarray:
    """Reads `count` elements of a BYTES tensor, which fill `raw`."""
    if count * 4 > len(raw):
        raise bad(f'{count} elements need at least {count * 4} bytes, binary_data_size is {len(raw)}', where)
    elements, offset = np.empty(count, object), 0
    for number in range(count):
        start = offset + 4
        stop = start + int.from_bytes(raw[offset:start], 'little')
        if start > len(raw) or stop > len(raw):
            raise bad(f'element {number} reaches past the end of the tensor', where)
        elements[number], offset = bytes(raw[start:stop]), stop
    if offset != len(raw):
        raise bad(f'{len(raw) - offset} bytes follow the last element of the tensor', where)
    return elements


def from_json(data: Any, datatype: str, count: int, where: str) -> np.ndarray:
    """Reads the elements of a tensor from JSON, flat or nested, in row-major order."""
    if datatype in ('FP16', 'BF16'):
        raise bad(f'{datatype} has no JSON form: send it as binary data', where)
    if not isinstance(data, list):
        raise bad('data must be a list', f'{where}.data')
    elements = list(flat(data))
    if len(elements) != count:
        raise bad(f'the shape has {count} elements, data {len(elements)}', f'{where}.data')
    if datatype == 'BYTES':
        check_elements(elements, lambda value: isinstance(value, str), 'texts', where)
        return np.array([*elements, None], object)[:-1]  # never an array of characters
    dtype = NUMBERS[datatype]
    if dtype.kind == 'b':
        check_elements(elements, lambda value: isinstance(value, bool), 'true or false', where)
    elif dtype.kind == 'f':
        top = float(np.finfo(dtype).max)
        check_elements(elements, lambda value: is_number(value) and -top <= value <= top, 'finite numbers', where)
    else:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        check = lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high  # noqa: E731
        check_elements(elements, check, f'whole numbers from {low} to {high}', where)
    return np.array(elements, dtype)


def check_elements(elements: Sequence[Any], check: Callable[[Any], bool], expected: str, where: str) -> None:
    """Raises RequestError for the first element that fails the check."""
    for number, value in enumerate(elements):
        if not check(value):
            raise bad(f'element {number} is {value!r:.40}: expected {expected}', f'{where}.data')


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def flat(data: Sequence[Any]) -> Iterator[Any]:
    """The elements of nested lists; iterative, because a request chooses the depth."""
    stack = [iter(data)]
    while stack:
        for value in stack[-1]:
            if isinstance(value, list):
                stack.append(iter(value))
                break
            yield value
        else:
            stack.pop()


def shape_of(value: Any, where: str) -> tuple[int, ...]:
    """A shape of a request, of at most `MAX_AXES` axes."""
    valid = isinstance(value, list) and len(value) <= MAX_AXES
    if not valid or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**31 for n in value):
        raise bad(f'shape must be a list of at most {MAX_AXES} sizes', f'{where}.shape')
    if math.prod(max(size, 1) for size in value) > MAX_ELEMENTS:
        raise bad(f'a tensor has at most {MAX_ELEMENTS:,} elements', f'{where}.shape')
    return tuple(value)


def items_of(request: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    """The list of tensors in a field of a request."""
    items = request.get(name, [])
    if not isinstance(items, list) or len(items) > MAX_TENSORS or not all(isinstance(item, dict) for item in items):
        raise bad(f'{name} must be a list of at most {MAX_TENSORS} objects', name)
    return items


def name_of(item: Mapping[str, Any], where: str) -> str:
    name = item.get('name')
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise bad(f'name must be a text of 1 to {MAX_NAME} characters', f'{where}.name')
    return name


def options_of(item: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    options = item.get('parameters', {})
    if not isinstance(options, dict):
        raise bad('parameters must be an object', where)
    return options


def flag_of(parameters: Mapping[str, Any], name: str, default: bool, where: str) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise bad(f'{name} must be true or false', where)
    return value


def refuse_shared_memory(parameters: Mapping[str, Any], where: str) -> None:
    if any(name.startswith('shared_memory') for name in parameters):
        raise bad('this server has no shared memory: send the data in the body', where)


def bad(message: str, field: str = '') -> RequestError:
    return RequestError(400, message, field=field)


def write_body(
    head: Mapping[str, Any], outputs: Mapping[str, np.ndarray], binary: Callable[[str], bool]
) -> tuple[bytes, int | None]:
    """Writes the body of an answer.

    Args:
      head: its fields besides 'outputs', such as 'model_name'.
      outputs: by name; elements of BYTES outputs are `bytes` or `str`.
      binary: (name) -> whether its values follow the JSON in binary form.

    Returns:
      The body, and the length of its JSON part for the header `HEADER`; None if all of it is JSON.
    """
    described, parts = [], []
    for name, values in outputs.items():
        datatype = datatype_of(values.dtype)
        tensor: dict[str, Any] = {'name': name, 'datatype': datatype, 'shape': list(values.shape)}
        if binary(name) or datatype in ('FP16', 'BF16'):
            parts.append(raw_bytes(values, datatype))
            tensor['parameters'] = {'binary_data_size': len(parts[-1])}
        else:
            tensor['data'] = json_data(values, datatype)
        described.append(tensor)
    text = json.dumps({**head, 'outputs': described}, allow_nan=False).encode()
    return b''.join([text, *parts]), len(text) if parts else None


def raw_bytes(values: np.ndarray, datatype: str) -> bytes:
    """The binary form of a tensor."""
    if datatype != 'BYTES':
        return np.ascontiguousarray(values, NUMBERS[datatype]).tobytes()
    elements = [value.encode() if isinstance(value, str) else bytes(value) for value in values.ravel()]
    return b''.join(part for element in elements for part in (len(element).to_bytes(4, 'little'), element))


def json_data(values: np.ndarray, datatype: str) -> list[Any]:
    """The elements of a tensor for JSON, which has no NaN or infinity: null, as clients read it back as NaN."""
    if datatype == 'BYTES':
        return [value if isinstance(value, str) else bytes(value).decode(errors='replace') for value in values.ravel()]
    elements = values.ravel().tolist()
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in elements]
