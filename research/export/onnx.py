"""ONNX: tasks that answer in one pass, and text generation as two programs with the loop in run.py.

    predict.onnx              encoded requests to outputs, for any number of rows; random draws are inputs
    prefill.onnx, step.onnx   a prompt to its cache; a token and the cache to the next logits and cache

The flat programs go through the package jax2onnx, which reads only such. Weights are constants in the files. With int8,
the weights of matrices have 8 bits, which is kept only if it is measured to be faster and as accurate.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export
from jax.extend import core

from research.errors import UserError
from research.export.flat_programs import FlatProgram, flat_predict
from research.export.flatten import Flat, flatten, unsupported
from research.export.folder import RUNNERS, Written, signature
from research.export.litert import quantized_if_better
from research.export.programs import Program, Source
from research.extras import require

FIXED_ROWS = (UserError, TypeError, jax.errors.InconclusiveDimensionOperation)
PACKAGES = ('onnxruntime', 'numpy', 'jax', 'onnx', 'jax2onnx')
OPSET = 21  # onnxruntime-web and the runtimes of most devices know it
TOLERANCE, TEXT_TOLERANCE, INT8_TOLERANCE = 1e-5, 2e-5, 1e-3
PROMISE = (
    'ONNX files stay readable: every later version of ONNX Runtime reads older operator sets. The weights are in the '
    'files. Where there is a run.mjs, the model also runs in a browser.'
)
TEXT_PROMISE = (
    ' `python run.py "text"` continues a text, greedily or with --temperature; this also needs the package tokenizers.'
)


def export(source: Source, folder: Path, int8: bool = False) -> Written:
    """Writes predict.onnx, or prefill.onnx and step.onnx of a task that generates texts.

    Raises:
      UserError: if the task needs another loop or the converter refuses an operation; for int8 also if it is slower
        than float32 or loses more than half a point of accuracy.
    """
    if source.task.generate is not None and source.task.generate.decoding is not None:
        if int8:
            raise UserError('--int8 is measured by the accuracy of a classifier; for texts use --format=gguf')
        return export_generation(source, folder)
    try:
        made, any_batch = flat_predict(source, symbolic_batch()), True
        content = verified(convert(made.flat, 'predict'), made)
    except FIXED_ROWS:  # some operations need a fixed number of rows: they are answered one at a time
        made, any_batch = flat_predict(source, 1), False
        content = verified(convert(made.flat, 'predict'), made)
    tolerance, outputs, promise, more = TOLERANCE, made.outputs, PROMISE, {}
    if int8:  # the scale of activations is that of a whole batch, so rows are answered one at a time
        any_batch = False
        content, more = quantized_if_better(source, made, content, quantize, runner_of, answers)
        outputs, tolerance = answers(content, made.inputs), INT8_TOLERANCE
        promise += f' int8, as measured at the export: {more["int8"]}.'
    (folder / 'predict.onnx').write_bytes(content)
    if any_batch:
        shutil.copyfile(RUNNERS / 'run_onnx.mjs', folder / 'run.mjs')
    described = {**described_of(made.flat, made.program, made.outputs, any_batch), 'file': 'predict.onnx'}
    return Written(
        runner='run_onnx.py', packages=PACKAGES, programs={'predict': described}, main='predict', inputs=made.inputs,
        outputs=outputs, tolerance=tolerance, promise=promise, any_batch=any_batch, more=more,
    )  # fmt: skip


def symbolic_batch() -> Any:
    return jax_export.symbolic_shape('batch')[0]


def described_of(flat: Flat, program: Program, outputs: Mapping[str, Any], any_batch: bool) -> dict[str, Any]:
    """The description of a flat program, whose weights are in its own file."""

    def fixed(shape: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(size if isinstance(size, int) else None for size in shape)

    shapes = {name: fixed(spec.shape) for name, spec in flat.inputs.items()}
    inputs = {
        name: np.zeros([size or 1 for size in shape], flat.inputs[name].dtype) for name, shape in shapes.items()
    }
    made = program._replace(weights={}, inputs=inputs, shapes=shapes)
    batch = symbolic_batch() if any_batch else 1
    whole = {
        name: jax.ShapeDtypeStruct((batch, *outputs[name].shape[1:]), outputs[name].dtype) for name in flat.outputs
    }
    return {**signature(made, whole), **({'noise': flat.draws} if flat.draws else {})}


def convert(flat: Flat, name: str) -> bytes:
    """A flat function as an ONNX file.

    Raises:
      UserError: with the first line of what the converter refuses.
    """
    require('onnx')
    for name_of_logger in ('jax2onnx', 'onnx_ir'):  # which warn of their own examples and of types left out
        logging.getLogger(name_of_logger).setLevel(logging.CRITICAL)
    jax2onnx = require('jax2onnx')
    try:
        model = jax2onnx.to_onnx(
            separate_outputs(flat), inputs=list(flat.inputs.values()), model_name=name, opset=OPSET,
            input_names=list(flat.inputs),
            output_names=[f'{name}_out' if name in flat.inputs else name for name in flat.outputs],
        )  # fmt: skip
    except Exception as error:  # the converter raises its own types
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f'jax2onnx refuses the program: {reason:.300}') from None
    return model.SerializeToString()


def verified(content: bytes, made: FlatProgram) -> bytes:
    """The file, if ONNX Runtime reads it and gives the outputs of the test vectors.

    Raises:
      UserError: with the reason of the runtime, or the error of the outputs.
    """
    try:
        got = answers(content, made.inputs)
    except Exception as error:  # the runtime raises its own types
        raise UserError(f'ONNX Runtime refuses the converted program: {str(error):.300}') from None
    for name, value in made.outputs.items():
        difference = np.abs(np.subtract(got[name], value, dtype=np.float64)).max(initial=0.0)
        if not difference <= TOLERANCE:
            raise UserError(
                f'the converted program is wrong: its output {name!r} differs by {difference:.2g} (allowed {TOLERANCE})'
            )
    return content


def runner_of(content: bytes) -> Callable[..., dict[str, np.ndarray]]:
    """The function of an ONNX file for named arrays, on one thread."""
    runtime = require('onnxruntime')
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
    names = [output.name.removesuffix('_out') for output in session.get_outputs()]
    return lambda **inputs: dict(zip(names, session.run(None, inputs), strict=True))


def answers(content: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of an ONNX file for rows, one by one: its number of rows may be fixed."""
    run, count = runner_of(content), len(next(iter(inputs.values())))
    rows = [run(**{name: value[row : row + 1] for name, value in inputs.items()}) for row in range(count)]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def quantize(content: bytes) -> bytes:
    """An ONNX file with 8-bit weights of matrices; activations are quantized while running.

    Raises:
      UserError: if it has no matrix of weights.
    """
    onnx, runtime = require('onnx'), require('onnxruntime')
    quantization = require('onnxruntime.quantization')
    with tempfile.TemporaryDirectory() as folder:
        simple, matrices, small = (str(Path(folder, f'{name}.onnx')) for name in ('simple', 'matrices', 'small'))
        options = runtime.SessionOptions()  # weights behind constant nodes are found only after these optimisations
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath, options.log_severity_level = simple, 3
        runtime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
        model = onnx.load(simple)
        for node in model.graph.node:  # only MatMul is quantized
            scale = {each.name: each.f for each in node.attribute}
            if node.op_type == 'Gemm' and scale.get('beta') == 0.0 and scale.get('alpha', 1.0) == 1.0:
                node.op_type = 'MatMul'
                del node.input[2:], node.attribute[:]
        onnx.save(model, matrices)
        logging.disable(logging.WARNING)  # it asks for a preparation that was just made
        try:
            quantization.quantize_dynamic(
                matrices, small, ['MatMul'], per_channel=True, weight_type=quantization.QuantType.QInt8,
                extra_options={'MatMulConstBOnly': True},
            )  # fmt: skip
        finally:
            logging.disable(logging.NOTSET)
        content = Path(small).read_bytes()
    if not any('MatMulInteger' in node.op_type for node in onnx.load_from_string(content).graph.node):
        raise UserError('--int8: no product with a matrix of weights can be quantized; export without --int8')
    return content


