"""A task is a tuple of pure functions; everything else in Tessera works on this tuple.

    data     inputs, source, encode, split, join, buckets
    model    init, load, losses, gradients, predict, generate, score, claim, view
    measure  metric_sums, metrics, finalize
    show     decode, render, final_pictures, examples, notes, describe

A module of `research/tasks/` has three functions. `prepare(config, folder)` runs once and stores in `folder` what the
task needs besides weights, built from the training split only. `host(config, folder) -> Host` makes the functions that
run on the host for a request, and `make(config, folder) -> Task` all functions. The module imports without flax: `make`
imports its models when it is called, so that a serving machine needs no flax for `host`.
A method (`research/methods/`) has `apply(task, settings, config) -> Task`.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from research.data.buckets import Buckets

Tree = Any  # a pytree of arrays
Batch = Mapping[str, Any]  # name -> array with a leading batch axis; always holds 'index' and 'mask'
Raw = Mapping[str, Any]  # one row of the source, of a file or of a request


class Variables(NamedTuple):
    """All arrays of a model: trained `params` and other collections `extra`, each by parameter group."""

    params: dict[str, Tree]
    extra: dict[str, dict[str, Tree]]


class Context(NamedTuple):
    """The inputs of a device function besides its variables and its batch.

    `watch` makes a score report its activations: {group: {path of a tap: delta}}, where each delta is added to the
    activation at that path (the same shape; see `research/nn/tap.py`) and may be left out. {} only reports. None, the
    default, is decided while tracing: the compiled program is the one without taps.
    """

    key: PRNGKeyArray  # never used directly: derive one per purpose with `context.fold('dropout')`
    step: Int[Array, '']
    train: bool
    watch: Mapping[str, Mapping[str, Array]] | None = None

    def fold(self, purpose: str) -> PRNGKeyArray:
        """The key of this step, group and microbatch for one purpose."""
        return fold(self.key, purpose)


def fold(key: PRNGKeyArray, purpose: str) -> PRNGKeyArray:
    """Folds the name of a purpose into `key` (CRC-32 of the name: the same in every process)."""
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))


class Aux(NamedTuple):
    """The outputs of a loss besides its sum.

    The sum is divided by `weight` once, over all microbatches and devices. `extra` contains new values of non-trained
    collections, {group: {collection: tree}}; a method keeps its own state under a separate key. `logs` are sums with
    the same weight. `outputs` are for methods that wrap the loss, such as distillation: {'logits': [..., classes],
    'mask': logits.shape[:-1], float32} if a task has logits.
    """

    weight: Float[Array, '']
    extra: dict[str, dict[str, Tree]] = {}
    logs: dict[str, Float[Array, '']] = {}
    outputs: Any = None


Seen = dict[str, dict[str, Array]]  # {group: {path of a tap: activation}}, as `Context.watch` takes deltas
Loss = Callable[[Variables, Batch, Context], tuple[Float[Array, ''], Aux]]
Score = Callable[[Variables, Batch, Context], tuple[Float[Array, 'batch'], Seen]]


class Gradient(NamedTuple):
    """A replacement for differentiating the loss of a group.

    `micro(loss, params, batch, context) -> (gradient_sum, loss_sum, Aux)` runs once per microbatch; `loss` is
    `(params, batch, context) -> (sum, Aux)`, a function of this group's parameters alone.
    `finish(gradient_sum, weight, context) -> gradient` runs once per step, after all microbatches.
    """

    micro: Callable[..., tuple[Tree, Float[Array, ''], Aux]]
    finish: Callable[[Tree, Float[Array, ''], Context], Tree]


class Decoding(NamedTuple):
    """How a task decodes a text, unless a request has its own settings."""

    max_new_tokens: int
    temperature: float = 0.0  # 0: greedy
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    beams: int = 0  # of beam search; 0: sampling
    length_penalty: float = 1.0  # of beam search


class Generate(NamedTuple):
    """Token-by-token generation with a cache, used by the sampler, beam search, the server and export.

    `start(variables, prompts, capacity) -> cache` reads all prompt tokens except the last; `prompts` is an encoded
    batch with right-padded 'tokens' [batch, length] and 'length' [batch]; `capacity` is the static number of
    positions. `step(variables, cache, tokens) -> (cache, logits)` reads one token per row, [batch], and returns
    float32 logits [batch, vocabulary] of the next token. Every row has its own position, so rows may be reordered.

    `extend(variables, cache, tokens, length, whole=False) -> (cache, logits)` reads the first `length` [batch] of
    `tokens` [batch, count] of each row, and nothing of a row of length 0. Logits are those of the token after the last
    one read, [batch, vocabulary]; with `whole`, after each of `tokens`, [batch, count, vocabulary].

    Every leaf of a cache has the batch axis first. If there is an `extend`, 'position' [batch] of the cache is the
    number of tokens read of each row, and a lower one takes the later tokens back.

    The other fields are for whole texts; `families.tokens` sets them. `predict` of a task is
    `outputs(prompts, tokens, length)` of the tokens [batch, max_new_tokens] and lengths [batch] decoded from
    `prompts(batch)`. Both take arrays of the host or the device and read no variables.
    """

    start: Callable[[Variables, Batch, int], Tree]
    step: Callable[[Variables, Tree, Int[Array, 'batch']], tuple[Tree, Float[Array, 'batch vocabulary']]]
    end: tuple[int, ...]  # the ids of the tokens that end a text; (): none
    limit: int  # maximum number of positions the model can read
    extend: Callable[..., tuple[Tree, Array]] | None = None  # None: prompts are read by `start` alone
    prompts: Callable[[Batch], dict[str, Any]] | None = None  # (encoded batch) -> what `start` reads
    outputs: Callable[[Batch, Any, Any], dict[str, Any]] | None = None
    encode_tokens: Callable[[Sequence[int]], dict[str, np.ndarray]] | None = None  # as `encode`, of a request in ids
    decoding: Decoding | None = None
    capacity: int = 0  # positions of a text with its prompt in this task, at most `limit`
    tokenizer: Any = None  # of the generated tokens (`tokenizers.Tokenizer`)
    hidden: tuple[int, ...] | None = None  # ids that are not part of a text; None: all special tokens


class Input(NamedTuple):
    """One field of a request: its kind, its shape (0 for a variable size), and the largest accepted size."""

    # 'text', 'sequence' (letters without words, such as DNA), 'image', 'audio', 'number', 'category', 'list', or
    # 'array' of numbers, such as features that were computed elsewhere
    kind: str
    shape: tuple[int, ...] = ()
    limit: int = 0  # characters, pixels along a side, seconds, items of a list; 0: none
    about: str = ''
    items: Mapping[str, 'Input'] = {}  # of 'list': the fields of each item (an event, an atom, a message)
    choices: tuple[str, ...] = ()  # of 'category': the values that training knew


class Metric(NamedTuple):
    """One measured value, its trivial baseline, and the direction that is better."""

    value: Any  # a number, or a nested list (confusion matrix)
    baseline: float | None = None
    better: str = 'higher'  # 'higher', 'lower', or '' for neither
    about: str = ''  # short definition of the metric, and settings that it depends on
    baseline_about: str = ''  # such as 'always the commonest class'


class Host(NamedTuple):
    """The host side of a task for a request; needs NumPy but no flax.

    The fields are those of `Task`. A task module makes it with `host(config, folder)` and its `Task` from it with
    `Task(**host(config, folder)._asdict(), source=..., init=..., ...)`.
    """

    inputs: Mapping[str, Input]
    encode: Callable[..., dict[str, np.ndarray]]
    decode: Callable[[Mapping[str, np.ndarray]], Any]
    split: Callable[[Raw], Sequence[Raw]] | None = None
    join: Callable[[Raw, Sequence[Mapping[str, np.ndarray]]], Mapping[str, np.ndarray]] | None = None
    buckets: Buckets | None = None


def unchanged(variables: Variables) -> Variables:
    """The default `Task.view`: the model reads variables as they are stored."""
    return variables


class Task(NamedTuple):
    """A tuple of pure functions; optional fields default to None or empty.

    `score` gives the log-probability in nats of each row's targets, always with `train` False, and the
    activations that `context.watch` selects ({} if it is None). `claim` replaces a batch's targets with the model's own
    answer, `outputs` of `predict`, so that its `score` is the model's confidence. Both run on the device.

    `split` turns one request into one or more model inputs (windows of a long text, tiles of a large picture); each
    goes through `encode` and `predict`. `join` merges their outputs, host arrays of single examples in order, into one
    for `decode`. A task has both or neither.

    `view` maps stored variables to those the model reads; see `map_variables`.

    `final_pictures(answer)` returns further pictures of a finished run, from any requests: `answer(requests)` gives
    their stacked outputs as host arrays. Every process calls it with the same requests.
    """

    inputs: Mapping[str, Input]
    source: Callable[[str], Sequence[Raw]]  # (split) -> random access; 'train', 'validation', 'test'
    encode: Callable[..., dict[str, np.ndarray]]  # (raw, rng=None) -> fixed shapes, no batch axis; targets optional
    init: Callable[[PRNGKeyArray], Variables]
    losses: Mapping[str, Loss]
    predict: Callable[[Variables, Batch, Context], dict[str, Array]]
    metric_sums: Callable[[Variables, Batch, Context], dict[str, Array]]  # sums over examples, masked by batch['mask']
    metrics: Callable[[Mapping[str, np.ndarray]], dict[str, Metric]]
    decode: Callable[[Mapping[str, np.ndarray]], Any]  # outputs of one example -> JSON-able, for a person
    load: Callable[[], Variables] | None = None  # host arrays, taken where path and shape match
    gradients: Mapping[str, Gradient] = {}
    couples_rows: str = ''  # the setting that makes the losses mix the rows of a batch ('config.task.mixup'), or ''
    generate: Generate | None = None
    score: Score | None = None  # (variables, batch, context) -> (log-probability of the targets [batch], seen)
    claim: Callable[[Batch, Mapping[str, Array]], Batch] | None = None  # (batch, outputs)
    view: Callable[[Variables], Variables] = unchanged
    split: Callable[[Raw], Sequence[Raw]] | None = None
    join: Callable[[Raw, Sequence[Mapping[str, np.ndarray]]], Mapping[str, np.ndarray]] | None = None
    buckets: Buckets | None = None  # of examples whose shapes differ; the step then compiles once for each
    finalize: Callable[[Iterator[tuple[Raw, Any]]], dict[str, Metric]] | None = None
    finalize_count: int = 0  # number of rows that `finalize` reads; 0: the whole split
    render: Callable[[Batch, Mapping[str, Any]], dict[str, np.ndarray]] | None = None  # name -> uint8 [h, w, 3]
    final_pictures: Callable[[Callable[[Sequence[Raw]], Any]], dict[str, np.ndarray]] | None = None
    examples: Sequence[Raw] = ()  # requests whose answers a report shows; (): rows of the split
    budget: Callable[[int], dict[str, float]] | None = None  # (steps made) -> spent privacy budget, such as epsilon
    notes: Callable[[], Sequence[str]] | None = None  # sentences to print before step 1 and in the report
    describe: Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]] | None = None  # of an encoded row


READERS = ('losses', 'predict', 'metric_sums', 'score', 'generate')  # the fields whose functions read variables


def map_variables(
    task: Task,
    view: Callable[[Variables], Variables],
    store: Callable[[Variables, PRNGKeyArray | None], Variables] | None = None,
) -> Task:
    """Changes a task so that its model reads `view(variables)` instead of the stored variables.

    `store` maps the results of `init` and `load`. `gradients` do not change: they belong to stored groups.
    `task.view` becomes the composition of all views. So `jax.jit(task.view)(variables)` folds them once, for serving
    and export, and the same task runs on the folded variables at no further cost.

    Args:
      task: the task to change.
      view: from stored variables to those that `task` reads. It must be a projection, view(view(v)) == view(v), decided
        by the structure of the tree and not by values, because folded variables pass through it again.
      store: (variables of `task`, key) -> stored variables; None stores them unchanged. The key is None for variables
        from `load`: random values are then left out, and `init` provides them.
    """

    def on(function: Callable | None) -> Callable | None:
        return function and (lambda variables, *rest, **named: function(view(variables), *rest, **named))

    def mapped(value: Any) -> Any:
        if isinstance(value, Generate):
            return value._replace(start=on(value.start), step=on(value.step), extend=on(value.extend))
        return {name: on(function) for name, function in value.items()} if isinstance(value, Mapping) else on(value)

    changed = {name: mapped(getattr(task, name)) for name in READERS} | {'view': on(task.view)}
    if store is not None:
        changed['init'] = lambda key: store(task.init(key), key)
        changed['load'] = task.load and (lambda: store(task.load(), None))  # pyright: ignore[reportOptionalCall]
    return task._replace(**changed)
