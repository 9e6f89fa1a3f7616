"""Flattened programs of a model, for formats without loops and random numbers (LiteRT, ONNX)."""

from typing import Any, NamedTuple

import jax
import numpy as np

from research.errors import UserError
from research.export.flatten import Flat, flatten, unsupported
from research.export.programs import Program, Source, outputs_of, predict_program, specs_of, text_programs
from research.ops.noise import NO_INTERPOLATION

FIXED = {'to': NO_INTERPOLATION}  # inputs whose other values need more random draws: generators do not interpolate


class FlatProgram(NamedTuple):
    """A flat program with its test vectors."""

    program: Program  # its weights are constants of `flat`
    flat: Flat
    inputs: dict[str, np.ndarray]  # of eight rows
    outputs: dict[str, np.ndarray]


def flat_predict(source: Source, batch: Any = 1) -> FlatProgram:
    """`task.predict` for a batch size, which may be symbolic; random draws are inputs.

    Raises:
      UserError: if the task answers with a loop (sampling, beam search) or with random bits.
    """
    program = fixed(predict_program(source))
    flat = flat_of(program, batch)
    problems = unsupported(flat)
    if problems:
        raise UserError(
            f'predict of {source.config.task.get("name", "")} contains {" and ".join(problems)}, which this format '
            'cannot hold: use --format=stablehlo'
        )
    if not flat.draws:
        return FlatProgram(program, flat, {name: program.inputs[name] for name in flat.inputs}, outputs_of(program))
    rows = next(len(value) for value in program.inputs.values() if value.ndim)
    whole, generator = flat_of(program, rows), np.random.default_rng(0)
    inputs = {}
    for name, spec in whole.inputs.items():
        drawn = generator.gumbel(size=spec.shape) if 'Gumbel' in flat.draws.get(name, '') else None
        drawn = generator.random(spec.shape) if 'uniform' in flat.draws.get(name, '') else drawn
        drawn = generator.normal(size=spec.shape) if drawn is None and name in flat.draws else drawn
        inputs[name] = program.inputs[name] if drawn is None else drawn.astype(spec.dtype)
    return FlatProgram(program, flat, inputs, jax.device_get(jax.jit(whole.call)(inputs)))


def flat_text(source: Source, batch: Any = 1) -> tuple[FlatProgram, FlatProgram]:
    """`text_programs`, flat, for a batch size.

    Raises:
      UserError: if one of them contains a loop.
    """

    def made(program: Program) -> FlatProgram:
        flat = flat_of(program, batch)
        problems = unsupported(flat)
        if problems:
            raise UserError(
                f'{program.name} of {source.config.task.get("name", "")} contains {" and ".join(problems)}, which this '
                'format cannot hold: use --format=stablehlo'
            )
        return FlatProgram(program, flat, {name: program.inputs[name] for name in flat.inputs}, outputs_of(program))

    prefill, step = text_programs(source)
    return made(prefill), made(step)


def flat_of(program: Program, batch: Any) -> Flat:
    """A program for a batch size, flat, with its weights as constants."""
    return flatten(lambda inputs: program.function(program.weights, inputs), specs_of(program, batch)[1])


def fixed(program: Program) -> Program:
    """The program without the inputs of `FIXED`."""
    bound = {name: value for name, value in FIXED.items() if name in program.inputs}

    def function(weights, inputs):
        rows = next(value.shape[0] for name, value in inputs.items() if program.shapes[name])
        constants = {name: np.full(rows, value, program.inputs[name].dtype) for name, value in bound.items()}
        return program.function(weights, {**inputs, **constants})

    inputs = {name: value for name, value in program.inputs.items() if name not in bound}
    shapes = {name: shape for name, shape in program.shapes.items() if name not in bound}
    return program._replace(function=function, inputs=inputs, shapes=shapes) if bound else program
