"""The device functions of a trained model, as programs with named arrays on both sides.

    source = read_source(model)           the model with its views folded, and eight encoded requests
    predict_program(source)               everything from encoded requests to outputs, sampling included
    text_programs(source)                 reads a prompt, and adds one token; the loop is the caller's

Every format starts from these. A program keeps only the weights and inputs that its outputs depend on.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from research.core.config import Config
from research.core.task import Context, Raw, Task, Variables, fold
from research.data.batches import requests
from research.errors import UserError
from research.export.jaxprs import used_inputs
from research.ops.paths import flatten_paths
from research.ops.sampling import sample

ROWS = 8  # encoded requests in the test vectors
SEED = 'random_seed'  # the input that sampled answers depend on, a scalar

Arrays = Mapping[str, Any]  # {name: array}
Shape = tuple[int | None, ...]  # None: the batch


def no_publication() -> Any:
    """The default `Source.publish`; raises UserError."""
    raise UserError('this model has no counterpart among the models of the hub')


class Source(NamedTuple):
    """A trained model as every format starts from it."""

    config: Config
    task: Task
    variables: Variables  # as the model reads them: `task.view` is folded; host arrays
    step: int
    workdir: epath.Path
    raws: Sequence[Raw]  # eight requests
    batch: dict[str, np.ndarray]  # the same encoded, with 'index' and 'mask'
    publish: Callable[[], Any] = no_publication  # makes its `interop.publish.Published`, or raises UserError


class Program(NamedTuple):
    """A device function `(weights, inputs) -> outputs` of flat dicts, for a batch of any size."""

    name: str
    function: Callable[[Arrays, Arrays], dict[str, Any]]
    weights: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]  # of the eight requests
    shapes: dict[str, Shape]  # of the inputs


def read_source(model: Any) -> Source:
    """Folds the weights of a loaded run (`inference.model.Model`) and encodes eight requests.

    Raises:
      UserError: if neither the task nor its test split has a request.
    """
    task: Task = model.task
    variables = jax.device_get(jax.jit(task.view)(model.variables))
    raws = example_requests(task)
    examples = [task.encode(part) for raw in raws for part in (task.split(raw) if task.split else [raw])]
    if task.buckets:  # one program has one shape: the largest
        largest = max(task.buckets.bucket(example) for example in examples)
        examples = [task.buckets.pad(example, largest) for example in examples]
    examples = [examples[number % len(examples)] for number in range(ROWS)]
    batch = requests(lambda example: example, examples, ROWS)
    return Source(model.config, task, variables, model.step, model.workdir, raws, batch)


def example_requests(task: Task) -> Sequence[Raw]:
    """Up to eight requests: the examples of the task, or rows of its test split."""
    if task.examples:
        return list(task.examples[:ROWS])
    rows = task.source('test')
    if not len(rows):
        raise UserError('the test split is empty: an export needs rows for its test vectors')
    chosen = [rows[number] for number in range(min(ROWS, len(rows)))]
    without = [{name: value for name, value in row.items() if name in task.inputs} for row in chosen]
    return without if all(without) else chosen  # `encode` makes the request of a restoration from its target


def predict_program(source: Source) -> Program:
    """`task.predict` on encoded requests; sampled answers depend on 'random_seed' and 'index', as `Model.answers`."""
    task, treedef = source.task, jax.tree.structure(source.variables)

    def function(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        key = fold(jax.random.key(inputs[SEED]), 'evaluate')
        batch = {name: value for name, value in inputs.items() if name != SEED}
        variables = jax.tree.unflatten(treedef, [weights[path] for path in names])
        return dict(task.predict(variables, batch, Context(key, np.int32(0), False)))  # pyright: ignore[reportArgumentType]

    weights = flatten_paths(source.variables)
    names = tuple(weights)
    inputs = {**source.batch, SEED: np.int32(source.config.seed)}
    return pruned(Program('predict', function, weights, inputs, rows_of(inputs)))  # pyright: ignore[reportArgumentType]


def rows_of(arrays: Arrays) -> dict[str, Shape]:
    """The shapes of arrays whose first axis is the batch; a scalar has none."""
    return {name: (None, *value.shape[1:]) if np.ndim(value) else () for name, value in arrays.items()}


class TextSettings(NamedTuple):
    """What the loop around `text_programs` needs to know."""

    end: list[int]  # a text ends with one of these tokens
    max_new_tokens: int
    capacity: int  # positions of a prompt with its text
    temperature: float
    top_k: int
    top_p: float


def text_settings(generate: Any) -> TextSettings:
    """The settings of a task's `Generate`."""
    decoding = generate.decoding
    return TextSettings(
        list(generate.end), decoding.max_new_tokens, generate.capacity, decoding.temperature, decoding.top_k,
        decoding.top_p,
    )  # fmt: skip


