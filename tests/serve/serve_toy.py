"""A tiny model with a field of every kind, and a real server around it, for tests of the server itself."""

import contextlib
import functools
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from research.core.config import Config, MeshSettings, TrainSettings
from research.core.evaluate import make_evaluator
from research.core.sharding import batch_sharding
from research.core.state import eval_variables
from research.core.task import Input, Task, Variables
from research.data.audio.sounds import prepared
from research.data.fields import whole_number
from research.data.image.images import fit_image, read_image
from research.data.outputs import Picture, Sound
from research.errors import UserError
from research.inference.engine import Engine, samples_texts
from research.inference.features import feature_model
from research.inference.model import Model
from research.serve.batcher import FairLock
from research.serve.card import card_of
from research.serve.hosted import Hosted, Shared
from research.serve.metrics import make_metrics
from research.serve.run import make_pool, make_server, open_socket, run_server
from research.serve.settings import Phase, ServerSettings

SLOTS = 4  # of a tiny model that generates
INPUTS = {
    'text': Input('text', limit=2000, about='a text'),
    'image': Input('image', (4, 4, 1), 8192, 'a picture'),
    'audio': Input('audio', (1600,), 10, 'a sound'),
    'count': Input('number', about='a whole number'),
    'letter': Input('category', about='a, b or c'),
    'events': Input('list', limit=4, items={'time': Input('number'), 'name': Input('text', limit=20)}),
    'features': Input('array', (3,)),
}


def encode(raw: Any, rng: Any = None) -> dict[str, np.ndarray]:
    """One vector of eight numbers; every field is optional."""
    values = np.zeros(8, np.float32)
    if 'text' in raw:
        values[0] = len(raw['text'])
    if 'image' in raw:
        image = read_image(raw['image']) if isinstance(raw['image'], bytes) else raw['image']
        values[1] = fit_image(image, (4, 4, 1)).mean()
    if 'audio' in raw:
        values[2] = len(prepared(raw, 16_000, 1))
    if 'count' in raw:
        values[3] = whole_number(raw['count'], 'count', 0, 1000)
    if 'letter' in raw:
        if raw['letter'] not in ('a', 'b', 'c', ''):
            raise UserError(f'letter must be a, b or c, got {raw["letter"]!r:.20}')
        values[4] = 'abc'.index(raw['letter'])
    if 'events' in raw:
        values[5] = len(raw['events'])
    if 'features' in raw:
        array = np.asarray(raw['features'], np.float32)
        if array.shape != (3,):
            raise UserError(f'features must have the shape [3], got {list(array.shape)}')
        values[6] = array.sum()
    return {'values': values}


def predict(variables: Any, batch: Any, context: Any) -> dict[str, jax.Array]:
    """The vector times a matrix, and a random number of each row."""
    keys = jax.vmap(lambda index: jax.random.fold_in(context.fold('sample'), index))(batch['index'])
    return {
        'scores': batch['values'] @ variables.params['model']['kernel'],
        'noise': jax.vmap(jax.random.uniform)(keys),
    }


def decode(outputs: Any) -> dict[str, Any]:
    """Every kind of output."""
    return {
        'scores': outputs['scores'],
        'noise': float(outputs['noise']),
        'picture': Picture(np.full((2, 3, 1), 0.5, np.float32)),
        'sound': Sound(np.zeros(1600, np.float32), 16_000),
        'missing': float('nan'),
    }


def toy_task() -> Task:
    """The task."""
    return Task(
        inputs=INPUTS, source=lambda split: [], encode=encode,
        init=lambda key: Variables({'model': {'kernel': jnp.eye(8, dtype=jnp.float32)}}, {}), losses={},
        predict=predict, metric_sums=lambda variables, batch, context: {}, metrics=lambda sums: {}, decode=decode,
        examples=({'text': 'abc', 'count': 3},),
    )  # fmt: skip


def no_engine() -> Any:
    """The engine of a model that generates nothing."""
    raise NotImplementedError


def toy_model(folder: pathlib.Path, task: Task | None = None) -> Model:
    """The model on one device."""
    task = task or toy_task()
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ('data',))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
    train = TrainSettings(steps=3)
    config = Config({'name': 'toy'}, {}, {'name': 'toy_rows'}, {}, (), {}, MeshSettings(), train, {}, 0)
    measure = make_evaluator(task, 0, 4, sharding)
    return Model(config, task, task.init(jax.random.key(0)), 3, measure, mesh, epath.Path(folder), no_engine)


def tiny_model(config: str, folder: pathlib.Path, overrides: dict[str, str] | None = None) -> Model:
    """The model of a config at ':tiny' with initial weights; it generates in a few slots."""
    from contract import plan_of

    planned = plan_of(config, epath.Path(folder), overrides)
    spec = planned.spec
    variables, sharding = eval_variables(spec.init()), batch_sharding(spec.mesh)
    measure = make_evaluator(spec.task, 0, 4, sharding)
    engine = functools.cache(lambda: Engine(spec.task, variables, spec.mesh, SLOTS))
    return Model(planned.config, spec.task, variables, 0, measure, spec.mesh, planned.folder, engine)


def engine_of(model: Model, shared: Shared) -> Engine | None:
    """The engine of a model that generates."""
    if not samples_texts(model.task):
        return None
    return Engine(model.task, model.variables, model.mesh, SLOTS, shared.turn)


class Running(NamedTuple):
    """A server that answers on loopback."""

    url: str
    port: int
    hosted: Hosted
    server: ServerSettings
    lines: list[str]  # of its log
    client: httpx.Client
    models: dict[str, Hosted] = {}


def shared_for(port: int, **settings: Any) -> Shared:
    """What the models of a server share."""
    server = ServerSettings(port=port, version='test', **{'max_batch': 4, **settings})
    return Shared(server, make_metrics(), make_pool(), FairLock())


def hosted_of(name: str, model: Model, shared: Shared) -> Hosted:
    """A model behind its queue."""
    card = card_of(name, model, 'A toy.')
    return Hosted(name, model, shared, card, engine_of(model, shared), feature_model(model))


@contextlib.contextmanager
def running(models: dict[str, Model], wait: float = 120, **settings: Any) -> Iterator[Running]:
    """Runs a server in a thread; `wait` is the longest time in seconds until it is ready."""
    listener = open_socket('127.0.0.1', 0)
    port = listener.getsockname()[1]
    shared = shared_for(port, **settings)
    server, lines, ready = shared.server, [], threading.Event()
    hosted = {name: hosted_of(name, model, shared) for name, model in models.items()}
    made = make_server(hosted, server, shared.metrics, lines.append, ready.set)
    thread = threading.Thread(target=run_server, args=(made, listener), daemon=True)
    thread.start()
    assert ready.wait(wait)
    headers = {'Authorization': f'Bearer {server.token.decode()}'} if server.token else {}
    url = f'http://127.0.0.1:{port}'
    with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        yield Running(url, port, next(iter(hosted.values())), server, lines, client, hosted)
    made.should_exit = True
    thread.join(20)
    assert not thread.is_alive()
    assert server.status.phase is Phase.STOPPING


def refusal(call: Callable[[], Any], field: str | None, words: str, kind: Any = None) -> Any:
    """The error that a call of OpenAI's client raises, which must name its field and have these words."""
    import openai
    import pytest

    with pytest.raises(kind or openai.BadRequestError, match=words) as caught:
        call()
    assert caught.value.param == field, caught.value.body
    return caught.value
