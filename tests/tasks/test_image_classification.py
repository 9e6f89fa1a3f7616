"""The classifier's parts: what is stored, encoded, lost, measured, answered and drawn."""

import io
import json
import pathlib
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from PIL import Image

from research.core.startup import load_weights
from research.core.task import Context, Variables
from research.data.dataset import numbered
from research.data.image.images import PAPER, RED
from research.data.sets import digits
from research.errors import UserError
from research.methods import privacy
from research.ops.mixing import mix
from research.report.run import coupling_notes
from research.tasks import image_classification

MLP = {'name': 'mlp', 'widths': (8,)}
RESNET = {'name': 'resnet', 'widths': (4,), 'depths': (1,)}
VIT = {'name': 'vit', 'patch': 4, 'width': 8, 'layers': 1, 'heads': 2, 'scan': True}
FIXTURES = pathlib.Path(__file__).parent.parent / 'interop' / 'fixtures'


def settings(model=MLP, data=None, **task):
    return SimpleNamespace(
        task={'name': 'image_classification', **task},
        model=model,
        data=data or {'name': 'digits'},
        methods=(),
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = epath.Path(tmp_path_factory.mktemp('prepared')) / 'new'
    image_classification.prepare(settings(), path)
    return path


def batch_of(task, count, split='train'):
    rows = [task.encode(row) for row in task.source(split)[:count]]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {**batch, 'index': np.arange(count, dtype=np.int32), 'mask': np.ones(count, np.float32)}


def context(train=False):
    return Context(jax.random.key(0), jnp.int32(0), train)


def test_statistics_may_be_of_evenly_spaced_rows(tmp_path):
    image_classification.prepare(settings(statistics=100), epath.Path(tmp_path))
    stored, rows = json.loads((tmp_path / 'classes.json').read_text()), numbered(digits.open()).source('train')
    chosen = [rows[number * len(rows) // 100] for number in range(100)]
    assert stored['counts'] == np.bincount([row['label'] for row in chosen], minlength=10).tolist()
    np.testing.assert_allclose(stored['mean'], [np.mean([row['image'] for row in chosen])], rtol=1e-6)


def test_prepare_stores_statistics_of_the_training_split_alone(folder):
    stored = json.loads((folder / 'classes.json').read_text())
    rows = numbered(digits.open()).source('train')
    pixels = np.stack([row['image'] for row in rows]).astype(np.float64)
    np.testing.assert_allclose(stored['mean'], [pixels.mean()], rtol=1e-6)
    np.testing.assert_allclose(stored['std'], [pixels.std()], rtol=1e-6)
    assert stored['counts'] == np.bincount([row['label'] for row in rows]).tolist()
    assert stored['classes'] == list('0123456789') and stored['shape'] == [8, 8, 1]


def test_encoding_without_an_rng_is_the_scan_itself_and_with_one_moves_it(folder):
    task = image_classification.make(settings(shift=1, flip=True), folder)
    row = task.source('train')[3]
    np.testing.assert_array_equal(task.encode(row)['image'], row['image'])
    seen = {task.encode(row, np.random.default_rng(seed))['image'].tobytes() for seed in range(200)}
    assert len(seen) == 18  # 3 x 3 places, mirrored or not
    again = [task.encode(row, np.random.default_rng([1, 2, 3]))['image'] for _ in range(2)]
    np.testing.assert_array_equal(*again)
    assert task.encode(row)['label'] == row['label']


def test_requests_may_be_bytes_arrays_or_lists_of_any_size(folder):
    task = image_classification.make(settings(), folder)
    scan = task.source('test')[0]['image']
    pixels = np.round(scan[..., 0] * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG')
    requests = [
        scan,
        scan[..., 0].tolist(),
        pixels,
        pixels.tolist(),
        buffer.getvalue(),
    ]
    requests += [pixels.repeat(4, 0).repeat(4, 1), np.stack([pixels] * 3, axis=-1)]
    for request in requests:
        encoded = task.encode({'image': request})
        assert set(encoded) == {'image'} and encoded['image'].shape == (8, 8, 1)
        assert encoded['image'].dtype == np.float32
        tolerance = 0.3 if np.ndim(request) == 2 and np.shape(request) == (32, 32) else 0.01
        np.testing.assert_allclose(encoded['image'], scan, atol=tolerance)


@pytest.mark.parametrize(('request_', 'message'), [
    ({}, "no 'image'"),
    ({'image': np.zeros((4, 4, 4, 4))}, r'each side 1 to 8192; got float64 \[4, 4, 4, 4\]'),
    ({'image': 'secret.png'}, 'give the bytes of a file'),
    ({'image': np.zeros((8, 8)), 'label': 10}, '10 is not one of the 10 classes'),
])  # fmt: skip
def test_impossible_requests_are_refused(folder, request_, message):
    with pytest.raises(UserError, match=message):
        image_classification.make(settings(), folder).encode(request_)


@pytest.mark.parametrize('model', [MLP, RESNET])
def test_loss_is_a_sum_of_cross_entropies_and_statistics_are_kept(folder, model):
    task = image_classification.make(settings(model, label_smoothing=0.1), folder)
    variables, batch = task.init(jax.random.key(1)), batch_of(task, 6)
    total, aux = task.losses['model'](variables, batch, context(train=True))
    logits = np.asarray(aux.outputs['logits'], np.float64)
    log_probability = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    target = 0.9 * np.eye(10)[batch['label']] + 0.01
    assert total == pytest.approx(-(target * log_probability).sum(), rel=1e-4)
    assert aux.weight == 6
    assert aux.logs['accuracy'] == (logits.argmax(-1) == batch['label']).sum()
    changes = {'batch_stats'} if model is RESNET else set()
    assert set(aux.extra.get('model', {})) == changes == set(variables.extra.get('model', {}))
    _, still = task.losses['model'](variables, batch, context(train=False))
    for old, new in zip(jax.tree.leaves(variables.extra), jax.tree.leaves(still.extra), strict=True):
        np.testing.assert_array_equal(old, new)


def test_mixed_pictures_are_learnt_with_mixed_targets(folder):
    """The loss beside float64: each row's mixture found again from the picture, padding seen by none."""
    task = image_classification.make(settings(mixup=0.5, label_smoothing=0.1), folder)
    variables, batch = task.init(jax.random.key(1)), batch_of(task, 6)
    batch['mask'] = np.float32([1, 1, 0, 1, 1, 1])
    partner, own = [1, 3, 2, 4, 5, 0], batch['image'].astype(np.float64)
    loss = jax.jit(lambda batch: task.losses['model'](variables, batch, context(train=True)))
    total, aux = loss(batch)
    poisoned = {**batch, 'image': np.where(batch['mask'][:, None, None, None] > 0, batch['image'], 1e6)}
    assert float(loss(poisoned)[0]) == pytest.approx(float(total), rel=1e-6)

    facts = json.loads((folder / 'classes.json').read_text())
    kernels = {name: jax.tree.map(np.float64, layer) for name, layer in variables.params['model'].items()}
    keys = jax.vmap(jax.random.fold_in, (None, 0))(context(True).fold('mix'), batch['index'])
    mixed, targets = mix(batch['image'], np.eye(10)[batch['label']], batch['mask'], keys, mixup=0.5)
    expected, right = 0.0, 0.0
    for row in np.flatnonzero(batch['mask']):
        other, difference = own[partner[row]], own[row] - own[partner[row]]
        share = ((np.float64(mixed[row]) - other) * difference).sum() / (difference**2).sum()
        pixels = (share * own[row] + (1 - share) * other - facts['mean']) / facts['std']
        hidden = np.maximum(pixels.ravel() @ kernels['hidden_0']['kernel'] + kernels['hidden_0']['bias'], 0)
        logits = hidden @ kernels['head']['kernel'] + kernels['head']['bias']
        target = share * np.eye(10)[batch['label'][row]] + (1 - share) * np.eye(10)[batch['label'][partner[row]]]
        np.testing.assert_allclose(targets[row], target, atol=1e-5)
        expected -= ((0.9 * target + 0.01) * (logits - np.log(np.exp(logits).sum()))).sum()
        right += target[logits.argmax()]
    assert float(total) == pytest.approx(expected, rel=1e-4) and aux.weight == 5
    assert float(aux.logs['accuracy']) == pytest.approx(right, abs=1e-4)
    plain = image_classification.make(settings(label_smoothing=0.1), folder)  # outside training nothing is mixed
    unmixed = [float(each.losses['model'](variables, batch, context(False))[0]) for each in (task, plain)]
    assert unmixed[0] == unmixed[1]


@pytest.mark.parametrize(('task', 'named'), [({'mixup': 0.2}, 'task.mixup'), ({'cutmix': 1.0}, 'task.cutmix')])
def test_rows_that_are_mixed_cannot_be_private(folder, task, named):
    made = image_classification.make(settings(**task), folder)
    config = SimpleNamespace(optimizer={}, train=SimpleNamespace())
    with pytest.raises(UserError, match=rf'privacy cannot train with mixed rows \(config.{named}\)'):
        privacy.apply(made, privacy.Settings(), config)
    privacy.apply(image_classification.make(settings(erase=0.5), folder), privacy.Settings(), config)


def test_microbatches_are_said_to_mix_among_themselves(folder):
    task = image_classification.make(settings(mixup=0.2, cutmix=1.0), folder)
    plan = SimpleNamespace(
        task=task, capacity=0, config=SimpleNamespace(train=SimpleNamespace(microbatches=2)),
        state=SimpleNamespace(variables=Variables({}, {})),
    )  # fmt: skip
    (note,) = coupling_notes(plan)
    expected = 'the rows of a batch are mixed (config.task.mixup and config.task.cutmix); with microbatches=2'
    assert note.startswith(expected)


def test_a_transformer_reads_patches(folder):
    task = image_classification.make(settings(VIT), folder)
    variables = jax.eval_shape(task.init, jax.random.key(1))
    outputs = jax.eval_shape(lambda v: task.predict(v, batch_of(task, 3), context()), variables)
    assert outputs['logits'].shape == (3, 10)
    assert variables.params['model']['positions']['embedding'].shape == (5, 8) and task.load is None
    with pytest.raises(UserError, match='patch=3 does not divide images of 8x8'):
        image_classification.make(settings({**VIT, 'patch': 3}), folder)


def colour_pictures(path):
    """Returns the settings of a folder of pictures as large as the ViT of the fixtures reads: three classes."""
    rng = np.random.default_rng(0)
    for name in ('a', 'b', 'c'):
        (path / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(path / name / f'{number}.png')
    return {
        'reader': 'image_folder', 'train': str(path), 'validation': str(path), 'test': str(path), 'test_fraction': 0.0,
        'validation_fraction': 0.0,
    }  # fmt: skip


def test_pretrained_weights_are_one_line(tmp_path):
    """The ViT of the fixtures: logits of the reference, on pictures as its own preprocessing scales them."""
    data, model = colour_pictures(tmp_path / 'pictures'), {'name': 'vit', 'weights': str(FIXTURES / 'vit')}
    folder = epath.Path(tmp_path / 'prepared')
    image_classification.prepare(settings(model, data), folder)
    task = image_classification.make(settings(model, data), folder)
    variables, report = load_weights(task.load(), jax.jit(task.init)(jax.random.key(0)))
    assert 'keep their values' not in str(report)
    stored = np.load(FIXTURES / 'vit' / 'reference.npz')
    batch = {'image': stored['images'] * 0.5 + 0.5}
    found = jax.jit(lambda v, b: task.predict(v, b, context()))(variables, batch)['logits']
    np.testing.assert_allclose(found, stored['logits'], atol=1e-4)

    weights = shutil.copytree(FIXTURES / 'vit', tmp_path / 'vit')  # the same classes, in another order
    told = json.loads((weights / 'config.json').read_text())
    (weights / 'config.json').write_text(json.dumps({**told, 'id2label': {'0': 'c', '1': 'a', '2': 'b'}}))
    named = {**model, 'weights': str(weights)}
    image_classification.prepare(settings(named, data), folder)
    task = image_classification.make(settings(named, data), folder)
    ordered, _ = load_weights(task.load(), jax.jit(task.init)(jax.random.key(0)))
    for name, leaf in ordered.params['model']['head'].items():
        np.testing.assert_array_equal(leaf, np.asarray(variables.params['model']['head'][name])[..., [1, 2, 0]])

    shutil.rmtree(tmp_path / 'pictures' / 'c')  # two classes: the last layer is made anew, and that is said
    image_classification.prepare(settings(model, data), folder)
    task = image_classification.make(settings(model, data), folder)
    variables, report = load_weights(task.load(), jax.jit(task.init)(jax.random.key(0)))
    assert 'model/head/kernel: expected (16, 2), got (16, 3)' in str(report) and 'not in the source' not in str(report)
    assert variables.params['model']['head']['kernel'].shape == (16, 2)


def test_pictures_of_another_shape_than_the_weights_are_refused_before_the_data_are_read(tmp_path):
    model = {'name': 'vit', 'weights': str(FIXTURES / 'vit')}
    with pytest.raises(UserError, match='pictures of 12x12x3.* the data have 8x8x1: set config.data.shape=12,12,3'):
        image_classification.prepare(settings(model), epath.Path(tmp_path))
    with pytest.raises(UserError, match='is a bert, which reads no pictures'):
        image_classification.prepare(settings({**model, 'weights': str(FIXTURES / 'bert')}), epath.Path(tmp_path))


def test_padding_changes_neither_loss_nor_metrics(folder):
    task = image_classification.make(settings(), folder)
    variables, batch = task.init(jax.random.key(1)), batch_of(task, 8)
    short = {name: value[:5] for name, value in batch.items()}
    padded = {**batch, 'mask': np.float32([1, 1, 1, 1, 1, 0, 0, 0])}
    (one, aux), (two, other) = (
        task.losses['model'](variables, each, context(True)) for each in (short, padded)
    )
    assert one == pytest.approx(float(two), rel=1e-6) and aux.weight == other.weight == 5
    first, second = (
        task.metrics(jax.device_get(task.metric_sums(variables, b, context()))) for b in (short, padded)
    )
    for name in first:
        np.testing.assert_allclose(first[name].value, second[name].value, rtol=1e-6, err_msg=name)


def test_predictions_are_probabilities_and_decode_names_the_class(folder):
    task = image_classification.make(settings(), folder)
    outputs = task.predict(task.init(jax.random.key(1)), batch_of(task, 4), context(train=True))
    np.testing.assert_allclose(outputs['probability'].sum(-1), 1, rtol=1e-6)
    probability = np.float32([0.0, 0.1, 0.0, 0.6, 0.0, 0.0, 0.0, 0.3, 0.0, 0.0])
    answer = task.decode({'logits': np.log(probability + 1e-9), 'probability': probability})
    assert json.loads(json.dumps(answer)) == answer
    assert (answer['label'], answer['probability']) == ('3', pytest.approx(0.6))
    assert [each['label'] for each in answer['top']][:3] == ['3', '7', '1'] and len(answer['top']) == 5


def test_wrong_pictures_come_first_in_a_red_frame_and_padding_is_left_out(folder):
    task = image_classification.make(settings(), folder)
    batch = {'image': np.zeros((4, 8, 8, 1), np.float32), 'label': np.array([1, 2, 3, 4])}
    batch['mask'] = np.float32([1, 1, 1, 0])
    logits = np.eye(10)[[1, 2, 9, 9]]  # the third is wrong, the fourth is padding
    picture = task.render(batch, {'logits': logits})['right_and_wrong']
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    width = picture.shape[1] // 3
    corners = [tuple(picture[0, number * width]) for number in range(3)]
    assert corners == [RED, PAPER, PAPER]
    del batch['label']
    assert not (task.render(batch, {'logits': logits})['right_and_wrong'] == RED).all(-1).any()


@pytest.mark.parametrize(('config', 'message'), [
    (settings(shfit=1), "did you mean 'shift'"),
    (settings(shift=-1), 'config.task.shift must be zero or more'),
    (settings(label_smoothing=1.0), 'label_smoothing'),
    (settings(mixup=-0.1), 'config.task.mixup must be zero or more, got -0.1'),
    (settings(center_crop=1.5), 'center_crop must be at least zero and at most 1'),
    (settings(erase=2.0), 'erase'),
    (settings({'name': 'vit', 'patch': 4, 'widht': 8}), 'config.model.widht'),
    (settings({'name': 'resnt'}), "did you mean 'resnet'"),
    (settings({'name': 'mlp', 'depths': (1,)}), 'config.model.depths'),
    (settings(data={'name': 'digit'}), "did you mean 'digits'"),
    (settings(data={'name': 'digits', 'sise': 8}), 'config.data.sise'),
])  # fmt: skip
def test_impossible_settings_are_refused(folder, config, message):
    with pytest.raises(UserError, match=message):
        image_classification.make(config, folder)
