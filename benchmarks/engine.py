"""Times the generation engine: tokens per second of 1, 8 and 32 requests at once against one after another.

    python -m benchmarks.engine [--layers=8 --width=256 --vocabulary=2048 --new=128]

A decoder with random weights, by default 6.9 million parameters, float32; prompts of 16 tokens, sampled at temperature
0.8 with top-p 0.95. "One by one" has an engine with a single slot, the fastest way to answer one request; the engine
with 32 slots computes all slots in every step, so that its answers are the same bit for bit in any company. Times are
medians of 5 rounds, measured alternately; ratios are to "one by one" in the same rounds.
"""

import argparse
import statistics
import time

import jax
import numpy as np
from etils import epath
from tokenizers import Tokenizer, decoders, models

from research.core.config import MeshSettings
from research.core.sharding import make_mesh
from research.core.task import Decoding, Host, Task
from research.families import tokens
from research.inference.engine import Engine
from research.inference.text_requests import TextRequest
from research.models.tokens import decoder, generate_text

PROMPT, SLOTS, ROUNDS = 16, 32, 5


def make_task(layers: int, width: int, vocabulary: int, new: int) -> Task:
    """A language model without data."""
    length = PROMPT + new
    shape = {'layers': layers, 'width': width, 'heads': max(1, width // 64)}
    model = decoder(shape, epath.Path('unused'), vocabulary, length)
    tokenizer = Tokenizer(models.WordLevel({f'{number:05d} ': number for number in range(vocabulary)}, '00000 '))
    tokenizer.decoder = decoders.Fuse()
    generate = tokens.continue_text(
        generate_text(model, (), length), Decoding(new, 0.8, 0, 0.95), length, lambda batch: batch['length'], False,
        tokenizer,
    )  # fmt: skip
    host = Host({}, lambda raw, rng=None: raw, lambda outputs: outputs)
    return tokens.token_prediction(
        host, lambda split: [], model, np.ones(vocabulary), predict=tokens.predict_text(generate), generate=generate
    )


def tokens_per_second(engine: Engine, together: int, new: int) -> float:
    """Generates one text in each of `together` slots and streams the pieces."""
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, engine.programs.vocabulary, (together, PROMPT)).tolist()
    pieces = []
    started = time.perf_counter()
    tickets = [
        engine.submit(TextRequest(tokens=tuple(prompt), seed=1, index=number, max_tokens=new), pieces.append)
        for number, prompt in enumerate(prompts)
    ]
    for ticket in tickets:
        engine.finish(ticket)
    seconds = time.perf_counter() - started
    assert sum(len(piece.tokens) for piece in pieces) == together * new
    return together * new / seconds


def main() -> None:
    """Prints one line for each number of requests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (('layers', 8), ('width', 256), ('vocabulary', 2048), ('new', 128)):
        parser.add_argument(f'--{name}', type=int, default=default)
    settings = parser.parse_args()
    task = make_task(**vars(settings))
    mesh = make_mesh(MeshSettings(), jax.devices()[:1])
    variables = jax.jit(task.init)(jax.random.key(0))
    engines = {slots: Engine(task, variables, mesh, slots) for slots in (1, SLOTS)}
    for slots, engine in engines.items():
        started = time.perf_counter()
        engine.warm_up()
        print(f'{slots} slots: warm-up {time.perf_counter() - started:.1f} s')
    size = sum(leaf.size for leaf in jax.tree.leaves(variables)) / 1e6
    print(f'{size:.1f} million parameters on {jax.default_backend()}, {settings.new} new tokens')
    cases = [('one by one', 1, 1), *((f'{count} at once', SLOTS, count) for count in (1, 8, SLOTS))]
    rates: dict[str, list[float]] = {name: [] for name, _, _ in cases}
    for _ in range(ROUNDS):
        for name, slots, together in cases:
            rates[name].append(tokens_per_second(engines[slots], together, settings.new))
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates['one by one'], strict=True))
        print(f'{name:12} {statistics.median(values):9.0f} tokens/s   {ratio:6.2f}')


if __name__ == '__main__':
    main()
