"""StableHLO: every task, any batch size, for CPU, CUDA and TPU; weights are arguments.

    NAME.jax        a blob of jax.export, which JAX calls
    NAME.mlirbc     the same as portable StableHLO bytecode: any batch size; the first argument is the platform
    NAME_1.mlirbc   one row, without a platform argument: for compilers that want fixed shapes (IREE, PJRT plugins)

JAX reads its own blobs for at least six months; StableHLO bytecode is readable for five years.
"""

import contextlib
from pathlib import Path
from typing import Any

import jax
from jax import export as jax_export

from research.export.folder import Written, signature
from research.export.programs import (
    Program,
    Source,
    outputs_of,
    predict_program,
    specs_of,
    text_programs,
    text_settings,
    writes_texts,
)

PLATFORMS = ('cpu', 'cuda', 'tpu')
TOLERANCE = 1e-6
ENDINGS = {'file': '.jax', 'bytecode': '.mlirbc', 'one_row': '_1.mlirbc'}
PROMISE = (
    'The .jax files are blobs of jax.export: JAX promises to read them for six months, newer versions may refuse them. '
    'The .mlirbc files hold the same programs as portable StableHLO bytecode, which is readable for five years. Their '
    'arguments are the weights and then the inputs, in the order of program.json; NAME.mlirbc has the platform before '
    f'them (int32: {", ".join(f"{number} {name}" for number, name in enumerate(PLATFORMS))}) and takes any batch size, '
    'NAME_1.mlirbc takes one row. Run on a CPU with the test vectors; the programs for CUDA and TPU are lowered only.'
)


def export(source: Source, folder: Path, int8: bool = False) -> Written:
    """Writes the programs of a model."""
    del int8  # `launch.export` refuses it
    program = predict_program(source)
    texts = writes_texts(source.task)
    programs = [program, *(text_programs(source) if texts else ())]
    with without_source_lines():
        described = {each.name: write_program(each, folder) for each in programs}
    weights = {name: value for each in programs for name, value in each.weights.items()}
    more = {'text': text_settings(source.task.generate)._asdict()} if texts else {}
    return Written(
        runner='run_stablehlo.py', packages=('jax', 'jaxlib', 'numpy'), programs=described, main='predict',
        weights=weights, inputs=program.inputs, outputs=outputs_of(program), tolerance=TOLERANCE, promise=PROMISE,
        any_batch=True, more=more,
    )  # fmt: skip


def write_program(program: Program, folder: Path) -> dict[str, Any]:
    """Writes the three files of a program; returns its description."""
    batch = jax_export.symbolic_shape('batch')[0]
    function = jax.jit(program.function, keep_unused=True)
    exported = jax_export.export(function, platforms=PLATFORMS)(*specs_of(program, batch))
    single = jax_export.export(function, platforms=('cpu',))(*specs_of(program, 1))
    files = {name: f'{program.name}{ending}' for name, ending in ENDINGS.items()}
    contents = bytes(exported.serialize()), exported.mlir_module_serialized, single.mlir_module_serialized
    for file, content in zip(files.values(), contents, strict=True):
        (folder / file).write_bytes(content)
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {**signature(program, outputs), **files, 'platforms': list(PLATFORMS)}


@contextlib.contextmanager
def without_source_lines():
    """Leaves the paths of source files out of exported programs."""
    name = 'jax_traceback_in_locations_limit'
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