def writes_texts(task: Task) -> bool:
    """Whether `text_programs` has programs for a task."""
    return task.generate is not None and task.generate.decoding is not None and task.generate.prompts is not None


def text_programs(source: Source) -> tuple[Program, Program]:
    """(prefill, step) of a task that writes texts.

    `prefill` reads the encoded prompt and returns the cache and 'token', the last token of the prompt. `step` reads
    'token' and the cache, and returns 'logits' of the next token and the new cache.
    """
    generate: Any = source.task.generate
    treedef, weights = jax.tree.structure(source.variables), flatten_paths(source.variables)
    names = tuple(weights)
    batch = {name: value for name, value in source.batch.items() if name not in ('index', 'mask')}

    def variables_of(weights: Arrays) -> Variables:
        return jax.tree.unflatten(treedef, [weights[path] for path in names])

    def start(weights: Arrays, inputs: Arrays) -> tuple[Any, Any]:
        prompts = generate.prompts(inputs)
        last = jax.numpy.take_along_axis(prompts['tokens'], prompts['length'][:, None] - 1, axis=1)[:, 0]
        return generate.start(variables_of(weights), prompts, generate.capacity), last

    def prefill(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        cache, last = start(weights, inputs)
        return {**named_cache(cache), 'token': last}

    cache_shapes, _ = jax.eval_shape(start, weights, batch)
    cache_def = jax.tree.structure(cache_shapes)
    cache_names = tuple(named_cache(cache_shapes))

    def step(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        cache = jax.tree.unflatten(cache_def, [inputs[name] for name in cache_names])
        cache, logits = generate.step(variables_of(weights), cache, inputs['token'])
        return {**named_cache(cache), 'logits': logits}

    first = pruned(Program('prefill', prefill, weights, batch, rows_of(batch)))
    state = outputs_of(first)
    return first, pruned(Program('step', step, weights, state, rows_of(state)))  # pyright: ignore[reportArgumentType]


def named_cache(cache: Any) -> dict[str, Any]:
    """The leaves of a cache by name; every leaf has the batch first."""
    return {'cache_' + path.replace('/', '_'): leaf for path, leaf in flatten_paths(cache).items()}


def greedy_texts(source: Source) -> dict[str, np.ndarray]:
    """The most probable continuation of the eight requests: 'tokens' [8, max_new_tokens] and 'length'."""
    generate: Any = source.task.generate

    def decode(variables: Variables, batch: Arrays) -> Any:
        keys = jax.vmap(jax.random.key)(batch['index'])  # not used at temperature 0
        tokens = generate.decoding.max_new_tokens
        return sample(generate, variables, generate.prompts(batch), keys, tokens, temperature=0.0)._asdict()

    return jax.device_get(jax.jit(decode)(source.variables, source.batch))


def pruned(program: Program) -> Program:
    """The same program without the weights and inputs that no output depends on."""
    specs = jax.eval_shape(lambda *both: both, program.weights, program.inputs)
    flags = used_inputs(jax.make_jaxpr(program.function)(*specs))
    weights_used, inputs_used = jax.tree.unflatten(jax.tree.structure(specs), flags)
    unused_weights = {name: specs[0][name] for name, used in weights_used.items() if not used}
    unused_inputs = {name: specs[1][name] for name, used in inputs_used.items() if not used}

    def function(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        absent = {name: np.zeros(spec.shape, spec.dtype) for name, spec in unused_weights.items()}
        rows = next((value.shape[0] for name, value in inputs.items() if program.shapes[name]), 1)
        blank = {}
        for name, spec in unused_inputs.items():
            shape = (rows, *spec.shape[1:]) if program.shapes[name] else spec.shape
            blank[name] = jax.numpy.zeros(shape, spec.dtype)
        return program.function({**absent, **weights}, {**blank, **inputs})

    return Program(
        program.name,
        function,
        {name: value for name, value in program.weights.items() if weights_used[name]},
        {name: value for name, value in program.inputs.items() if inputs_used[name]},
        {name: value for name, value in program.shapes.items() if inputs_used[name]},
    )


def specs_of(program: Program, batch: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shapes and dtypes of (weights, inputs) for a batch size, which may be symbolic."""
    weights = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in program.weights.items()}
    inputs = {
        name: jax.ShapeDtypeStruct(tuple(batch if size is None else size for size in shape), program.inputs[name].dtype)
        for name, shape in program.shapes.items()
    }
    return weights, inputs


def outputs_of(program: Program) -> dict[str, np.ndarray]:
    """The outputs for the eight requests, computed here."""
    return jax.device_get(jax.jit(program.function)(program.weights, program.inputs))
