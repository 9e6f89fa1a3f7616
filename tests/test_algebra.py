"""The algebra of tasks: every reader of variables is mapped, views fold, and scores hold for every task."""

import dataclasses
import functools
import importlib
import json
import pickle
import pkgutil
import subprocess
import sys
import typing
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import ROOT, all_configs, on_devices, padded_requests, padded_rows, plan_of, tiny
from etils import epath

from research import api, nn
from research.core.config import to_json
from research.core.runspec import make_run_spec
from research.core.task import READERS, Aux, Context, Generate, Gradient, Task, Variables, map_variables, unchanged
from research.data.batches import place
from research.ops.paths import flatten_paths

EVERY_COMMIT = tuple(
    f'configs/{name}.py' for name in ('adult', 'digits', 'digits_gan', 'masked_lm', 'multi30k_translation', 'python_lm')
)
WRITERS = ('init', 'load')  # they make stored variables: `store` acts on them
FOLDS = ('view',)  # it is composed
# The other fields neither read variables nor make them; gradients belong to stored groups.
OTHERS = (
    'inputs', 'source', 'encode', 'metrics', 'decode', 'gradients', 'couples_rows', 'claim', 'split', 'join', 'buckets',
    'finalize', 'finalize_count', 'render', 'final_pictures', 'examples', 'budget', 'notes', 'describe',
)  # fmt: skip
WITHOUT_LOGITS = ('image_restoration',)  # its outputs are pixels
WITHOUT_SCORE = ('image_generation',)  # nothing is claimed by a picture that was drawn
CONTEXT = Context(jax.random.key(3), jnp.int32(0), False)


def doubled(variables: Variables) -> Variables:
    return jax.tree.map(lambda leaf: leaf * 2, variables)


def toy() -> Task:
    """A task in which every reader returns something of the variables."""

    def loss(variables, batch, context):
        return jnp.sum(variables.params['model']['w'] * batch['x']), Aux(jnp.sum(batch['mask']))

    def score(variables, batch, context):
        return variables.params['model']['w'] * batch['x'], {}

    def start(variables, prompts, capacity):
        return {'sum': variables.params['model']['w'] + prompts['tokens'][:, 0]}

    def step(variables, cache, tokens):
        return cache, (cache['sum'] + variables.params['model']['w'])[:, None]

    def extend(variables, cache, tokens, length, whole=False):
        return step(variables, cache, tokens[:, 0])

    return Task(
        inputs={}, source=lambda split: [], encode=lambda raw, rng=None: {},
        init=lambda key: Variables({'model': {'w': jnp.arange(1.0, 4.0)}}, {'model': {'stats': {'m': jnp.ones(3)}}}),
        load=lambda: Variables({'model': {'w': np.full(3, 5.0)}}, {}),
        losses={'model': loss, 'second': loss},
        predict=lambda variables, batch, context: {'y': variables.params['model']['w'] * batch['x']},
        metric_sums=lambda variables, batch, context: {'m': variables.extra['model']['stats']['m'] * batch['x']},
        metrics=lambda sums: {}, decode=lambda outputs: outputs,
        gradients={'model': Gradient(None, None)}, generate=Generate(start, step, (), 8, extend),
        score=score, claim=lambda batch, outputs: {**batch, 'label': outputs['y']},
    )  # fmt: skip


BATCH = {'x': jnp.arange(3.0), 'mask': jnp.ones(3), 'tokens': jnp.arange(6).reshape(3, 2)}


def read_everything(task: Task, variables: Variables) -> dict[str, Any]:
    """Returns what each reader gives, by its name."""
    results: dict[str, Any] = {
        f'losses/{group}': loss(variables, BATCH, CONTEXT)[0] for group, loss in task.losses.items()
    }
    for name in ('predict', 'metric_sums', 'score'):
        results[name] = getattr(task, name)(variables, BATCH, CONTEXT)
    results['generate/start'] = task.generate.start(variables, BATCH, 4)
    results['generate/step'] = task.generate.step(variables, {'sum': jnp.zeros(3)}, BATCH['tokens'][:, 0])[1]
    results['generate/extend'] = task.generate.extend(variables, {'sum': jnp.zeros(3)}, BATCH['tokens'], None)[1]
    return results


def mentions(annotation: Any, wanted: type, seen: tuple = ()) -> bool:
    """Returns whether a type is, or is made of, another; the fields of named tuples count."""
    if annotation is wanted:
        return True
    parts: list[Any] = []
    for part in typing.get_args(annotation):
        parts += part if isinstance(part, list) else [part]
    if isinstance(annotation, type) and hasattr(annotation, '_fields') and annotation not in seen:
        parts += typing.get_type_hints(annotation).values()
    return any(mentions(part, wanted, (*seen, annotation)) for part in parts)


