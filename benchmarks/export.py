"""Size, load time and one-thread latency of exported formats beside JAX.

    python -m benchmarks.export --workdir=runs/digits [--formats=stablehlo,litert]

One row of the test vectors, medians of interleaved rounds in one process with one thread each; 'load' is the time from
the files to the first answer. Formats that cannot hold the model are printed with the reason.
"""

import os

os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_cpu_multi_thread_eigen=false'.strip()

import importlib
import pathlib
import runpy
import tempfile
import time

import jax
import numpy as np
from absl import app, flags

import research
from research.errors import UserError
from research.export.folder import write_folder
from research.export.programs import predict_program, read_source, specs_of
from research.export.timing import alternate

WORKDIR = flags.DEFINE_string('workdir', '', 'The folder of the run.')
FORMATS = flags.DEFINE_list('formats', ['stablehlo', 'litert'], 'The formats to compare.')


def loaded(folder: pathlib.Path) -> tuple[float, object]:
    """(seconds to the first answer, a call of one row) of an exported folder."""
    started = time.perf_counter()
    module = runpy.run_path(str(folder / 'run.py'))
    run, vectors = module['load'](), module['read']('vectors.safetensors')
    inputs = {name[7:]: value for name, value in vectors.items() if name.startswith('inputs/')}
    row = {name: value[:1] if value.ndim else value for name, value in inputs.items()}
    run(row)
    return time.perf_counter() - started, lambda: run(row)


def in_jax(source) -> tuple[float, object]:
    """The same of the task's own `predict`, compiled ahead for one row."""
    program = predict_program(source)
    row = {name: value[:1] if np.ndim(value) else value for name, value in program.inputs.items()}
    started = time.perf_counter()
    weights = jax.device_put(program.weights)
    compiled = jax.jit(program.function).lower(*specs_of(program, 1)).compile()
    jax.block_until_ready(compiled(weights, row))
    return time.perf_counter() - started, lambda: jax.device_get(compiled(weights, row))


def main(_) -> None:
    """Prints one line per format."""
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    source = read_source(research.load(WORKDIR.value))
    sizes, loads, calls = {'jax': 0}, {}, {}
    loads['jax'], calls['jax'] = in_jax(source)
    with tempfile.TemporaryDirectory() as folder:
        for name in FORMATS.value:
            export = importlib.import_module(f'research.export.{name}').export
            try:
                out = write_folder(source, name, export, pathlib.Path(folder) / name)
            except UserError as error:
                print(f'{name}: {error}')
                continue
            skipped = ('vectors.safetensors', 'README.md', 'LICENSE', 'MANIFEST.sha256')
            sizes[name] = sum(file.stat().st_size for file in out.rglob('*') if file.name not in skipped)
            loads[name], calls[name] = loaded(out)
        seconds = dict(zip(calls, alternate(*calls.values()), strict=True))  # pyright: ignore[reportArgumentType]
    print(f'{"format":<12}{"MB":>9}{"load s":>9}{"ms a row":>10}{"of JAX":>8}')
    for name, taken in seconds.items():
        size = f'{sizes[name] / 1e6:9.2f}' if sizes[name] else ' ' * 9
        print(f'{name:<12}{size}{loads[name]:9.2f}{taken * 1e3:10.3f}{taken / seconds["jax"]:8.2f}')


if __name__ == '__main__':
    app.run(main)
