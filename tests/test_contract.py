"""What every config promises, found by glob: a new task is tested by being there."""

import json
import types

import golden
import jax
import numpy as np
import pytest
from contract import all_configs, assert_equal, build, metrics_of, on_devices, padded_requests, run_steps, tiny
from etils import epath

from research import api
from research.checkpoint.store import open_checkpoints
from research.core import config as config_module
from research.core.evaluate import make_evaluator
from research.core.runspec import make_run_spec
from research.core.state import eval_variables
from research.data.batches import Row, encode_rows, place
from research.data.outputs import plain
from research.errors import UserError
from research.ops import paths
from research.resolve import variants

EVERY_COMMIT = tuple(  # one of each family; the others before a change is handed in
    f'configs/{name}.py'
    for name in ('adult', 'an4', 'digits', 'digits_gan', 'masked_lm', 'multi30k_translation', 'python_lm', 'squad')
)


def one_of_each_model() -> set[str]:
    """Returns the first config, by name, of every model of every task: the others would compile the same again."""
    first = {}
    for name in all_configs():
        config = tiny(name)
        first.setdefault((config.task['name'], config.model.get('name', ''), config.methods), name)
    return set(first.values())


EACH_MODEL = one_of_each_model()


@pytest.fixture(
    scope='module',
    params=[
        name if name in EVERY_COMMIT else pytest.param(name, marks=pytest.mark.slow, id=name) for name in all_configs()
    ],
)
def planned(request, started):
    """The name of a config, its plan at ':tiny' and its first state."""
    return request.param, *started(request.param)


@pytest.fixture(scope='module')
def trained(planned):
    """The same with one compiled step and its first steps taken, shared by all checks."""
    return build(planned[1], planned[2])


@pytest.fixture(scope='module')
def measured(trained):
    """The metrics after the first steps, in batches of eight."""
    return metrics_of(trained, 8)


@pytest.fixture(scope='module')
def built(planned, request):
    """A trained config; one for each model of each task, since the others would repeat the same checks."""
    if planned[0] not in EACH_MODEL and planned[0] not in EVERY_COMMIT:
        pytest.skip('another config of this task has the same model')
    return request.getfixturevalue('trained')


def test_first_steps_are_the_recorded_ones(planned, trained, measured):
    golden.check(planned[0], trained, measured)


def test_a_step_returns_a_state_like_the_one_it_takes(planned, trained):
    wanted = planned[1].spec.state
    assert jax.tree.structure(trained.after) == jax.tree.structure(wanted) and trained.logs[0]
    for leaf, target in zip(jax.tree.leaves(trained.after), jax.tree.leaves(wanted), strict=True):
        assert (leaf.shape, leaf.dtype) == (target.shape, target.dtype)


def test_batch_has_the_planned_shapes_whatever_the_row(planned):
    built = planned[1]
    source = built.spec.task.source('train')
    for row in (0, len(source) - 1):
        for epoch in (0, None):
            buckets = built.spec.task.buckets
            bucket = int(buckets.of('train')[row]) if buckets else -1
            planned = built.spec.bucketed.get(bucket, built.spec.batch)
            batch = encode_rows(source, built.spec.task.encode, [Row(row, epoch, True, bucket)], 0, built.spec.pad)
            assert batch.keys() == planned.keys()
            for name, value in batch.items():
                assert value.shape[1:] == planned[name].shape[1:] and value.dtype == planned[name].dtype


def test_losses_are_finite_and_weighted(built):
    for group in built.spec.task.losses:
        prefix = f'{group}/' if len(built.spec.task.losses) > 1 else ''
        weights = [logs[f'{prefix}loss'][1] for logs in built.logs]
        assert max(weights) > 0
        assert all(np.isfinite(value) for logs in built.logs for pair in logs.values() for value in pair)


def test_every_trained_leaf_moves_and_no_frozen_one(built):
    for group, tree in built.before.variables.params.items():
        old, new = paths.flatten_paths(tree), paths.flatten_paths(built.after.variables.params[group])
        frozen = built.config.optimizer[group].frozen if group in built.spec.task.losses else ('*',)
        for path in old:
            moved = not np.array_equal(old[path], new[path])
            assert moved != paths.match(path, frozen), f'{group}/{path} {"moved" if moved else "stayed"}'


def test_parameters_are_float32(planned):
    for path, leaf in paths.flatten_paths(planned[1].spec.state.variables.params).items():
        assert leaf.dtype == np.float32, path