def test_every_field_of_a_task_is_a_reader_or_not():
    """A new field must be put into READERS of `core/task.py`, or into OTHERS here, on purpose."""
    assert sorted((*READERS, *WRITERS, *FOLDS, *OTHERS)) == sorted(Task._fields)
    hints = typing.get_type_hints(Task)
    by_type = {name for name, annotation in hints.items() if mentions(annotation, Variables)}
    assert by_type == {*READERS, *WRITERS, *FOLDS}


def test_a_view_reaches_every_reader_and_nothing_else():
    task = toy()
    mapped, variables = map_variables(task, doubled), task.init(None)
    ours, theirs, plain = (
        read_everything(mapped, variables), read_everything(task, doubled(variables)), read_everything(task, variables)
    )  # fmt: skip
    assert {name.split('/')[0] for name in ours} == set(READERS)
    for name in ours:
        jax.tree.map(np.testing.assert_array_equal, ours[name], theirs[name])
        differs = jax.tree.map(lambda a, b: bool(np.any(a != b)), ours[name], plain[name])
        assert any(jax.tree.leaves(differs)), name
    for name in (*WRITERS, *OTHERS):
        assert getattr(mapped, name) is getattr(task, name), name
    assert (mapped.generate.end, mapped.generate.limit) == ((), 8)


def test_views_compose_from_the_stored_end_and_none_stays_none():
    def plus(variables):
        return jax.tree.map(lambda leaf: leaf + 1, variables)

    task, variables = toy(), toy().init(None)
    mapped = map_variables(map_variables(task, plus), doubled)  # what is stored is doubled first
    np.testing.assert_array_equal(mapped.view(variables).params['model']['w'], [3, 5, 7])
    expected = task.predict(mapped.view(variables), BATCH, CONTEXT)['y']
    np.testing.assert_array_equal(mapped.predict(variables, BATCH, CONTEXT)['y'], expected)
    without = map_variables(task._replace(score=None, generate=None, load=None), doubled, lambda v, key: v)
    assert without.score is None and without.generate is None and without.load is None


def test_store_acts_on_what_init_and_load_make():
    keys = []

    def store(variables, key):
        keys.append(key)
        return doubled(variables)

    mapped = map_variables(toy(), unchanged, store)
    key = jax.random.key(0)
    np.testing.assert_array_equal(mapped.init(key).params['model']['w'], [2, 4, 6])
    np.testing.assert_array_equal(mapped.load().params['model']['w'], [10, 10, 10])
    assert keys[0] is key and keys[1] is None


def one_of_each_model() -> list[Any]:
    """Returns a config of every model of every task; those that are no part of every commit are marked slow."""
    configs: dict[tuple, str] = {}
    for name in (*EVERY_COMMIT, *all_configs()):
        config = tiny(name)
        configs.setdefault((config.task['name'], config.model.get('name', '')), name)
    return [
        name if name in EVERY_COMMIT else pytest.param(name, marks=pytest.mark.slow, id=name)
        for name in configs.values()
    ]


@pytest.fixture(scope='module', params=one_of_each_model())
def shared(request, started):
    """A config of a task at ':tiny', prepared and planned on one device, and its first state."""
    return started(request.param)


@pytest.fixture(scope='module')
def planned(shared):
    """The plan alone."""
    return shared[0]


@pytest.fixture(scope='module')
def first(shared):
    """The first variables, on the host."""
    return shared[1].variables


def lowered(spec: Any) -> str:
    """Returns the text of a training step before it is compiled."""
    with jax.set_mesh(spec.mesh):
        return jax.jit(spec.step()).lower(spec.state, spec.batch).as_text()


def test_nobody_watching_leaves_the_step_byte_for_byte(planned, monkeypatch):
    text, taps = lowered(planned.spec), []

    def removed(module, name, value):
        taps.append(name)
        return value

    for module in pkgutil.iter_modules(nn.__path__):
        for name, value in (('tap', removed), ('watching', lambda module, name: False)):
            monkeypatch.setattr(importlib.import_module(f'research.nn.{module.name}'), name, value, raising=False)
    assert lowered(planned.spec) == text
    assert taps or without_taps(planned.config)


def without_taps(config: Any) -> bool:
    """Returns whether a model has no tap: a GAN has no score to report it, and a sum of weights has no layer."""
    return config.task['name'] in WITHOUT_SCORE or (config.model.get('name') == 'ngrams' and not config.model['width'])


