"""Bodies of the Open Inference Protocol, against the encoder and decoder of tritonclient."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.serve.errors import RequestError
from research.serve.tensors import NUMBERS, datatype_of, read_body, write_body


def read(body, length=None):
    def parse(data):
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise RequestError(400, 'not JSON') from None
        if not isinstance(value, dict):
            raise RequestError(400, 'not an object')
        return value

    return read_body(body, length, parse)


VALUES = {
    'INT64': np.array([[1, -(2**62)], [3, 4]], np.int64),
    'UINT8': np.arange(12, dtype=np.uint8).reshape(3, 4),
    'BOOL': np.array([True, False]),
    'FP32': np.float32([[0.1, -2e30]]),
    'FP64': np.array(3.5),
    'FP16': np.float16([1.5]),
    'BF16': np.array([1.5, 2.5], ml_dtypes.bfloat16),
    'BYTES': np.array([[b'a\x00b'], [b'']], object),
    'EMPTY': np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize('binary', [True, False])
def test_requests_of_the_standard_client_are_read(binary):
    """Every data type that the client can send arrives unchanged, in both forms."""
    http = pytest.importorskip('tritonclient.http')
    inputs = []
    for name, values in VALUES.items():
        if binary or name not in ('FP16', 'BF16'):
            sent = http.InferInput(name, list(values.shape), datatype_of(values.dtype))
            inputs.append(sent.set_data_from_numpy(values, binary_data=binary))
    wanted = [http.InferRequestedOutput('a', binary_data=binary), http.InferRequestedOutput('b', class_count=2)]
    body, length = http.InferenceServerClient.generate_request_body(inputs, wanted, '7', parameters={'signature': 'x'})
    request = read(body, None if length is None else str(length))
    assert request.id == '7' and request.parameters == {'signature': 'x'} and not request.binary
    assert [tuple(output) for output in request.outputs] == [('a', binary, 0), ('b', True, 2)]
    for name, got in request.inputs.items():
        want = VALUES[name]
        if name == 'BYTES' and not binary:
            want = np.array([[element[0].decode()] for element in want], object)
        assert got.dtype == want.dtype and got.shape == want.shape, name
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize('binary', [True, False])
def test_answers_are_read_by_the_standard_client(binary):
    """The client reads back what was written, NaN included."""
    http = pytest.importorskip('tritonclient.http')
    outputs = {name: values for name, values in VALUES.items() if name != 'BF16'}
    outputs |= {'text': np.array(['\u4f60', 'b'], object), 'nan': np.float32([np.nan, 1])}
    body, length = write_body({'model_name': 'm', 'id': '7'}, outputs, lambda name: binary)
    result = http.InferenceServerClient.parse_response_body(body, header_length=length)
    assert result.get_response()['id'] == '7'
    for name, want in outputs.items():
        got = result.as_numpy(name)
        if name in ('text', 'BYTES'):
            got = [bytes(x) if isinstance(x, bytes) else str(x).encode() for x in got.ravel()]
            want = [x if isinstance(x, bytes) else x.encode() for x in want.ravel()]
        np.testing.assert_array_equal(got, want, err_msg=name)


def tensor(**changes):
    return {'name': 'x', 'datatype': 'INT32', 'shape': [2], 'data': [1, 2]} | changes


def without_data(**changes):
    item = tensor(**changes)
    del item['data']
    return item


MALFORMED = {
    'no JSON': (b'{', None),
    'an array': (b'[]', None),
    'a length past the end': (b'{}', '3'),
    'a negative length': (b'{}', '-1'),
    'no number': (b'{}', '0x2'),
    'inputs no list': ({'inputs': 3}, b''),
    'input no object': ({'inputs': [3]}, b''),
    'no name': ({'inputs': [tensor(name='')]}, b''),
    'two of a name': ({'inputs': [tensor(), tensor()]}, b''),
    'unknown type': ({'inputs': [tensor(datatype='INT7')]}, b''),
    'type no text': ({'inputs': [tensor(datatype=['INT32'])]}, b''),
    'negative size': ({'inputs': [tensor(shape=[-2])]}, b''),
    'size true': ({'inputs': [tensor(shape=[True, 2])]}, b''),
    'huge shape': ({'inputs': [tensor(shape=[2**30] * 8)]}, b''),
    'empty and huge': ({'inputs': [tensor(shape=[2**30] * 7 + [0], data=[])]}, b''),
    'nine axes': ({'inputs': [tensor(shape=[1] * 9)]}, b''),
    'too few': ({'inputs': [tensor(data=[1])]}, b''),
    'too large': ({'inputs': [tensor(data=[1, 2**31])]}, b''),
    'a fraction': ({'inputs': [tensor(data=[1, 1.5])]}, b''),
    'a text': ({'inputs': [tensor(data=[1, '2'])]}, b''),
    'a boolean': ({'inputs': [tensor(data=[1, True])]}, b''),
    'infinite': ({'inputs': [tensor(datatype='FP32', data=[1, 1e39])]}, b''),
    'bytes as number': ({'inputs': [tensor(datatype='BYTES', data=['a', 2])]}, b''),
    'half in JSON': ({'inputs': [tensor(datatype='FP16', data=[1, 2])]}, b''),
    'no data': ({'inputs': [without_data()]}, b''),
    'both': ({'inputs': [tensor(parameters={'binary_data_size': 8})]}, b'12345678'),
    'size past the end': ({'inputs': [without_data(parameters={'binary_data_size': 8})]}, b'1234'),
    'size unlike shape': ({'inputs': [without_data(parameters={'binary_data_size': 4})]}, b'1234'),
    'size no number': ({'inputs': [without_data(parameters={'binary_data_size': '8'})]}, b'12345678'),
    'bytes left over': ({'inputs': [without_data(parameters={'binary_data_size': 8})]}, b'123456789'),
    'two as boolean': ({'inputs': [without_data(datatype='BOOL', parameters={'binary_data_size': 2})]}, b'\x00\x02'),
    'shared memory': ({'inputs': [without_data(parameters={'shared_memory_region': 'r'})]}, b''),
    'parameters no object': ({'inputs': [tensor(parameters=3)]}, b''),
    'id no text': ({'id': 3, 'inputs': []}, b''),
    'two outputs of a name': ({'inputs': [], 'outputs': [{'name': 'a'}, {'name': 'a'}]}, b''),
    'output flag': ({'outputs': [{'name': 'a', 'parameters': {'binary_data': 1}}]}, b''),
    'output classes': ({'outputs': [{'name': 'a', 'parameters': {'classification': -1}}]}, b''),
    'output in shared memory': ({'outputs': [{'name': 'a', 'parameters': {'shared_memory_region': 'r'}}]}, b''),
}


@pytest.mark.parametrize('name', MALFORMED)
def test_a_malformed_body_is_refused(name):
    """The answer is 400 with a message."""
    head, rest = MALFORMED[name]
    body, length = (head, rest) if isinstance(head, bytes) else whole(head, rest)
    with pytest.raises(RequestError) as refused:
        read(body, length)
    assert refused.value.status == 400 and refused.value.message


def whole(head, rest):
    text = json.dumps(head).encode()
    return text + rest, str(len(text)) if rest else None


@pytest.mark.parametrize(
    'raw',
    [
        b'', b'\x01', struct.pack('<I', 0), struct.pack('<I', 2**32 - 1) + b'abcd', struct.pack('<I', 0) * 3,
        struct.pack('<I', 4) + b'abcd' + b'\x00\x00\x00', struct.pack('<I', 4) + b'abcd' + struct.pack('<I', 1),
    ],
)  # fmt: skip
def test_lengths_of_elements_are_checked(raw):
    """Two elements are wanted: a length that is cut off, or reaches past the end, or leaves bytes over, is refused."""
    item = {'name': 'x', 'datatype': 'BYTES', 'shape': [2], 'parameters': {'binary_data_size': len(raw)}}
    text = json.dumps({'inputs': [item]}).encode()
    with pytest.raises(RequestError):
        read(text + raw, str(len(text)))


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
ANYTHING = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
SIZES = st.lists(st.integers(0, 4) | st.integers(-(2**40), 2**70), max_size=9)
ITEM = st.fixed_dictionaries(
    {},
    optional={
        'name': st.sampled_from(['x', 'y']) | PLAIN,
        'datatype': st.sampled_from([*NUMBERS, 'BYTES']) | PLAIN,
        'shape': SIZES | ANYTHING,
        'data': st.lists(PLAIN, max_size=5) | ANYTHING,
        'parameters': st.dictionaries(
            st.sampled_from(['binary_data_size', 'shared_memory_region']), st.integers(0, 40)
        ),
    },
)
HEAD = st.fixed_dictionaries(
    {}, optional={'id': PLAIN, 'inputs': st.lists(ITEM, max_size=3) | ANYTHING, 'outputs': st.lists(ITEM, max_size=2)}
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(HEAD, st.binary(max_size=40), st.integers(-2, 2) | st.none())
def test_no_body_crashes_the_reader(head, rest, shift):
    """Any body is read or refused; whatever is read has the shape and type that it names."""
    text = json.dumps(head).encode()
    try:
        request = read(text + rest, None if shift is None else str(len(text) + shift))
    except RequestError as error:
        assert error.status == 400
        return
    for item in head.get('inputs', []):
        values = request.inputs[item['name']]
        assert list(values.shape) == item['shape'] and datatype_of(values.dtype) == item['datatype']


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=6), max_size=5), st.binary(max_size=3), st.integers(0, 60), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(elements, extra, place, value):
    """The binary part of a BYTES tensor with one byte changed never crashes, and reads back as the same bytes."""
    raw = bytearray(b''.join(struct.pack('<I', len(element)) + element for element in elements) + extra)
    if raw:
        raw[place % len(raw)] = value
    item = {
        'name': 'x', 'datatype': 'BYTES', 'shape': [len(elements)], 'parameters': {'binary_data_size': len(raw)}
    }  # fmt: skip
    text = json.dumps({'inputs': [item]}).encode()
    try:
        got = read(text + bytes(raw), str(len(text))).inputs['x']
    except RequestError as error:
        assert error.status == 400
        return
    assert b''.join(struct.pack('<I', len(element)) + element for element in got) == bytes(raw)
