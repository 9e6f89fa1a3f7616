"""LiteRT (.tflite) without TensorFlow: phones, single-board computers and browsers; one row at a time.

The flat program goes as portable StableHLO bytecode through the package litert-converter. Weights are constants in the
file. With int8, the weights of large matrices and convolutions have 8 bits and their inputs are quantized as they come,
which is kept only if it is measured to be faster and as accurate.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export as jax_export

from research.errors import UserError
from research.export.flat_programs import FlatProgram, flat_predict, flat_text
from research.export.flatten import Flat
from research.export.folder import Written, signature
from research.export.programs import Source, greedy_texts, text_settings, writes_texts
from research.export.timing import alternate
from research.extras import require

SIGNATURE = 'serving_default'
TOLERANCE, INT8_TOLERANCE = 1e-5, 1e-3  # int8 is compared with its own answers; processors round them differently
MEASURED_ROWS, LARGEST_DROP = 1000, 0.005  # of the test split; of the accuracy
PACKAGES = ('ai-edge-litert', 'numpy', 'jax', 'litert-converter')
PROMISE = (
    'Files of LiteRT (TensorFlow Lite) have been readable by all later versions since 2017. Rows are answered one at a '
    'time. The weights are in the file.'
)
TEXT_PROMISE = (
    ' The loop over tokens is in run.py; its random numbers are those of NumPy, so sampled texts differ from those of '
    'the package, and the test vectors are greedy texts.'
)


class Measured(NamedTuple):
    """int8 beside float32 on this machine, one thread."""

    seconds: float
    float_seconds: float
    score: float
    float_score: float
    rows: int
    about: str  # what the score is

    def __str__(self) -> str:
        return (
            f'{self.seconds * 1e3:.2f} ms against {self.float_seconds * 1e3:.2f} ms a row, {self.about} '
            f'{self.score:.2%} against {self.float_score:.2%} on {self.rows:,} rows of the test split'
        )


def export(source: Source, folder: Path, int8: bool = False) -> Written:
    """Writes model.tflite of a task that answers in one pass.

    Raises:
      UserError: if the task needs a loop or the converter refuses an operation; for int8 also if it is slower than
        float32 or loses more than half a point of accuracy.
    """
    if writes_texts(source.task):
        return export_text(source, folder, int8)
    made = flat_predict(source, 1)
    content, tolerance, more = convert(made.flat), TOLERANCE, {}
    outputs, promise = made.outputs, PROMISE
    if int8:
        content, more = quantized_if_better(source, made, content, quantize, runner_of, answers)
        outputs, tolerance = answers(content, made.inputs), INT8_TOLERANCE
        promise += f' int8, as measured at the export: {more["int8"]}.'
    (folder / 'model.tflite').write_bytes(content)
    described = {**described_of(made), 'file': 'model.tflite'}
    return Written(
        runner='run_litert.py', packages=PACKAGES, programs={'predict': described}, main='predict', inputs=made.inputs,
        outputs=outputs, tolerance=tolerance, promise=promise, more=more,
    )  # fmt: skip


def export_text(source: Source, folder: Path, int8: bool) -> Written:
    """Writes prefill.tflite and step.tflite; the loop is in run.py, so the test vectors are greedy texts."""
    if int8:
        raise UserError('--int8 is measured by the accuracy of a classifier, and this task writes texts')
    described = {}
    for made in flat_text(source, 1):
        file = f'{made.program.name}.tflite'
        (folder / file).write_bytes(convert(made.flat))
        described[made.program.name] = {**described_of(made), 'file': file}
    inputs = {name: value for name, value in source.batch.items() if name in described['prefill']['inputs']}
    settings = text_settings(source.task.generate)._asdict()
    return Written(
        runner='run_litert_text.py', packages=PACKAGES, programs=described, main='prefill', inputs=inputs,
        outputs=greedy_texts(source), tolerance=0.0, promise=PROMISE + TEXT_PROMISE, more={'text': settings},
    )  # fmt: skip


def described_of(made: FlatProgram) -> dict[str, Any]:
    """The description of a flat program, whose weights are in its own file and whose batch is one row."""
    inputs = {name: np.zeros(spec.shape, spec.dtype) for name, spec in made.flat.inputs.items()}
    shapes = {name: spec.shape for name, spec in made.flat.inputs.items()}
    program = made.program._replace(weights={}, inputs=inputs, shapes=shapes)
    outputs = {name: value[:1] for name, value in made.outputs.items()}
    return {**signature(program, outputs), **({'noise': made.flat.draws} if made.flat.draws else {})}


def convert(flat: Flat) -> bytes:
    """A flat function of fixed shapes as a .tflite file.

    Raises:
      UserError: with the first line of what the converter refuses.
    """
    api = require('litert_converter.converter_api_ext')
    ir, passes = require('litert_converter.mlir.ir'), require('litert_converter.mlir.passmanager')
    dialect = require('litert_converter.mlir.dialects.stablehlo')
    exported = jax_export.export(jax.jit(flat.call), platforms=('cpu',))(flat.inputs)
    context = ir.Context()
    api.prepare_mlir_context(context)
    with context:
        module = dialect.deserialize_portable_artifact(context, exported.mlir_module_serialized)
        api.set_signature(module.operation, SIGNATURE, list(flat.inputs), list(flat.outputs))
        try:
            api.run_convert_to_tfl_passes(module, passes.PassManager(), api.ConvertToTFLConfig())
            return api.export_flatbuffer_to_bytes(module.operation)
        except Exception as error:  # the converter raises its own types
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UserError(f'litert-converter refuses the program: {reason:.300}') from None


def runner_of(content: bytes) -> Callable[..., dict[str, np.ndarray]]:
    """The function of a .tflite file for named arrays of one row, on one thread."""
    interpreter = require('ai_edge_litert.interpreter').Interpreter(model_content=content, num_threads=1)
    return interpreter.get_signature_runner(SIGNATURE)


def answers(content: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a .tflite file for rows."""
    run = runner_of(content)
    count = len(next(iter(inputs.values())))
    rows = [run(**{name: value[row : row + 1] for name, value in inputs.items()}) for row in range(count)]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def quantized_if_better(
    source: Source, made: FlatProgram, content: bytes, quantize: Callable, runner_of: Callable, answers: Callable
) -> tuple[bytes, dict[str, Any]]:
    """The int8 file, and what was measured; the functions are those of a format, as in this module.

    Raises:
      UserError: if it is not faster, or loses more than half a point, with the numbers.
    """
    rows, labels = measured_rows(source, made)
    small = quantize(content)
    one = {name: value[:1] for name, value in made.inputs.items()}
    seconds, float_seconds = alternate(*(functools.partial(runner_of(each), **one) for each in (small, content)))
    classes, float_classes = (np.argmax(answers(each, rows)['logits'], axis=-1) for each in (small, content))
    about = 'answers as in float32' if labels is None else 'accuracy'
    wanted = float_classes if labels is None else labels
    score, float_score = (float(np.mean(each == wanted)) for each in (classes, float_classes))
    measured = Measured(seconds, float_seconds, score, float_score, len(classes), about)
    if seconds >= float_seconds or score < float_score - LARGEST_DROP:
        reason = 'is not faster' if seconds >= float_seconds else 'loses more than half a point'
        raise UserError(f'--int8 {reason}: {measured}. Export without --int8')
    return small, {'int8': str(measured), 'float32_bytes': len(content)}