def separate_outputs(flat: Flat) -> Callable[..., list[Any]]:
    """The function of a flat program, where each output is a value of its own and can have a name of its own."""
    seen = {*flat.closed.jaxpr.invars}
    copied = []
    for variable in flat.closed.jaxpr.outvars:
        copied.append(isinstance(variable, core.Literal) or variable in seen)
        seen |= set() if copied[-1] else {variable}

    def function(*values: Any) -> list[Any]:
        results = core.jaxpr_as_fun(flat.closed)(*values)
        ones = [np.ones((), value.dtype) for value in results]
        return [value * one if copy else value for value, one, copy in zip(results, ones, copied, strict=True)]

    return function


def export_generation(source: Source, folder: Path) -> Written:
    """Writes prefill.onnx and step.onnx, with greedy texts as test vectors."""
    generate = source.task.generate
    assert generate is not None and generate.prompts is not None and generate.decoding is not None
    prompts = {name: np.asarray(value) for name, value in generate.prompts(source.batch).items()}
    capacity = min(prompts['tokens'].shape[1] + generate.decoding.max_new_tokens, generate.limit)
    flats = generation_programs(source, prompts, capacity)
    described = {}
    for name, flat in flats.items():
        (folder / f'{name}.onnx').write_bytes(convert(flat, name))
        described[name] = {**described_text(flat), 'file': f'{name}.onnx'}
    settings = {
        'end': list(generate.end), 'capacity': capacity, 'prompt': prompts['tokens'].shape[1],
        **{name: getattr(generate.decoding, name) for name in ('max_new_tokens', 'temperature', 'top_k', 'top_p')},
    }  # fmt: skip
    outputs = greedy_texts(source, prompts, settings)
    return Written(
        runner='run_onnx_text.py', packages=PACKAGES, programs=described, main='step', inputs=prompts, outputs=outputs,
        tolerance=TEXT_TOLERANCE, promise=PROMISE + TEXT_PROMISE, any_batch=True, more={'generation': settings},
    )  # fmt: skip


