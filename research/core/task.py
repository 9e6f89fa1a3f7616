"""A task is a tuple of pure functions; everything else in Tessera works on this tuple.

    data     inputs, source, encode, split, join, buckets
    model    init, load, losses, gradients, predict, generate, score, claim, view
    measure  metric_sums, metrics, finalize
    show     decode, render, final_pictures, examples, notes, describe

A module of `research/tasks/` has three functions. `prepare(config, folder)` builds once, from the training split only,
what the task needs besides weights, and stores it in `folder`. `host(config, folder) -> Host` makes the functions that
run on the host for a request, and `make(config, folder) -> Task` all of them. The module imports without flax: `make`
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
Raw = Mapping[str, Any]  # one row as the source, a file or a request gives it


class Variables(NamedTuple):
    """Everything a model holds: trained `params` and other collections `extra`, each by parameter group."""

    params: dict[str, Tree]
    extra: dict[str, dict[str, Tree]]


class Context(NamedTuple):
    """What a device function may depend on besides its variables and its batch.

    `watch` makes a score report its activations: {group: {path of a tap: delta}}, where each delta is added to the
    activation at that path (the same shape; see `research/nn/tap.py`) and may be left out. {} only reports. None, the
    default, is decided while tracing: the compiled program is the one without taps.
    """

    key: PRNGKeyArray  # never used directly: derive one per purpose with `context.fold('dropout')`
    step: Int[Array, '']
    train: bool
    watch: Mapping[str, Mapping[str, Array]] | None = None

    def fold(self, purpose: str) -> PRNGKeyArray:
        """Returns the key of this step (group, microbatch) for one purpose."""
        return fold(self.key, purpose)


def fold(key: PRNGKeyArray, purpose: str) -> PRNGKeyArray:
    """Returns `key` with the name of a purpose folded in (CRC-32 of the name: stable between processes)."""
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))


class Aux(NamedTuple):
    """What a loss returns beside its sum.

    `weight` is what the sum is divided by, once, over all microbatches and devices. `extra` holds new
    values of non-trained collections, {group: {collection: tree}}; a method's own state has a key of its own beside the
    groups. `logs` are sums with the same weight. `outputs` are for methods that wrap the loss (distillation reads the
    student's): {'logits': [..., classes], 'mask': logits.shape[:-1], float32} where a task has logits.
    """

    weight: Float[Array, '']
    extra: dict[str, dict[str, Tree]] = {}
    logs: dict[str, Float[Array, '']] = {}
    outputs: Any = None


Seen = dict[str, dict[str, Array]]  # {group: {path of a tap: activation}}, as `Context.watch` takes deltas
Loss = Callable[[Variables, Batch, Context], tuple[Float[Array, ''], Aux]]
Score = Callable[[Variables, Batch, Context], tuple[Float[Array, 'batch'], Seen]]


class Gradient(NamedTuple):
    """Another way to take a group's gradient, in place of differentiating the loss.

    `micro(loss, params, batch, context) -> (gradient_sum, loss_sum, Aux)` runs once a microbatch; `loss` is
    `(params, batch, context) -> (sum, Aux)`, a function of this group's parameters alone.
    `finish(gradient_sum, weight, context) -> gradient` runs once a step, after all microbatches.
    """

    micro: Callable[..., tuple[Tree, Float[Array, ''], Aux]]
    finish: Callable[[Tree, Float[Array, ''], Context], Tree]


class Generate(NamedTuple):
    """Token-by-token generation with a cache, used by the sampler, beam search, the server and export.

    `start(variables, prompts, capacity) -> cache` reads every prompt token but the last; `prompts` is an encoded
    batch with right-padded 'tokens' [batch, length] and 'length' [batch]; `capacity` is the static number of
    positions. `step(variables, cache, tokens) -> (cache, logits)` reads one token per row, [batch], and returns
    float32 logits [batch, vocabulary] of the next. Every row keeps its own position, so rows may be swapped.
    """

    start: Callable[[Variables, Batch, int], Tree]
    step: Callable[[Variables, Tree, Int[Array, 'batch']], tuple[Tree, Float[Array, 'batch vocabulary']]]
    end: int  # the id of the token that ends a text, or -1
    limit: int  # the most positions the model can read


class Input(NamedTuple):
    """One field of a request: its kind, its shape (0 where it may vary), and the largest size accepted."""

    kind: str  # 'text', 'sequence' (letters without words, such as DNA), 'image', 'audio', 'number', 'category', 'list'
    shape: tuple[int, ...] = ()
    limit: int = 0  # characters, pixels along a side, seconds, items of a list; 0: none
    about: str = ''
    items: Mapping[str, 'Input'] = {}  # of 'list': the fields of each item (an event, an atom, a message)


class Metric(NamedTuple):
    """One measured value, the trivial baseline to hold it against, and which direction is better."""

    value: Any  # a number, or a nested list (confusion matrix)
    baseline: float | None = None
    better: str = 'higher'  # 'higher', 'lower', or '' where neither is
    about: str = ''  # what the number means, in a few words; settings that belong to its signature
    baseline_about: str = ''  # 'always the commonest class'


class Host(NamedTuple):
    """The part of a task that answers a request outside the device program; it needs NumPy but no flax.

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
    """The view of a task whose model reads variables as they are stored."""
    return variables


class Task(NamedTuple):
    """A tuple of pure functions; optional fields default to None or empty.

    `score` gives the log-probability in nats of each row's targets, with `train` False whatever the context holds, and
    what `context.watch` asks to see ({} where it is None). `claim` replaces a batch's targets with the model's own
    answer, `outputs` of `predict`, so that `score` of it says how sure the model is. Both are for the device.

    `split` turns one request into the model inputs it needs (windows of a long text, tiles of a large picture), at
    least one; each goes through `encode` and `predict`. `join` makes one answer from the request and their outputs, in
    order, as host arrays of single examples; `decode` reads what it returns. A task has both or neither.

    `view` maps stored variables to those the model reads; see `map_variables`.

    `final_pictures(answer)` returns pictures that a finished run shows beside those of `render`, of any requests:
    `answer(requests)` gives their outputs as host arrays, stacked. Every process calls it with the same requests.
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
    finalize_count: int = 0  # how many rows `finalize` reads; 0: the whole split
    render: Callable[[Batch, Mapping[str, Any]], dict[str, np.ndarray]] | None = None  # name -> uint8 [h, w, 3]
    final_pictures: Callable[[Callable[[Sequence[Raw]], Any]], dict[str, np.ndarray]] | None = None
    examples: Sequence[Raw] = ()  # requests whose answers a report shows; none: the first rows of the split
    budget: Callable[[int], dict[str, float]] | None = None  # (steps made) -> what they spent, such as epsilon
    notes: Callable[[], Sequence[str]] | None = None  # sentences for before step 1 and the report
    describe: Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]] | None = None  # an encoded row, for a person


READERS = ('losses', 'predict', 'metric_sums', 'score', 'generate')  # the fields whose functions read variables


def map_variables(
    task: Task,
    view: Callable[[Variables], Variables],
    store: Callable[[Variables, PRNGKeyArray | None], Variables] | None = None,
) -> Task:
    """Returns `task` with a model that reads `view(variables)` in place of the variables.

    `init` and `load` then return what `store` makes of theirs. `gradients` stay: they belong to stored groups.
    `task.view` becomes the composition of all views. So `jax.jit(task.view)(variables)` folds them once, for serving
    and export, and the same task runs on the folded variables at no further cost.

    Args:
      task: the task to change.
      view: from stored variables to those that `task` reads. It must be a projection, view(view(v)) == view(v), decided
        by the structure of the tree and not by values, because folded variables pass through it again.
      store: (variables of `task`, key) -> stored variables; None stores them unchanged. The key is None for variables
        from `load`: then whatever is drawn at random is left out, and `init` provides it.
    """

    def on(function: Callable | None) -> Callable | None:
        return function and (lambda variables, *rest, **named: function(view(variables), *rest, **named))

    def mapped(value: Any) -> Any:
        if isinstance(value, Generate):
            return value._replace(start=on(value.start), step=on(value.step))
        return {name: on(function) for name, function in value.items()} if isinstance(value, Mapping) else on(value)

    changed = {name: mapped(getattr(task, name)) for name in READERS} | {'view': on(task.view)}
    if store is not None:
        changed['init'] = lambda key: store(task.init(key), key)
        changed['load'] = task.load and (lambda: store(task.load(), None))  # pyright: ignore[reportOptionalCall]
    return task._replace(**changed)
