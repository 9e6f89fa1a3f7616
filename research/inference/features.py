"""Feature vectors of a trained model: the activations before its head, as the answers of a model."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.core.task import Batch, Context, Raw, Seen, Task, Variables, fold
from research.data.batches import requests
from research.errors import UserError
from research.inference.model import Model

TEXTS = ('a', 'a [MASK]', 'ACGT' * 16)
TAPS = ('pooled', 'stream', 'features')  # of research/nn/tap.py, the first that a model reports


def only_text(task: Task) -> str:
    """The field that alone makes a request of a task, if it is a text or sequence; '' otherwise."""
    kinds = {name: field.kind for name, field in task.inputs.items()}
    names = [name for name, kind in kinds.items() if kind in ('text', 'sequence')]
    return names[0] if len(names) == len(kinds) == 1 else ''


def feature_model(model: Model, raw: Raw | None = None) -> Model | None:
    """The same model with feature vectors as answers: {'features': [width]} instead of the outputs of the task.

    The features of an input in several windows are the mean of theirs. None for a task that reads anything but one
    text, for a model that generates text, and for one that reports no activations.

    Args:
      model: the model.
      raw: a request that it answers, to find out what it reports; None: an example of the task, or a short text.
    """
    task = model.task
    if not only_text(task) or task.generate is not None or task.score is None or task.claim is None:
        return None
    replicated = jax.sharding.NamedSharding(model.mesh, jax.sharding.PartitionSpec())

    def predict(variables: Variables, batch: Batch, seed: Any) -> dict[str, Array]:
        context = Context(fold(jax.random.key(seed), 'evaluate'), jnp.int32(0), False)
        return {'features': features_of(task, variables, batch, context)}

    measure = model.measure._replace(predict=jax.jit(predict, out_shardings=replicated))
    changed = model._replace(task=task._replace(decode=decode, join=task.join and join), measure=measure)
    given = raw or readable(task)
    parts = list(task.split(given)) if task.split else [given]
    batch = requests(task.encode, parts[:1], model.measure.batch_size)
    try:
        jax.eval_shape(measure.predict, model.variables, batch, 0)
    except LookupError:
        return None
    return changed


def readable(task: Task) -> Raw:
    """A request that a task reads; raises UserError if it reads neither its examples nor any of `TEXTS`."""
    field, problem = only_text(task), UserError('there is no request to try')
    for raw in (*task.examples, *({field: text} for text in TEXTS)):
        try:
            task.encode(raw)
            return raw
        except UserError as error:
            problem = error
    raise problem


def decode(outputs: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    return {'features': np.asarray(outputs['features'], np.float32).tolist()}


def join(raw: Any, parts: Any) -> dict[str, np.ndarray]:
    del raw
    return {'features': np.mean([part['features'] for part in parts], axis=0)}


def features_of(task: Task, variables: Variables, batch: Batch, context: Context) -> Float[Array, 'batch width']:
    """The last activation of the first kind in `TAPS` that the model reports, averaged over its positions.

    Positions after a row's 'length' do not count.

    Raises:
      LookupError: if the model reports none of them.
    """
    claim = task.claim(batch, task.predict(variables, batch, context))  # pyright: ignore[reportOptionalCall]
    _, seen = task.score(variables, claim, context._replace(watch={}))  # pyright: ignore[reportOptionalCall]
    value, name = last_of(seen)
    rows = len(batch['mask'])
    if name == 'stream':
        value = value[-1] if value.ndim == 4 else value  # stacked over layers
        inside = jnp.ones(value.shape[:2], value.dtype)
        if 'length' in batch:
            inside = (jnp.arange(value.shape[1]) < batch['length'][:, None]).astype(value.dtype)
        total = jnp.sum(value * inside[..., None], axis=1)
        return (total / jnp.maximum(jnp.sum(inside, axis=1), 1)[:, None]).astype(jnp.float32)
    if name == 'features':
        return value.reshape(rows, -1, value.shape[-1]).mean(axis=1).astype(jnp.float32)
    return value.reshape(rows, -1).astype(jnp.float32)


def last_of(seen: Seen) -> tuple[Array, str]:
    """The last activation of the first kind of `TAPS`, and its kind."""
    taps = [(path.split('/')[-1], value) for group in seen.values() for path, value in group.items()]
    for wanted in TAPS:
        values = [value for name, value in taps if name == wanted]
        if values:
            return values[-1], wanted
    raise LookupError(' or '.join(TAPS))
