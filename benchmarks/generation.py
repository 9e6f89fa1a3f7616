"""Measures generation with a cache: tokens per second of a small decoder, by number of rows.

    python -m benchmarks.generation [--rows=1,8,32] [--layers=4] [--width=256] [--vocabulary=2048]

The decoder has random weights, so that the work is that of any text. The parts of a step are timed alternately:
'step' is the model with argmax, 'sampled' the model with top-p 0.95 at temperature 0.8, and 'top 50' the same with
top-k 50. Times are medians over rounds of 32 tokens in one program; `--cpu_time` counts processor seconds instead of
the clock, for a machine that others use too.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from research.core.task import Generate, Variables
from research.models.model import GROUP, Model
from research.models.tokens import generate_text
from research.nn.transformer import Transformer
from research.nn.transformer_settings import TransformerSettings
from research.ops.sampling import draw

ROWS = flags.DEFINE_list('rows', ['1', '8', '32'], 'Numbers of rows.')
LAYERS = flags.DEFINE_integer('layers', 4, 'Layers of the decoder.')
WIDTH = flags.DEFINE_integer('width', 256, 'Width of the decoder, a multiple of 64.')
VOCABULARY = flags.DEFINE_integer('vocabulary', 2048, 'Tokens of the vocabulary.')
CAPACITY = flags.DEFINE_integer('capacity', 256, 'Positions of the cache.')
ROUNDS = flags.DEFINE_integer('rounds', 5, 'Timed rounds of each program.')
CPU_TIME = flags.DEFINE_bool('cpu_time', False, 'Count processor seconds instead of the clock.')

PROMPT, TOKENS = 16, 32  # tokens of a prompt, and tokens in one program
SAMPLERS = {'step': (0.0, 0, 1.0), 'sampled': (0.8, 0, 0.95), 'top 50': (0.8, 50, 0.95)}  # temperature, top-k, top-p


def decoder() -> tuple[Generate, Variables]:
    """A decoder with random weights, and its generation."""
    settings = TransformerSettings(
        vocabulary=VOCABULARY.value, length=CAPACITY.value, width=WIDTH.value, layers=LAYERS.value,
        heads=WIDTH.value // 64, causal=True,
    )  # fmt: skip
    module = Transformer(settings)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))['params']
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.05, leaf.shape), leaf.dtype), shapes)
    model = Model(lambda key: Variables({}, {}), lambda *inputs: (None, {}), None, module)
    return generate_text(model, (), CAPACITY.value), Variables({GROUP: params}, {})


def program(generate: Generate, limits: tuple[float, int, float]) -> Callable:
    """Builds (variables, cache, last tokens, keys) -> the last of `TOKENS` further tokens of each row."""

    def run(variables: Variables, cache: Any, last: jax.Array, keys: jax.Array) -> jax.Array:
        def one(carry: tuple, number: jax.Array) -> tuple:
            cache, logits = generate.step(variables, *carry)
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            return (cache, draw(logits, step_keys, *limits)), None

        (_, last), _ = jax.lax.scan(one, (cache, last), jnp.arange(TOKENS))
        return last

    return jax.jit(run)


def main(argv: list[str]) -> None:
    """Prints milliseconds per step and tokens per second."""
    del argv
    clock = time.process_time if CPU_TIME.value else time.perf_counter
    generate, variables = decoder()
    runs = {name: program(generate, limits) for name, limits in SAMPLERS.items()}
    print(f'generation on {jax.default_backend()}, {"processor" if CPU_TIME.value else "clock"} time')
    print('rows  program     ms a step   tokens/s')
    for count in map(int, ROWS.value):
        prompts = {'tokens': jnp.ones((count, PROMPT), jnp.int32), 'length': jnp.full((count,), PROMPT)}
        cache = jax.jit(generate.start, static_argnums=2)(variables, prompts, CAPACITY.value)
        inputs = variables, cache, jnp.ones((count,), jnp.int32), jax.random.split(jax.random.key(0), count)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(ROUNDS.value + 1):
            for name, run in runs.items():
                start = clock()
                jax.block_until_ready(run(*inputs))
                if number:  # the first round compiles
                    times[name].append(clock() - start)
        for name, values in times.items():
            seconds = float(np.median(values))
            print(f'{count:4}  {name:<10}{seconds / TOKENS * 1e3:11.2f}{count * TOKENS / seconds:11.0f}', flush=True)


if __name__ == '__main__':
    app.run(main)
