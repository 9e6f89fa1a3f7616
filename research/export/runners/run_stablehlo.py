"""Runs the exported model of this folder; needs only NumPy and JAX (pip install jax), on a CPU, GPU or TPU.

    python run.py                         checks the test vectors
    python run.py inputs.npz outputs.npz  reads encoded inputs and writes outputs, by the names in program.json
    run = load(); run({'image': array})   the same from Python

Arrays are already encoded: README.md says what each of them holds. Any batch size works.
"""

import json
import pathlib
import sys

import jax
import numpy as np

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


def load(name=''):
    """Returns a function from encoded inputs to outputs, both {name: array}."""
    described = json.loads((HERE / 'program.json').read_text(encoding='utf-8'))
    program, weights = described['programs'][name or described['main']], read('weights.safetensors')
    exported = jax.export.deserialize(bytearray((HERE / program['file']).read_bytes()))
    call, weights = jax.jit(exported.call), {name: jax.numpy.asarray(weights[name]) for name in program['weights']}

    def run(inputs):
        given = {name: np.asarray(inputs[name], entry['dtype']) for name, entry in program['inputs'].items()}
        return {name: np.asarray(value) for name, value in call(weights, given).items()}

    return run


if __name__ == '__main__':
    run, vectors = load(), read('vectors.safetensors')
    if len(sys.argv) == 3:
        np.savez(sys.argv[2], **run(np.load(sys.argv[1])))  # pyright: ignore[reportArgumentType]
    else:
        got = run({name[7:]: value for name, value in vectors.items() if name.startswith('inputs/')})
        for name, value in got.items():
            error = np.abs(np.subtract(value, vectors[f'outputs/{name}'], dtype=float)).max()
            print(f'{name}: largest error {error:.2g}')