def measured_rows(source: Source, made: FlatProgram) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Encoded rows of the test split, and their labels if they have a single one.

    Raises:
      UserError: if the answer is not one class, or one request is several rows.
    """
    logits = made.outputs.get('logits')
    if logits is None or logits.ndim != 2 or logits.shape[1] < 2 or source.task.split or source.task.buckets:
        raise UserError('--int8 is measured by the accuracy of a classifier, and this task has no classes')
    split = source.task.source('test')
    encoded = [source.task.encode(split[row]) for row in range(min(MEASURED_ROWS, len(split)))]
    rows = {}
    for name, spec in made.flat.inputs.items():  # draws are the same for all rows
        rows[name] = np.array([row.get(name, made.inputs[name][0]) for row in encoded], spec.dtype)
    labels = np.array([row['label'] for row in encoded]) if 'label' in encoded[0] else None
    return rows, labels if labels is not None and labels.ndim == 1 and labels.dtype.kind == 'i' else None


def quantize(content: bytes) -> bytes:
    """A .tflite file with 8-bit weights; activations are quantized while running."""
    quantizer, recipe = require('ai_edge_quantizer.quantizer'), require('ai_edge_quantizer.recipe')
    try:
        made = quantizer.Quantizer(bytearray(content), recipe.dynamic_wi8_afp32())
        return bytes(made.quantize(enable_progress_report=False).quantized_model)
    except (ValueError, RuntimeError) as error:
        raise UserError(f'--int8: nothing of this model can be quantized ({str(error).splitlines()[0]:.200})') from None