def test_two_runs_are_equal_bit_for_bit(built):
    state = on_devices(built.before, built.spec.state)
    again, _ = run_steps(built.spec, built.compiled, built.steps, state)
    assert_equal(built.after, again)


def test_sharded_equals_single(built):
    values = json.loads(config_module.to_json(built.config))
    values['mesh'] = {'data': 2, 'fsdp': 2, 'tensor': 2, 'min_shard_size': 64}
    config = api.read(values)
    spec = make_run_spec(config, api.build(config, built.folder))
    sharded, logs = run_steps(spec, spec.compile(), built.steps)
    for (path, single), split in zip(
        jax.tree_util.tree_leaves_with_path(built.after.variables), jax.tree.leaves(sharded.variables), strict=True
    ):
        np.testing.assert_allclose(single, split, rtol=1e-5, atol=1e-5, err_msg=jax.tree_util.keystr(path))


def test_save_and_restore_are_equal(built, tmp_path):
    checkpoints = open_checkpoints(epath.Path(tmp_path), keep_last=1)
    checkpoints.save(built.steps, on_devices(built.after, built.spec.state), {'note': 1})
    checkpoints.wait()
    restored, meta, step = checkpoints.restore(built.spec.state)
    checkpoints.close()
    assert (meta, step) == ({'note': 1}, built.steps)
    assert_equal(built.after, restored)


def test_metrics_do_not_depend_on_the_batch_size(built, measured):
    others = metrics_of(built, 3)
    assert others.keys() == measured.keys() and others
    for name in others:
        np.testing.assert_allclose(others[name], measured[name], rtol=2e-3, atol=1e-5, err_msg=name)


def test_predict_and_decode_answer_a_person(built):
    task = built.spec.task
    raws = list(task.examples[:2]) or [task.source('train')[0], task.source('train')[1]]
    answers = []
    for size in (2, 4) if task.generate else (2,):
        measure = make_evaluator(task, 0, size, built.spec.batch_sharding)
        batch = padded_requests(built.spec, raws, size)
        with jax.set_mesh(built.spec.mesh):
            outputs = measure.predict(
                eval_variables(built.after), place(batch, range(size), size, built.spec.batch_sharding), 0
            )
        rows = [{name: np.asarray(value)[row] for name, value in outputs.items()} for row in range(len(raws))]
        answers.append([plain(task.decode(row)) for row in rows])
    assert json.dumps(answers[0]) and all(answers[0])
    if task.generate is not None:
        assert answers[0] == answers[1]  # the batch a request travels in does not matter


def test_pictures_are_pictures(built):
    task = built.spec.task
    if task.render is None:
        pytest.skip('this task shows no pictures')
    source = task.examples or task.source('train')
    batch = padded_requests(built.spec, [source[row] for row in range(4)], 4)
    measure = make_evaluator(task, 0, 4, built.spec.batch_sharding)
    with jax.set_mesh(built.spec.mesh):
        outputs = measure.predict(eval_variables(built.after), place(batch, range(4), 4, built.spec.batch_sharding), 0)
    for name, picture in task.render(batch, jax.device_get(outputs)).items():
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3, name


@pytest.mark.parametrize(
    ('section', 'key', 'value'),
    [
        ('model', 'widhts', 3),
        ('task', 'shfit', 1),
        ('data', 'nmae', 'x'),
        ('train', 'batch_size', -4),
    ],
)
def test_a_bad_config_is_refused_before_anything_compiles(planned, section, key, value):
    built = planned[1]
    values = json.loads(config_module.to_json(built.config))
    values[section][key] = value
    with pytest.raises(UserError, match=key):
        config = api.read(values)
        api.build(config, built.folder)


def test_config_file_says_how_to_run_it_and_what_to_expect(planned):
    name = planned[0]
    header = api.find_config(name).read_text(encoding='utf-8').split('"""')[1]
    assert f'--config={name}' in header, 'the run command stands on top'
    assert 'xpect' in header, 'the expected result stands on top'


@pytest.mark.parametrize('name', all_configs())
def test_every_variant_is_documented_and_no_helper_is_one(name):
    module = types.ModuleType('config')
    module.__file__ = name
    exec(api.find_config(name).read_bytes(), module.__dict__)
    for variant in variants(module):
        assert f':{variant}`' in module.__doc__, f'{name}: its docstring does not list :{variant}'