def rows_of(spec: Any) -> dict[str, np.ndarray]:
    """Returns eight encoded training rows with their targets."""
    return padded_rows(spec, 8)


def requests_of(spec: Any) -> dict[str, np.ndarray]:
    """Returns eight encoded requests: the task's examples, or rows of which it knows the targets."""
    task = spec.task
    raws = list(task.examples) or [task.source('train')[row] for row in range(2)]
    return padded_requests(spec, [raws[number % len(raws)] for number in range(8)], 8)


def needs_score(task: Task, name: str) -> None:
    """Skips a task that is known to have no score."""
    if task.score is None:
        assert name in WITHOUT_SCORE, f'{name} has no score: explanations could not read it'
        pytest.skip('this task has no score')


def placed(spec: Any, variables: Variables, batch: Any) -> tuple[Variables, Any]:
    """Returns variables and a batch with the spec's shardings."""
    return on_devices(variables, spec.state.variables), place(batch, range(8), 8, spec.batch_sharding)


class Answered(NamedTuple):
    """A planned config with its first variables, eight requests as a batch, and what is predicted for them."""

    spec: Any
    variables: Variables
    batch: Any
    outputs: dict[str, jax.Array]


@pytest.fixture(scope='module')
def answered(planned, first):
    """The answers of an untrained model, shared by all checks of a config."""
    variables, batch = placed(planned.spec, first, requests_of(planned.spec))
    with jax.set_mesh(planned.spec.mesh):
        outputs = jax.jit(lambda *given: planned.spec.task.predict(*given, CONTEXT))(variables, batch)
    return Answered(planned.spec, variables, batch, outputs)


def test_the_score_of_a_claim_is_finite(planned, answered):
    task, batch = planned.spec.task, answered.batch
    needs_score(task, planned.config.task['name'])

    def claimed(variables, batch, outputs):
        claim = task.claim(batch, outputs)
        score, seen = task.score(variables, claim, CONTEXT)
        trained, _ = task.score(variables, claim, CONTEXT._replace(train=True))
        assert seen == {}
        return score, trained, claim

    with jax.set_mesh(planned.spec.mesh):
        score, trained, claim = jax.jit(claimed)(answered.variables, batch, answered.outputs)
    assert score.shape == (8,) and score.dtype == np.float32
    assert np.all(np.isfinite(score)) and np.all(score <= 1e-5)
    np.testing.assert_array_equal(score, trained)  # a score has no dropout, whatever the context says
    targets = {name: value for name, value in claim.items() if name not in batch}
    for name, value in rows_of(planned.spec).items():  # a claim looks like a row: it goes through the same programs
        if name in claim:
            assert (claim[name].shape, claim[name].dtype) == (value.shape, value.dtype), name
    assert set(targets) <= set(rows_of(planned.spec)), 'a claim adds only what rows have'


@pytest.fixture(scope='module')
def scored(planned, first):
    """The scores of eight training rows, nobody watching, and the sums of their metrics."""
    task = planned.spec.task
    needs_score(task, planned.config.task['name'])
    variables, batch = placed(planned.spec, first, rows_of(planned.spec))

    def both(variables, batch):
        return task.score(variables, batch, CONTEXT)[0], task.metric_sums(variables, batch, CONTEXT)

    with jax.set_mesh(planned.spec.mesh):
        return jax.device_get(jax.jit(both)(variables, batch))


def test_scores_of_rows_are_the_log_likelihood_that_metrics_sum(scored):
    score, sums = scored
    np.testing.assert_allclose(score.sum(), -sums['nll'], rtol=1e-4)


def explained(task: Task, variables: Variables, batch: Any) -> tuple:
    """Returns scores, what was seen, and the gradient of the scores with respect to it."""

    def total(deltas):
        score, seen = task.score(variables, batch, CONTEXT._replace(watch=deltas))
        return jnp.sum(score), (score, seen)

    shapes = jax.eval_shape(lambda: task.score(variables, batch, CONTEXT._replace(watch={}))[1])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    gradient, (score, seen) = jax.grad(total, has_aux=True)(zeros)
    return score, seen, gradient


