"""Writes texts with the exported model of this folder; needs only NumPy and LiteRT (pip install ai-edge-litert).

python run.py [inputs.npz outputs.npz]   checks the test vectors, or reads encoded prompts (see README.md)
run = load(); run({'tokens': ids, 'length': n}, temperature=0.8, top_p=0.9, seed=1)   without these: the likeliest
"""

import json
import pathlib
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

HERE, DTYPES = pathlib.Path(__file__).parent, {'F32': 'f4', 'I32': 'i4', 'U32': 'u4', 'U8': 'u1', 'BOOL': '?'}


def read(file):
    """Reads the arrays of a .safetensors file."""
    end = 8 + int.from_bytes((content := (HERE / file).read_bytes())[:8], 'little')
    entries = json.loads(content[8:end]).items()
    arrays = {n: np.frombuffer(content[end:][slice(*e['data_offsets'])], DTYPES[e['dtype']]) for n, e in entries}
    return {name: arrays[name].reshape(entry['shape']) for name, entry in entries}


def choose(logits, generator, temperature=0.0, top_k=0, top_p=1.0):
    """The likeliest token, or one drawn from the top_k likeliest, of which those count that together reach top_p."""
    order = np.argsort(-logits, kind='stable')[: top_k or None] if temperature else [np.argmax(logits)]
    share = np.exp((logits[order] - logits[order[0]]) / (temperature or 1), dtype=np.float64)
    share[1:][np.cumsum(share / share.sum())[:-1] >= top_p] = 0
    return generator.choice(order, p=share / share.sum())


def load():
    """Returns a function from encoded prompts to {'tokens': ids, 'length': numbers of them}."""
    described = json.loads((HERE / 'program.json').read_text(encoding='utf-8'))
    text, (prefill, step) = described['text'], (described['programs'][name] for name in ('prefill', 'step'))
    start, advance = (Interpreter(str(HERE / each['file'])).get_signature_runner() for each in (prefill, step))

    def run(inputs, seed=0, **sampling):
        given = {name: np.asarray(inputs[name], entry['dtype']) for name, entry in prefill['inputs'].items()}
        tokens = np.zeros((len(next(iter(given.values()))), text['max_new_tokens']), np.int32)
        lengths = np.zeros(len(tokens), np.int32)
        for row in range(len(tokens)):
            generator = np.random.default_rng((seed, row))
            state = start(**{name: value[row : row + 1] for name, value in given.items()})
            for place in range(min(tokens.shape[1], text['capacity'] - given.get('length', lengths + 1)[row])):
                state = advance(**{name: state[name] for name in step['inputs']})
                tokens[row, place] = choose(state['logits'][0], generator, **sampling)
                state['token'], lengths[row] = tokens[row, place : place + 1], place + 1
                if tokens[row, place] in text['end']:
                    break
        return {'tokens': tokens, 'length': lengths}

    return run


if __name__ == '__main__':
    vectors, wanted = read('vectors.safetensors'), sys.argv[1:]
    got = load()(np.load(wanted[0]) if wanted else {n[7:]: value for n, value in vectors.items() if n[:7] == 'inputs/'})
    np.savez(wanted[1], **got) if wanted else print(all((got[n] == vectors[f'outputs/{n}']).all() for n in got))
