"""The GAN's parts: which loss moves what, where noise comes from, and what the metrics mean."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath
from PIL import Image

from research import api
from research.core.state import init_state
from research.core.step import make_step
from research.core.task import Context
from research.data.dataset import numbered
from research.data.image.gallery import nearest
from research.data.outputs import plain
from research.data.sets import digits
from research.errors import UserError
from research.interop.features import make_space
from research.ops.frechet import Moments, frechet_distance
from research.ops.generative_metrics import read_train
from research.ops.noise import SAMPLE_LABEL, labels_of
from research.tasks import image_generation

MLP = {'name': 'mlp', 'latent': 4, 'generator': {'widths': (8,)}, 'discriminator': {'widths': (8,)}}
CONV = {
    'name': 'conv',
    'latent': 4,
    'generator': {'widths': (4, 4), 'norm': 'batch'},
    'discriminator': {'widths': (4, 4), 'norm': 'batch'},
}
RESNET_TOO_DEEP = {
    'name': 'resnet',
    'latent': 4,
    'generator': {'widths': (4, 4)},
    'discriminator': {'widths': (4,) * 5, 'halvings': 5},
}
GROUPS = ('discriminator', 'generator')


def settings(model=MLP, **task):
    return SimpleNamespace(
        task={'name': 'image_generation', 'fakes': 2, **task},
        model=model,
        data={'name': 'digits'},
        methods=(),
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = epath.Path(tmp_path_factory.mktemp('prepared')) / 'new'
    image_generation.prepare(settings(), path)
    return path


def batch_of(task, raws, start=0):
    rows = [task.encode(row) for row in raws]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    count = len(rows)
    return {
        **batch,
        'index': np.arange(start, start + count, dtype=np.int32),
        'mask': np.ones(count, np.float32),
    }


def context(train=False, seed=0):
    return Context(jax.random.key(seed), jnp.int32(0), train)


def same(left, right):
    return all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


@pytest.mark.parametrize('group', GROUPS)
def test_a_groups_loss_moves_its_own_parameters_and_statistics_alone(folder, group):
    task = image_generation.make(settings(CONV, conditional=True), folder)
    task = task._replace(losses={group: task.losses[group]})
    optimizers = {group: optax.sgd(0.1)}
    before = init_state(task, optimizers, 0.0, 0)
    step = make_step(task, optimizers, {group: 1}, 1, 0.0, 0)
    after, logs = jax.jit(step)(before, batch_of(task, task.source('train')[:8]))
    other = GROUPS[1 - GROUPS.index(group)]
    assert same(before.variables.params[other], after.variables.params[other])
    assert same(before.variables.extra[other], after.variables.extra[other])
    assert not same(before.variables.params[group], after.variables.params[group])
    assert not same(before.variables.extra[group], after.variables.extra[group])
    assert logs['gradient_norm'][0] > 0 and logs['loss'][1] == 8


def test_discriminator_comes_first_and_logs_how_often_it_is_right(folder):
    task = image_generation.make(settings(), folder)
    assert tuple(task.losses) == GROUPS
    variables = task.init(jax.random.key(0))
    assert set(variables.params) == set(GROUPS) and variables.extra == {}
    _, aux = task.losses['discriminator'](variables, batch_of(task, task.source('train')[:8]), context(True))
    assert aux.logs['real_right'] == (np.asarray(aux.outputs['real_logits']) > 0).sum()
    assert aux.logs['fake_right'] == (np.asarray(aux.outputs['fake_logits']) < 0).sum()


def test_padding_does_not_change_the_losses(folder):
    model = {**MLP, 'discriminator': {'widths': (8,), 'dropout': 0.0}}
    task = image_generation.make(settings(model), folder)
    variables, batch = task.init(jax.random.key(0)), batch_of(task, task.source('train')[:6])
    short = {name: value[:4] for name, value in batch.items()}
    padded = {**batch, 'mask': np.float32([1, 1, 1, 1, 0, 0])}
    for loss in task.losses.values():
        (one, _), (two, aux) = (loss(variables, each, context(True)) for each in (short, padded))
        assert float(one) == pytest.approx(float(two), rel=1e-5) and aux.weight == 4


def test_noise_belongs_to_the_example_and_not_to_the_batch(folder):
    task = image_generation.make(settings(conditional=True), folder)
    variables, predict = task.init(jax.random.key(0)), jax.jit(task.predict)
    whole = predict(variables, batch_of(task, [{}] * 6), context())
    part = predict(variables, batch_of(task, [{}] * 2, start=3), context())
    np.testing.assert_allclose(whole['image'][3:5], part['image'], atol=1e-6)
    np.testing.assert_array_equal(whole['label'][3:5], part['label'])
    assert len({picture.tobytes() for picture in np.asarray(whole['image'])}) == 6
    seeded = predict(variables, batch_of(task, [{'seed': 1}] * 6), context())
    assert not np.allclose(whole['image'], seeded['image'])
    other = predict(variables, batch_of(task, [{}] * 6), context(seed=1))
    assert not np.allclose(whole['image'], other['image'])


def test_labels_that_are_given_are_kept_and_others_drawn_as_often_as_in_training():
    probability = np.float32([0.7, 0.3, 0.0])
    batch = {'index': jnp.arange(1000), 'label': jnp.full(1000, SAMPLE_LABEL)}
    drawn = np.asarray(labels_of(batch, jax.random.key(0), probability))
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 1000, probability, atol=0.05)
    given = {**batch, 'label': jnp.full(1000, 2)}
    assert (np.asarray(labels_of(given, jax.random.key(0), probability)) == 2).all()


def test_floor_baseline_and_distance_are_what_they_say(folder):
    task = image_generation.make(settings(), folder)
    pixels = {
        split: np.stack([row['image'].reshape(-1) for row in task.source(split)])
        for split in ('train', 'test')
    }
    train, test = (
        Moments(each.mean(0, dtype=np.float64), np.cov(each, rowvar=False)) for each in pixels.values()
    )
    variables, batch = task.init(jax.random.key(0)), batch_of(task, task.source('test'))
    sums = {
        name: np.asarray(value, np.float64)
        for name, value in task.metric_sums(variables, batch, context()).items()
    }
    assert sums['real_count'] == 269 and sums['fake_count'] == 2 * 269
    metrics = task.metrics(sums)
    assert metrics['frechet_pixels_floor'].value == pytest.approx(frechet_distance(train, test), rel=1e-3)
    alone = train._replace(covariance=np.diag(np.diag(train.covariance)))
    assert metrics['frechet_pixels'].baseline == pytest.approx(frechet_distance(alone, test), rel=1e-3)
    assert metrics['frechet_pixels'].value > metrics['frechet_pixels'].baseline  # untrained
    copied = {**sums, **{f'fake_{part}': sums[f'real_{part}'] for part in ('count', 'sum', 'square')}}
    metrics = task.metrics(copied)
    assert metrics['frechet_pixels'].value == pytest.approx(0, abs=1e-4)
    assert metrics['spread'].value == pytest.approx(1)


def test_metrics_are_of_pictures_shrunk_to_a_stated_size(tmp_path):
    config, folder = settings(pixels=4), epath.Path(tmp_path)
    image_generation.prepare(config, folder)
    task = image_generation.make(config, folder)
    space = make_space('pixels', (8, 8, 1), 4, '', None)
    small = np.asarray(space.of(task.source('test')[0]['image'][None]))
    assert small.shape == (1, 16)
    assert small.mean() == pytest.approx(task.source('test')[0]['image'].mean(), abs=0.05)
    sums = task.metric_sums(task.init(jax.random.key(0)), batch_of(task, task.source('test')[:8]), context())
    assert sums['fake_square'].shape == (16, 16)
    about = task.metrics(jax.device_get(sums))['frechet_pixels'].about
    assert 'features:pixels|values:16|range:0-1|resize:linear-antialias-8x8-to-4x4|real:8|fake:16' in about


def test_prepare_reads_the_training_split_alone(folder):
    stored = json.loads((folder / 'statistics.json').read_text())
    rows = numbered(digits.open()).source('train')
    pixels = np.stack([row['image'].reshape(-1) for row in rows])
    moments = read_train(folder, False).moments
    np.testing.assert_allclose(moments.mean, pixels.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(moments.covariance, np.cov(pixels, rowvar=False), rtol=1e-4, atol=1e-7)
    assert stored['counts'] == np.bincount([row['label'] for row in rows]).tolist()


@pytest.mark.parametrize('conditional', [True, False])
def test_requests_answers_and_pictures(folder, conditional):
    task = image_generation.make(settings(conditional=conditional), folder)
    assert ('label' in task.inputs) == conditional
    raws = task.examples[:12]
    batch = batch_of(task, raws)
    outputs = jax.device_get(task.predict(task.init(jax.random.key(0)), batch, context()))
    assert outputs['image'].shape == (12, 8, 8, 1)
    assert 0 <= outputs['image'].min() and outputs['image'].max() <= 1
    answer = task.decode({name: value[11] for name, value in outputs.items()})
    assert json.dumps(plain(answer)) and answer['image'].pixels.shape == (8, 8, 1)
    assert answer.get('label') == ('1' if conditional else None)
    picture = task.render(batch, outputs)['samples']
    assert picture.dtype == np.uint8 and picture.shape == (2 * 54, 10 * 54, 3)


@pytest.mark.parametrize(('raw', 'message'), [
    ({'label': 10}, 'label must be a whole number from -1 to 9'),
    ({'label': 'ten'}, "got 'ten'"),
    ({'label': 1.5}, 'got 1.5'),
    ({'seed': -1}, 'seed must be a whole number from 0'),
    ({'seed': 2**40}, 'seed'),
    ({'seed': float('nan')}, 'seed'),
    ({'to': -2}, 'to must be a whole number'),
    ({'at': 1.5}, 'at must be a number from 0 to 1'),
])  # fmt: skip
def test_impossible_requests_are_refused(folder, raw, message):
    with pytest.raises(UserError, match=message):
        image_generation.make(settings(conditional=True), folder).encode(raw)


def test_a_label_may_be_a_name(folder):
    task = image_generation.make(settings(conditional=True), folder)
    assert task.encode({'label': '7'})['label'] == task.encode({'label': 7})['label'] == 7


@pytest.mark.parametrize(('config', 'message'), [
    (settings(loss='hing'), "did you mean 'hinge'"),
    (settings(fakes=0), 'fakes must be above zero'),
    (settings(r1=-1.0), 'config.task.r1 must be zero or more'),
    (settings(augment=('colour',)), "did you mean 'color'"),
    (settings(features='pixel'), "expected 'pixels' or"),
    (settings(CONV, r1=1.0), 'batch norm in the discriminator mixes'),
    (settings(conditionl=True), "did you mean 'conditional'"),
    (settings({**MLP, 'name': 'mpl'}), "did you mean 'mlp'"),
    (settings({**MLP, 'latent': 0}), 'latent'),
    (settings({**MLP, 'generator': {'width': (3,)}}), 'config.model.generator.width'),
    (settings({**CONV, 'generator': {'widths': (2,) * 5}}), 'use fewer'),
    (settings(RESNET_TOO_DEEP, gradient_penalty=1.0), 'halvings=5: 8x8 pixels cannot be halved 5 times'),
])  # fmt: skip
def test_impossible_settings_are_refused(folder, config, message):
    with pytest.raises(UserError, match=message):
        image_generation.make(config, folder)


def test_rows_of_a_users_files_are_mixed_always_alike(tmp_path):
    for number in range(60):
        path = tmp_path / 'pictures' / 'ab'[number // 30]
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(path / f'{number:02}.png')
    data = {'reader': 'image_folder', 'train': str(tmp_path / 'pictures'), 'test': '', 'validation': ''}
    config = settings()
    config.data = {**data, 'test_fraction': 0.2, 'validation_fraction': 0.2}
    orders = []
    for _ in range(2):
        image_generation.prepare(config, epath.Path(tmp_path / 'prepared'))
        rows = image_generation.make(config, epath.Path(tmp_path / 'prepared')).source('train')
        orders.append([int(row['image'][0, 0, 0]) for row in rows])
    assert orders[0] == orders[1] != sorted(orders[0]) and len(set(orders[0])) == len(orders[0])
    labels = [row['label'] for row in rows]
    assert 0 < sum(labels[: len(labels) // 2]) < len(labels) // 2


def test_truncation_is_for_answers_alone(folder):
    whole, cut = (image_generation.make(settings(truncation=value), folder) for value in (0.0, 0.1))
    variables, batch = whole.init(jax.random.key(0)), batch_of(whole, [{}] * 8)
    answers = [np.asarray(jax.jit(task.predict)(variables, batch, context())['image']) for task in (whole, cut)]
    assert answers[1].std(0).mean() < answers[0].std(0).mean() / 5
    rows = batch_of(whole, whole.source('test')[:4])
    sums = [jax.device_get(jax.jit(task.metric_sums)(variables, rows, context())) for task in (whole, cut)]
    np.testing.assert_array_equal(sums[0]['fake_sum'], sums[1]['fake_sum'])


def test_gallery_shows_ways_between_seeds_and_the_nearest_training_pictures(folder):
    task = image_generation.make(settings(conditional=True, neighbours=3), folder)
    rows, asked = task.source('train'), []

    def answer(raws):
        asked.append(raws)
        return {'image': np.stack([rows[number]['image'] for number in range(len(raws))])}

    pictures = task.final_pictures(answer)
    assert set(pictures) == {'interpolations', 'neighbours'}
    assert pictures['interpolations'].shape == (8 * 54, 10 * 54, 3)
    assert pictures['neighbours'].dtype == np.uint8
    between, plain = asked
    assert [each['at'] for each in between[:10]] == pytest.approx(np.linspace(0, 1, 10))
    assert len({(each['seed'], each['to'], each['label']) for each in between[:10]}) == 1
    assert plain == task.examples[:10]
    for raw in between:
        task.encode(raw)
    distances, numbers = nearest(np.stack([rows[7]['image'], rows[30]['image']]), rows, (8, 8, 1), 2)
    everything = np.stack([row['image'].ravel() for row in rows]).astype(np.float64)
    assert numbers[:, 0].tolist() == [7, 30] and distances[0, 0] == pytest.approx(0, abs=1e-6)
    by_hand = np.sort(np.linalg.norm(everything - everything[30], axis=1))
    assert distances[1, 1] == pytest.approx(by_hand[1], rel=1e-6)
    assert set(image_generation.make(settings(neighbours=0), folder).final_pictures(answer)) == {'interpolations'}


GP = {'loss': 'wasserstein', 'gradient_penalty': 10.0, 'r1': 0.5, 'augment': ('color', 'translation', 'cutout')}
DEEP = {
    'name': 'dcgan',
    'latent': 4,
    'generator': {'widths': (4, 4), 'norm': 'batch'},
    'discriminator': {'widths': (4, 4), 'norm': 'group'},
}
RESIDUAL = {
    'name': 'resnet',
    'latent': 4,
    'generator': {'widths': (4, 4)},
    'discriminator': {'widths': (4, 4), 'halvings': 1},
}


@pytest.mark.parametrize('model', [DEEP, RESIDUAL], ids=['dcgan', 'resnet'])
def test_loss_with_penalties_is_the_same_on_a_mesh_in_parts_and_with_padding(folder, model):
    task = image_generation.make(settings(model, conditional=True, **GP), folder)
    task = task._replace(losses={'discriminator': task.losses['discriminator']})
    optimizers = {'discriminator': optax.sgd(1.0)}
    before = init_state(task, optimizers, 0.0, 0)
    rows = batch_of(task, task.source('train')[:16])
    step = jax.jit(make_step(task, optimizers, {'discriminator': 1}, 1, 0.0, 0))
    single, logs = step(before, rows)
    assert logs['penalty'][0] > 0 and np.isfinite(logs['difference'][0])
    mesh = jax.make_mesh((4, 2), ('data', 'fsdp'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(('data', 'fsdp')))
        sharded, found = step(before, jax.device_put(rows, split))
    assert found['loss'][0] == pytest.approx(float(logs['loss'][0]), rel=1e-4)
    pairs = zip(jax.tree.leaves(single.variables), jax.tree.leaves(sharded.variables), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    masks = np.float32([np.arange(16) < 12, np.arange(16) < 6, (np.arange(16) >= 6) & (np.arange(16) < 12)])
    whole, *parts = (float(step(before, {**rows, 'mask': mask})[1]['penalty'][0]) for mask in masks)
    assert sum(parts) == pytest.approx(whole, rel=1e-5)


def test_features_of_a_classifier_that_was_trained_here(tmp_path):
    run = str(tmp_path / 'classifier')
    quick = {'train.eval_split': '', 'train.test_split': '', 'train.steps': 2, 'train.sample_every': 0}
    api.run('configs/digits.py:mlp', run, {**quick, 'model.widths': (8,)})
    folder = epath.Path(tmp_path) / 'prepared'
    config = settings(features='classifier', network=run, kernel=True)
    api.bind_run_loader(image_generation.prepare)(config, folder)
    task = api.bind_run_loader(image_generation.make)(config, folder)
    rows = batch_of(task, task.source('test')[:9])
    sums = jax.device_get(jax.jit(task.metric_sums)(task.init(jax.random.key(0)), rows, context()))
    metrics = task.metrics(sums)
    names = {f'{kind}_classifier{floor}' for kind in ('frechet', 'kernel') for floor in ('', '_floor')}
    assert names < set(metrics)
    about = metrics['kernel_classifier'].about
    assert 'features:image_classification/mlp-before-head|trained-on:digits|step:2|sha256:' in about
    assert 'values:8|resize:none|real:9|fake:18' in about

    model = api.read_trained(run)  # the head's own product of the features
    space = make_space('classifier', (8, 8, 1), 0, run, api.read_trained)
    points = np.asarray(space.of(rows['image']))
    head = model.variables.params['model']['head']
    logits = model.task.predict(model.variables, rows, context())['logits']
    np.testing.assert_allclose(points @ head['kernel'] + head['bias'], logits, rtol=1e-4, atol=1e-4)

    stored = json.loads((folder / 'statistics.json').read_text())
    stored['space'] = stored['space'].replace('sha256:', 'sha256:0')
    (folder / 'statistics.json').write_text(json.dumps(stored))
    changed = image_generation.make(config, folder)
    changed.encode({})  # answers need no classifier
    with pytest.raises(UserError, match='is not what this run began with'):
        api.bind_run_loader(image_generation.make)(config, folder).metrics(sums)


@pytest.mark.parametrize(('task', 'message'), [
    ({'features': 'inception'}, "config.task.network='': there is no such file.*pytorch-fid"),
    ({'features': 'classifier'}, 'configs/fashion_features.py'),
    ({'features': 'classifier', 'network': 'nowhere'}, "config.task.network='nowhere'.*Train it first"),
])  # fmt: skip
def test_spaces_that_cannot_be_are_refused_before_anything_trains(tmp_path, task, message):
    with pytest.raises(UserError, match=message):
        api.bind_run_loader(image_generation.prepare)(settings(**task), epath.Path(tmp_path))
