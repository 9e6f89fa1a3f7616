"""A task is a tuple of pure functions; everything else in Tessera works on this tuple.

    data     inputs, source, encode                   what goes in
    model    init, load, losses, gradients, predict, generate
    measure  metric_sums, metrics, finalize            how good it is
    show     decode, render                           what a person reads

A module of `research/tasks/` has `prepare(config, folder)`, which builds once, from the training split
only, what the task needs besides weights and stores it in `folder`; and `make(config, folder) -> Task`.
A method (`research/methods/`) has `apply(task, settings, config) -> Task`.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

Tree = Any  # a pytree of arrays
Batch = Mapping[str, Any]  # name -> array with a leading batch axis; always holds 'index' and 'mask'
Raw = Mapping[str, Any]  # one row as the source, a file or a request gives it


class Variables(NamedTuple):
    """Everything a model holds: trained `params` and other collections `extra`, each by parameter group."""

    params: dict[str, Tree]
    extra: dict[str, dict[str, Tree]]


class Context(NamedTuple):
    """What a device function may depend on besides its variables and its batch."""

    key: PRNGKeyArray  # never used directly: derive one per purpose with `context.fold('dropout')`
    step: Int[Array, '']
    train: bool

    def fold(self, purpose: str) -> PRNGKeyArray:
        """Returns the key of this step (group, microbatch) for one purpose."""
        return fold(self.key, purpose)


def fold(key: PRNGKeyArray, purpose: str) -> PRNGKeyArray:
    """Returns `key` with the name of a purpose folded in (CRC-32 of the name: stable between processes)."""
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))


class Aux(NamedTuple):
    """What a loss returns beside its sum.

    `weight` is what the sum is divided by, once, over all microbatches and devices. `extra` holds new
    values of non-trained collections, {group: {collection: tree}}. `logs` are sums with the same weight.
    `outputs` are for methods that wrap the loss (distillation reads the student's).
    """

    weight: Float[Array, '']
    extra: dict[str, dict[str, Tree]] = {}
    logs: dict[str, Float[Array, '']] = {}
    outputs: Any = None


Loss = Callable[[Variables, Batch, Context], tuple[Float[Array, ''], Aux]]


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

    kind: str  # 'text', 'image', 'audio', 'number', 'category'
    shape: tuple[int, ...] = ()
    limit: int = 0
    about: str = ''


class Metric(NamedTuple):
    """One measured value, the trivial baseline to hold it against, and which direction is better."""

    value: Any  # a number, or a nested list (confusion matrix)
    baseline: float | None = None
    better: str = 'higher'  # 'higher', 'lower', or '' where neither is
    about: str = ''  # what the number means, in a few words; settings that belong to its signature
    baseline_about: str = ''  # 'always the commonest class'


class Task(NamedTuple):
    """A tuple of pure functions; optional fields default to None or empty. See DESIGN in the README.

    `gallery(answer)` returns pictures that a finished run shows beside `render`'s, of any requests it likes:
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
    mixes: str = ''  # what in the losses mixes the rows of a batch ('config.task.mixup'); '' where each is by itself
    generate: Generate | None = None
    finalize: Callable[[Iterator[tuple[Raw, Any]]], dict[str, Metric]] | None = None
    finalize_count: int = 0  # how many rows `finalize` reads; 0: the whole split
    render: Callable[[Batch, Mapping[str, Any]], dict[str, np.ndarray]] | None = None  # name -> uint8 [h, w, 3]
    gallery: Callable[[Callable[[Sequence[Raw]], Any]], dict[str, np.ndarray]] | None = None
    examples: Sequence[Raw] = ()  # requests whose answers a report shows; none: the first rows of the split
    account: Callable[[int], dict[str, float]] | None = None  # (steps made) -> values to show and store
    notes: Callable[[], Sequence[str]] | None = None  # sentences for before step 1 and the report
    describe: Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]] | None = None  # an encoded row, for a person