@pytest.mark.slow  # compiles each score and its gradient twice
def test_what_is_seen_on_eight_devices_is_what_one_sees(planned, first, scored):
    values = json.loads(to_json(planned.config))
    values['mesh'] = {'data': 4, 'fsdp': 2, 'tensor': 1, 'min_shard_size': 64}
    config = api.read(values)
    results = []
    for spec in (planned.spec, make_run_spec(config, api.build(config, planned.folder))):
        variables, batch = placed(spec, first, rows_of(planned.spec))
        with jax.set_mesh(spec.mesh):
            observed = jax.jit(functools.partial(explained, spec.task))(variables, batch)
        results.append(jax.device_get(observed))
    (score, seen, gradient), others = results
    np.testing.assert_allclose(score, scored[0], rtol=1e-4, atol=1e-4)
    assert seen.keys() == planned.spec.task.losses.keys()
    assert all(seen.values()) or without_taps(planned.config)
    for ours, theirs, what in zip((score, seen, gradient), others, ('score', 'seen', 'gradient'), strict=True):
        for (path, one), several in zip(flatten_paths({'': ours}).items(), jax.tree.leaves(theirs), strict=True):
            scale = max(np.abs(one).max(), 1e-6)
            np.testing.assert_allclose(one, several, atol=2e-5 * scale, rtol=2e-5, err_msg=f'{what}{path}')


def test_losses_give_logits_and_mask_by_one_convention(planned):
    spec = planned.spec
    for group, loss in spec.task.losses.items():
        _, aux = jax.eval_shape(lambda *given, loss=loss: loss(*given, CONTEXT), spec.state.variables, spec.batch)
        if spec.task.score is None or planned.config.task['name'] in WITHOUT_LOGITS:
            assert aux.outputs is None or 'logits' not in aux.outputs
            continue
        logits, mask = aux.outputs['logits'], aux.outputs['mask']
        assert mask.shape == logits.shape[:-1] and mask.dtype == np.float32, group


ON_A_SERVER = """
import pickle, sys, traceback

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('flax', 'optax', 'orbax'):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from etils import epath
from research import api

def answer(values, folder, raws, outputs):
    config = api.read(values)
    host = api.task_module(config.task['name']).host(config, epath.Path(folder))
    return sorted(host.inputs), [host.encode(raw) for raw in raws], host.decode(outputs)

while True:
    try:
        request = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    try:
        reply = answer(*request)
    except Exception:
        reply = traceback.format_exc()
    pickle.dump(reply, sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


@pytest.fixture(scope='session')
def server():
    """A process without flax that reads and answers the requests of one config after another."""
    command = [sys.executable, '-c', ON_A_SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        yield process
        process.stdin.close()


def test_requests_are_read_and_answered_without_flax(planned, answered, server):
    task = planned.spec.task
    raws = [dict(raw) for raw in (*task.examples[:1], *(task.source('train')[row] for row in range(2)))]
    outputs = {name: np.asarray(value)[0] for name, value in answered.outputs.items()}
    pickle.dump((json.loads(to_json(planned.config)), str(planned.folder), raws, outputs), server.stdin)
    server.stdin.flush()
    reply = pickle.load(server.stdout)
    assert isinstance(reply, tuple), reply
    inputs, encoded, decoded = reply
    assert inputs == sorted(task.inputs)
    for ours, raw in zip(encoded, raws, strict=True):
        theirs = task.encode(raw)
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    np.testing.assert_equal(decoded, task.decode(outputs))


METHODS = sorted(api.method_defaults())


@pytest.mark.parametrize('method', METHODS)
def test_a_view_folds_once(method, tmp_path):
    planned = plan_of('configs/digits.py', epath.Path(tmp_path), {'methods': f"('{method}',)", 'model.norm': 'group'})
    task = planned.spec.task
    if task.view is unchanged:
        pytest.skip('this method maps no variables')

    def disturbed(path, leaf):
        moves = jnp.issubdtype(leaf.dtype, jnp.floating)
        key = jax.random.fold_in(CONTEXT.key, hash(jax.tree_util.keystr(path)) % 2**31)
        return leaf + 0.1 * jax.random.normal(key, leaf.shape) if moves else leaf

    @jax.jit
    def folded(key):
        variables = jax.tree_util.tree_map_with_path(disturbed, task.init(key))
        return variables, task.view(variables)

    variables, once = folded(jax.random.key(0))
    twice = jax.jit(task.view)(once)
    plain = api.build(dataclasses.replace(planned.config, methods=()), planned.folder)
    assert jax.tree.structure(once) == jax.tree.structure(jax.eval_shape(plain.init, jax.random.key(0)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), once, twice)
    batch = requests_of(planned.spec)
    answers = [jax.jit(task.predict)(given, batch, CONTEXT) for given in (variables, once)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *answers)


def test_privacy_and_adapters_in_either_order_are_one_program(tmp_path):
    texts = []
    for number, methods in enumerate((('lora', 'privacy'), ('privacy', 'lora'))):
        overrides = {'methods': str(methods), 'model.norm': 'group'}
        texts.append(lowered(plan_of('configs/digits.py', epath.Path(tmp_path / str(number)), overrides).spec))
    assert texts[0] == texts[1]
