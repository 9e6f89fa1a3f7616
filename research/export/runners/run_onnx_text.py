"""Continues texts with the exported model of this folder; needs only NumPy and ONNX Runtime (pip install onnxruntime).

    python run.py 'a text' [temperature]   prints its continuation (also needs: pip install tokenizers); 0 is greedy
    run = load(); run({'tokens': [[5, 7, 0]], 'length': [2]}, temperature=0.7, top_k=40, top_p=0.9, seed=1)
"""

import json
import pathlib
import sys

import numpy as np
import onnxruntime

HERE = pathlib.Path(__file__).parent

def read(file):  # the arrays of a .safetensors file
    content, types = (HERE / file).read_bytes(), {'F32': 'f4', 'I32': 'i4'}
    start = 8 + int.from_bytes(content[:8], 'little')
    return {name: np.frombuffer(content[start:][slice(*part['data_offsets'])], types[part['dtype']])
            .reshape(part['shape']) for name, part in json.loads(content[8:start]).items() if name != '__metadata__'}

def pick(logits, temperature, top_k, top_p, random):  # one token of each row
    if not temperature:
        return logits.argmax(-1)
    order = np.argsort(-logits, axis=-1, kind='stable')[:, : top_k or None]
    scaled = np.take_along_axis(logits, order, -1).astype(np.float64) / temperature
    chance = np.exp(scaled - scaled[:, :1])
    chance[np.cumsum(chance, -1) - chance >= top_p * chance.sum(-1, keepdims=True)] = 0
    return np.array([random.choice(row, p=each / each.sum()) for row, each in zip(order, chance, strict=True)])

def load(name=''):  # a function from prompts to tokens, their number, and the logits of the first
    described, make = json.loads((HERE / 'program.json').read_text(encoding='utf-8')), onnxruntime.InferenceSession
    settings, programs = described['generation'], described['programs']
    sessions = {key: make(str(HERE / f'{key}.onnx'), providers=['CPUExecutionProvider']) for key in programs}
    def call(key, given):
        values = {each: np.asarray(given[each], entry['dtype']) for each, entry in programs[key]['inputs'].items()}
        names = (each.removeprefix('next_') for each in programs[key]['outputs'])
        return dict(zip(names, sessions[key].run(None, values), strict=True))
    def run(inputs, temperature=0.0, top_k=0, top_p=1.0, seed=0):
        cache, length, made = call('prefill', inputs), np.asarray(inputs['length']), []
        token = np.take_along_axis(np.asarray(inputs['tokens']), length[:, None] - 1, 1)[:, 0]
        room, count = np.minimum(settings['capacity'] - length, settings['max_new_tokens']), 0 * length
        going, random, first = room > 0, np.random.default_rng(seed), None
        while going.any() or not made:
            cache = call('step', {**cache, 'token': token})
            first = cache['logits'] if first is None else first
            token = np.where(going, pick(cache['logits'], temperature, top_k, top_p, random), 0).astype(np.int32)
            made, count = [*made, token], count + going
            going = going & ~np.isin(token, settings['end']) & (count < room)
        tokens = np.pad(np.stack(made, 1), ((0, 0), (0, settings['max_new_tokens'] - len(made))))
        return {'tokens': tokens, 'length': count.astype(np.int32), 'logits': first}
    return run

if __name__ == '__main__' and len(sys.argv) > 1:
    settings = json.loads((HERE / 'program.json').read_text(encoding='utf-8'))['generation']
    tokenizer = __import__('tokenizers').Tokenizer.from_file(str(HERE / 'tokenizer.json'))
    ids = tokenizer.encode(sys.argv[1]).ids[-settings['prompt'] :] or settings['end'][:1]
    row = {'tokens': [ids + [0] * (settings['prompt'] - len(ids))], 'length': [len(ids)], 'prefix': [len(ids)]}
    answer = load()(row, float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
    print(sys.argv[1] + tokenizer.decode(answer['tokens'][0][: answer['length'][0]].tolist()))