def generation_programs(source: Source, prompts: Mapping[str, np.ndarray], capacity: int) -> dict[str, Flat]:
    """{'prefill': prompt -> cache, 'step': token and cache -> logits and cache}, for any number of rows.

    Raises:
      UserError: for beam search, or a program with a loop.
    """
    generate, batch = source.task.generate, symbolic_batch()
    assert generate is not None and generate.decoding is not None
    if generate.decoding.beams:
        raise UserError('beam search is a loop, which ONNX cannot hold: use --format=stablehlo')
    specs = {name: jax.ShapeDtypeStruct((batch, *value.shape[1:]), value.dtype) for name, value in prompts.items()}
    cache = jax.eval_shape(lambda inputs: generate.start(source.variables, inputs, capacity), specs)
    leaves, treedef = jax.tree.flatten(cache)
    names = [f'cache_{number}' for number in range(len(leaves))]

    def prefill(inputs: Mapping[str, Any]) -> dict[str, Any]:
        made = generate.start(source.variables, inputs, capacity)
        return dict(zip(names, jax.tree.leaves(made), strict=True))

    def step(inputs: Mapping[str, Any]) -> dict[str, Any]:
        given = jax.tree.unflatten(treedef, [inputs[name] for name in names])
        made, logits = generate.step(source.variables, given, inputs['token'])
        after = [f'next_{name}' for name in names]
        return {'logits': logits, **dict(zip(after, jax.tree.leaves(made), strict=True))}

    step_specs = {'token': jax.ShapeDtypeStruct((batch,), np.int32), **dict(zip(names, leaves, strict=True))}
    flats = {'prefill': flatten(prefill, specs), 'step': flatten(step, step_specs)}
    for name, flat in flats.items():
        problems = unsupported(flat)
        if problems:
            raise UserError(f'{name} contains {" and ".join(problems)}, which ONNX cannot hold: use --format=stablehlo')
    return flats


def described_text(flat: Flat) -> dict[str, Any]:
    """The description of a program of a generation, whose arrays have the batch as first axis."""

    def entry(value: Any) -> dict[str, Any]:
        return {'dtype': value.dtype.name, 'shape': ['batch', *value.shape[1:]]}

    outputs = dict(zip(flat.outputs, flat.closed.out_avals, strict=True))
    return {
        'weights': [], 'inputs': {name: entry(spec) for name, spec in flat.inputs.items()},
        'outputs': {name: entry(value) for name, value in outputs.items()},
    }  # fmt: skip


def greedy_texts(
    source: Source, prompts: Mapping[str, np.ndarray], settings: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The most probable tokens after each prompt, their number, and the logits of the first; computed here."""
    generate, rows = source.task.generate, len(prompts['length'])
    assert generate is not None
    start = jax.jit(lambda given: generate.start(source.variables, given, settings['capacity']))
    step = jax.jit(lambda cache, token: generate.step(source.variables, cache, token))
    cache, length = start(dict(prompts)), prompts['length']
    token = prompts['tokens'][np.arange(rows), length - 1]
    room = np.minimum(settings['capacity'] - length, settings['max_new_tokens'])
    written, first = np.zeros((rows, settings['max_new_tokens']), np.int32), None
    produced, going = np.zeros(rows, np.int32), room > 0
    for turn in range(settings['max_new_tokens']):
        cache, logits = step(cache, token)
        first = np.asarray(logits) if first is None else first
        token = np.where(going, np.argmax(logits, axis=-1), 0).astype(np.int32)
        written[:, turn] = token
        produced += going
        going = going & ~np.isin(token, settings['end']) & (produced < room)
    return {'tokens': written, 'length': produced, 'logits': first}  # pyright: ignore[reportReturnType]
