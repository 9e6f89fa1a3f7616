"""Runs the exported model of this folder; needs only NumPy and ONNX Runtime (pip install onnxruntime).

    python run.py                         checks the test vectors
    python run.py inputs.npz outputs.npz  reads encoded inputs and writes outputs, by the names in program.json
    run = load(); run({'image': array})   the same from Python

Arrays are already encoded: README.md says what each of them holds.
"""

import json
import pathlib
import sys

import numpy as np
import onnxruntime

HERE = pathlib.Path(__file__).parent
DTYPES = {'F32': 'f4', 'F16': 'f2', 'F64': 'f8', 'I32': 'i4', 'I64': 'i8', 'U32': 'u4', 'U8': 'u1', 'BOOL': '?'}


def read(file):
    """Reads the arrays of a .safetensors file."""
    content = (HERE / file).read_bytes()
    size = int.from_bytes(content[:8], 'little')
    header, body = json.loads(content[8 : 8 + size]), memoryview(content)[8 + size :]
    return {
        name: np.frombuffer(body[slice(*entry['data_offsets'])], DTYPES[entry['dtype']]).reshape(entry['shape'])
        for name, entry in header.items() if name != '__metadata__'
    }  # fmt: skip


def load(name='', threads=0):
    """Returns a function from encoded inputs to outputs, both {name: array} of any number of rows."""
    described = json.loads((HERE / 'program.json').read_text(encoding='utf-8'))
    program, options = described['programs'][name or described['main']], onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    file = str(HERE / program['file'])
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    names = list(program['outputs'])

    def run(inputs):
        given = {key: np.asarray(inputs[key], entry['dtype']) for key, entry in program['inputs'].items()}
        if described['batch'] == 'any':
            return dict(zip(names, session.run(None, given), strict=True))
        count = len(next(iter(given.values())))
        rows = [session.run(None, {key: value[row : row + 1] for key, value in given.items()}) for row in range(count)]
        return {key: np.concatenate([np.asarray(row[number]) for row in rows]) for number, key in enumerate(names)}

    return run


if __name__ == '__main__':
    run, vectors = load(), read('vectors.safetensors')
    if len(sys.argv) == 3:
        np.savez(sys.argv[2], **run(np.load(sys.argv[1])))  # pyright: ignore[reportArgumentType]
    else:
        got = run({name[7:]: value for name, value in vectors.items() if name.startswith('inputs/')})
        for name, value in got.items():
            print(name, 'largest error', np.abs(np.asarray(value, float) - vectors[f'outputs/{name}']).max())
