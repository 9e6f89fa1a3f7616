"""Runs the exported model of this folder; needs only NumPy and LiteRT (pip install ai-edge-litert).

    python run.py                         checks the test vectors
    python run.py inputs.npz outputs.npz  reads encoded inputs and writes outputs, by the names in program.json
    run = load(); run({'image': array})   the same from Python

Arrays are already encoded: README.md says what each of them holds. The rows of a batch are answered one at a time.
"""

import json
import pathlib
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

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


def load(name='', threads=1):
    """Returns a function from encoded inputs to outputs, both {name: array} of any number of rows."""
    described = json.loads((HERE / 'program.json').read_text(encoding='utf-8'))
    program = described['programs'][name or described['main']]
    interpreter = Interpreter(model_path=str(HERE / program['file']), num_threads=threads)
    call = interpreter.get_signature_runner('serving_default')

    def run(inputs):
        given = {name: np.asarray(inputs[name], entry['dtype']) for name, entry in program['inputs'].items()}
        count = len(next(iter(given.values())))
        rows = [call(**{name: value[row : row + 1] for name, value in given.items()}) for row in range(count)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

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
